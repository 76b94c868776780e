"""Prices and context windows of models from the tables of genai-prices.

Importing the tables takes 0.25 s, so callers do it in parallel with other work.
"""

from __future__ import annotations

from collections.abc import Callable

from genai_prices import Usage as PricedUsage
from genai_prices import calc_price
from genai_prices.data_snapshot import get_snapshot

from agentcli.llm.client import ModelInfo
from agentcli.messages import Usage

# Models newer than the tables, with the same price as their predecessors.
_SAME_PRICE = {"gpt-6.2-sol": "gpt-6.1-sol"}


def price_of(info: ModelInfo) -> Callable[[Usage], float | None]:
    """A function from the usage of one request to its cost in US dollars, None if unknown."""
    model = _SAME_PRICE.get(info.id, info.id)

    def dollars(usage: Usage) -> float | None:
        if not info.priced_by:
            return None
        priced = PricedUsage(
            input_tokens=usage.input_tokens,
            cache_read_tokens=usage.cached_tokens,
            cache_write_tokens=usage.cache_write_tokens,
            output_tokens=usage.output_tokens,
        )
        try:
            found = calc_price(priced, model, provider_id=info.priced_by)
        except LookupError:
            return None
        return float(found.total_price)

    return dollars


def window_of(info: ModelInfo) -> int | None:
    """A model's context window in tokens, or None if unknown."""
    if not info.priced_by:
        return None
    try:
        _, found = get_snapshot().find_provider_model(info.id, None, info.priced_by, None)
    except LookupError:
        return None
    return found.context_window
