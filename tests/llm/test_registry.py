"""Making clients from model names, without a network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agentcli.errors import AuthenticationError, ConfigError
from agentcli.llm.catalog import PROVIDERS, context_window, reasons
from agentcli.llm.client import ChatRequest, ChatResponse, chat
from agentcli.llm.registry import connect, default_model, preload, resolve, split_name
from agentcli.messages import FinishReason, Usage, assistant, user
from agentcli.settings import Settings
from tests.server import Reply, ScriptedServer

KEYS = {
    provider.api_key_env: f"key-of-{name}"
    for name, provider in PROVIDERS.items()
    if provider.api_key_env
}


def settings(**values: Any) -> Settings:
    return Settings.model_validate(values)


@pytest.mark.parametrize("name", PROVIDERS)
def test_named_providers_are_ready(name: str) -> None:
    endpoint = resolve(f"{name}:some-model", settings(), KEYS)
    assert endpoint.base_url == PROVIDERS[name].base_url
    assert (endpoint.info.id, endpoint.info.provider) == ("some-model", name)
    local = name in ("ollama", "lmstudio", "vllm")
    assert endpoint.api_key == ("" if local else f"key-of-{name}")
    assert f"key-of-{name}" not in repr(endpoint)
    assert endpoint.base_url.startswith("http://127.0.0.1" if local else "https://")


def test_model_names_may_hold_colons() -> None:
    assert resolve("ollama:qwen3:8b", settings(), {}).info.id == "qwen3:8b"
    assert split_name("openrouter:a/b:free") == ("openrouter", "a/b:free")


def test_configured_providers() -> None:
    mine = {
        "base_url": "http://10.0.0.1:8000/v1/",
        "api_key_env": "MY_KEY",
        "headers": {"x": "1"},
        "streaming": False,
        "context_window": 32_000,
    }
    chosen = settings(providers={"mine": mine, "openai": {"api": "chat"}}, request_timeout_s=9.0)
    endpoint = resolve("mine:m", chosen, {"MY_KEY": "k"})
    assert (endpoint.base_url, endpoint.api_key) == ("http://10.0.0.1:8000/v1", "k")
    assert (endpoint.headers, endpoint.streaming, endpoint.timeout_s) == ({"x": "1"}, False, 9.0)
    assert endpoint.info.context_window == 32_000
    assert resolve("openai:gpt-6-sol", chosen, KEYS).api == "chat"


def test_base_urls_from_the_environment() -> None:
    environ = {**KEYS, "OPENAI_BASE_URL": "http://127.0.0.1:5/v1"}
    assert resolve("openai:gpt-6-sol", settings(), environ).base_url == "http://127.0.0.1:5/v1"
    chosen = settings(providers={"openai": {"base_url": "http://127.0.0.1:6/v1"}})
    assert resolve("openai:x", chosen, environ).base_url == "http://127.0.0.1:6/v1"


@pytest.mark.parametrize(
    ("model", "api"),
    [("gpt-6.2-sol", "responses"), ("o3", "responses"), ("gpt-4.1", "chat"), ("gpt-4o", "chat")],
)
def test_own_reasoning_models_speak_responses(model: str, api: str) -> None:
    assert resolve(f"openai:{model}", settings(), KEYS).api == api
    elsewhere = {**KEYS, "OPENAI_BASE_URL": "http://127.0.0.1:5/v1"}
    assert resolve(f"openai:{model}", settings(), elsewhere).api == "chat"
    assert resolve(f"openrouter:openai/{model}", settings(), KEYS).api == "chat"


@pytest.mark.parametrize("name", ["", "gpt-5", ":x", "openai:", " : ", "openai: "])
def test_malformed_names(name: str) -> None:
    with pytest.raises(ConfigError, match="not the name of a model"):
        resolve(name, settings(), KEYS)


def test_unknown_provider() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve("opnai:x", settings(), KEYS)
    assert 'unknown provider "opnai"' in caught.value.line()
    assert 'Did you mean "openai"?' in caught.value.line()
    with pytest.raises(ConfigError) as caught:
        resolve("nobody:x", settings(), KEYS)
    assert "openai" in caught.value.line() and "[providers.nobody]" in caught.value.line()


def test_invalid_addresses() -> None:
    with pytest.raises(ConfigError, match="base_url is missing"):
        resolve("mine:x", settings(providers={"mine": {}}), {})
    with pytest.raises(ConfigError, match="OPENAI_BASE_URL is no http address"):
        resolve("openai:x", settings(), {**KEYS, "OPENAI_BASE_URL": "localhost:8000"})


@pytest.mark.parametrize("url", ["http://[::1", "http://h:99999/v1", "http://", "ftp://h/v1", "x"])
def test_base_urls_that_are_broken(url: str) -> None:
    with pytest.raises(ConfigError, match="OPENAI_BASE_URL is no http address"):
        resolve("openai:x", settings(), {**KEYS, "OPENAI_BASE_URL": url})


@pytest.mark.parametrize("key", ["k\u00e9y", "two\nlines", "bell\x07"])
def test_keys_that_cannot_be_sent(key: str) -> None:
    with pytest.raises(AuthenticationError, match="no key has") as caught:
        resolve("openai:x", settings(), {"OPENAI_API_KEY": key})
    assert key not in caught.value.line()


def test_headers_that_cannot_be_sent() -> None:
    chosen = settings(providers={"ollama": {"headers": {"x": "a\nb"}}})
    with pytest.raises(ConfigError, match="not a valid header"):
        resolve("ollama:x", chosen, {})


@pytest.mark.parametrize("value", [None, "", "  "])
def test_no_key(value: str | None) -> None:
    environ = {} if value is None else {"OPENAI_API_KEY": value}
    with pytest.raises(AuthenticationError) as caught:
        connect("openai:gpt-5", settings(), environ)
    assert caught.value.exit_code == 3 and "OPENAI_API_KEY is not set" in caught.value.line()


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        ({"ANTHROPIC_API_KEY", "OPENAI_API_KEY"}, "anthropic:"),
        ({"ANTHROPIC_API_KEY"}, "anthropic:"),
        ({"OPENAI_API_KEY"}, "openai:"),
        ({"OPENROUTER_API_KEY"}, "embedded"),
        (set(), "embedded"),
    ],
)
def test_default_model(keys: set[str], name: str) -> None:
    found = default_model(dict.fromkeys(keys, "k"))
    assert found.startswith(name)
    split_name(found)


def test_embedded_without_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "agentcli.llm.local", None)  # makes its import fail
    with pytest.raises(ConfigError, match="the extra 'local'") as caught:
        connect("embedded", settings(), {})
    assert caught.value.exit_code == 2


def test_local_path_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such model"):
        connect(f"local:{tmp_path / 'none'}", settings(), {})


async def test_replay_of_a_recording(tmp_path: Path) -> None:
    answer = ChatResponse(assistant("hi"), FinishReason.STOP, Usage(1, 0, 0, 1, 0))
    recording = tmp_path / "a" / "b.jsonl"
    recording.parent.mkdir()
    recording.touch()
    client = connect(f"replay:{recording}", settings(), {}, read_recording=lambda path: [answer])
    assert await chat(client, ChatRequest((user("x"),))) == answer
    with pytest.raises(ConfigError):
        connect("replay:x", settings(), {})


async def test_a_client_that_was_preloaded_answers() -> None:
    async with ScriptedServer([Reply(text="hi")]) as server:
        environ = {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": server.url}
        thread = preload("openai:gpt-6-sol", settings(), environ)
        assert thread is not None
        thread.join()
        client = connect("openai:gpt-6-sol", settings(), environ)
        assert (await chat(client, ChatRequest((user("x"),)))).message.text == "hi"
        await client.aclose()
        assert server.requests[0].json["model"] == "gpt-6-sol"


def test_preload_leaves_faults_to_connect() -> None:
    for name in ("nonsense", "nobody:x", "openai:x", "embedded", "replay:x"):
        assert preload(name, settings(), {}) is None


def test_no_sdk_is_loaded_before_it_is_needed() -> None:
    program = (
        "import sys\n"
        "from agentcli.config import Settings\n"
        "from agentcli.llm.registry import resolve\n"
        "resolve('openai:x', Settings(), {'OPENAI_API_KEY': 'k'})\n"
        "print(sorted({'openai', 'anthropic', 'httpx2', 'torch'} & set(sys.modules)))"
    )
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "[]"


def test_catalog() -> None:
    assert context_window("gpt-5.4-mini") == 400_000
    assert context_window("openai/gpt-4o-mini") == 128_000
    assert context_window("claude-sonnet-5-5") == 1_000_000
    assert context_window("some-model") is None
    assert reasons("gpt-6-astra") and reasons("o4-mini") and not reasons("gpt-5-chat-latest")
