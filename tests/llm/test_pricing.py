"""Costs of model calls."""

from __future__ import annotations

import pytest

from agentcli.config import Settings
from agentcli.llm.catalog import DEFAULT_MODELS
from agentcli.llm.client import ModelInfo
from agentcli.llm.registry import price_of, resolve
from agentcli.messages import Usage

KEYS = {"OPENAI_API_KEY": "k", "ANTHROPIC_API_KEY": "k"}
MILLION = 1_000_000


def test_cached_tokens_cost_less_and_written_ones_more() -> None:
    price = price_of(ModelInfo("claude-sonnet-5-5", "anthropic", priced_by="anthropic"))
    fresh = price(Usage(input_tokens=1000))
    cached = price(Usage(input_tokens=1000, cached_tokens=900))
    written = price(Usage(input_tokens=1000, cache_write_tokens=900))
    answered = price(Usage(input_tokens=1000, output_tokens=1000))
    assert fresh is not None and cached is not None and written is not None
    assert answered is not None
    assert cached < fresh < written < answered


def test_known_prices() -> None:
    price = price_of(ModelInfo("claude-sonnet-4-5", "anthropic", priced_by="anthropic"))
    assert price(Usage(input_tokens=1000, output_tokens=1000)) == pytest.approx(0.018)
    assert price(Usage()) == 0.0


@pytest.mark.parametrize("provider", DEFAULT_MODELS)
def test_default_models_have_a_price(provider: str) -> None:
    endpoint = resolve(f"{provider}:{DEFAULT_MODELS[provider]}", Settings(), KEYS)
    assert price_of(endpoint.info)(Usage(input_tokens=10, output_tokens=10))


def test_what_is_unknown_is_none() -> None:
    assert price_of(ModelInfo("no-such-model", "openai", priced_by="openai"))(Usage(1)) is None
    elsewhere = {**KEYS, "OPENAI_BASE_URL": "http://127.0.0.1:1/v1"}
    for name in ("openai:gpt-4o", "ollama:qwen3:8b"):
        assert price_of(resolve(name, Settings(), elsewhere).info)(Usage(1000)) is None
