"""Lists the models of configured providers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from genai_prices.data_snapshot import get_snapshot

from agentcli.llm.catalog import PROVIDERS, context_window
from agentcli.settings import Settings

_SMALLEST = 32_000
_OTHERS = re.compile("audio|image|realtime|transcribe|tts")


@dataclass(frozen=True, slots=True)
class Listed:
    """A model by its name for ``--model``; ``context`` is in tokens, None if unknown."""

    name: str
    what: str
    context: int | None = None


def listed(settings: Settings, environ: Mapping[str, str]) -> Iterator[Listed]:
    """The models in the price tables of each provider that is configured or whose key is set.

    Models for speech and images are left out, and those whose window is too small for tools and
    files. A provider without a price table, such as the user's own server, is one entry with NAME.
    """
    for name in sorted({*PROVIDERS, *settings.providers}):
        known = PROVIDERS.get(name)
        key = known.api_key_env if known else ""
        if not (name in settings.providers or (key and environ.get(key))):
            continue
        models = _priced(known.priced_by) if known and known.priced_by else []
        for model, priced in models:
            window = context_window(model) or priced or 0
            if window >= _SMALLEST and not _OTHERS.search(model):
                yield Listed(f"{name}:{model}", "served by the provider", window)
        if not models:
            yield Listed(f"{name}:NAME", "named by the server")


def _priced(provider: str) -> list[tuple[str, int | None]]:
    for found in get_snapshot().providers:
        if found.id == provider:
            return [(model.id, model.context_window) for model in found.models]
    return []
