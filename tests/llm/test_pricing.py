"""The cost of model calls."""

from __future__ import annotations

import pytest

from agentcli.llm.catalog import DEFAULT_MODELS, context_window
from agentcli.llm.client import ModelInfo
from agentcli.llm.pricing import window_of as in_tables
from agentcli.llm.registry import price_of, resolve, window_of
from agentcli.messages import Usage
from agentcli.settings import ProviderSettings, Settings

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


def test_another_address_has_the_prices_that_its_settings_name() -> None:
    for named, expected in ((None, ""), ("openai", "openai")):
        proxy = ProviderSettings(base_url="http://127.0.0.1:9/v1", priced_by=named)
        settings = Settings(providers={"openai": proxy})
        endpoint = resolve("openai:gpt-4o", settings, {"OPENAI_API_KEY": "sk"})
        assert endpoint.info.priced_by == expected
        cost = price_of(endpoint.info)(Usage(input_tokens=1_000_000))
        assert (cost is None) == (named is None)
    elsewhere = {**KEYS, "OPENAI_BASE_URL": "http://127.0.0.1:1/v1"}
    for name in ("openai:gpt-4o", "ollama:qwen3:8b"):
        assert price_of(resolve(name, Settings(), elsewhere).info)(Usage(1000)) is None


@pytest.mark.parametrize(
    ("model", "provider", "window"),
    [
        ("gpt-4", "openai", 8192),
        ("codestral-latest", "mistral", 256_000),
        ("openai/gpt-4o", "openrouter", 128_000),
        ("no-such-model", "openai", None),
        ("qwen3:8b", "", None),
    ],
)
def test_windows_from_the_tables(model: str, provider: str, window: int | None) -> None:
    assert window_of(ModelInfo(model, provider, priced_by=provider)) == window


def test_what_is_known_already_is_not_looked_up() -> None:
    assert window_of(ModelInfo("gpt-4", "openai", context_window=5, priced_by="openai")) == 5


@pytest.mark.parametrize(
    ("model", "provider"),
    [
        *((f"claude-{name}", "anthropic") for name in (
            "2", "3-haiku", "opus-4-0", "opus-4-1", "sonnet-4-5", "opus-4-5", "haiku-4-5",
            "sonnet-4-6", "opus-4-7", "sonnet-5-5", "opus-5-5", "haiku-5-5")),
        *((name, "openai") for name in (
            "gpt-4o", "gpt-4.1", "gpt-5", "gpt-5.4", "gpt-5.4-mini", "gpt-5.5", "o1-mini", "o3")),
        ("deepseek-flash", "deepseek"),
        ("devstral-2512", "mistral"),
    ],
)  # fmt: skip
def test_the_own_table_agrees_with_them(model: str, provider: str) -> None:
    """Overestimating a context window would lead to rejected requests."""
    known = in_tables(ModelInfo(model, provider, priced_by=provider))
    assert context_window(model) == known is not None
