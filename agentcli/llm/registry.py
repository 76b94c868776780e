"""From a model's name to a client; the SDKs are imported here and only when they are needed.

    openai:NAME  anthropic:NAME  PROVIDER:NAME   see ``catalog`` and ``[providers.NAME]``
    local:PATH  embedded                         models on this machine (extra ``local``)
    replay:FILE                                  the answers of a recorded session

A missing key is reported before any request, yet as what the provider would say: an
AuthenticationError with exit code 3. A name that cannot be resolved is a ConfigError (2).
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import json
import os
import platform
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from agentcli import extras, plugins
from agentcli.config import nearest, user_folder
from agentcli.errors import AgentCLIError, ConfigError
from agentcli.llm.catalog import (
    CHAT,
    DEFAULT_MODELS,
    MESSAGES,
    OPENAI_URL,
    PROVIDERS,
    RESPONSES,
    Endpoint,
    Provider,
    context_window,
    reasons,
)
from agentcli.llm.client import ChatResponse, LLMClient, ModelInfo
from agentcli.llm.keys import find_key, has_source
from agentcli.llm.replay import Replay
from agentcli.llm.sdk_import import spare
from agentcli.llm.text_tools import TextTools
from agentcli.messages import Usage
from agentcli.prompts import Prompts
from agentcli.settings import ProviderSettings, Settings

LOCAL, EMBEDDED, REPLAY = "local", "embedded", "replay"

# What the extra ``local`` brings, and what is used of it first.
_EXTRA = ("torch", "tokenizers", "llguidance", "jinja2", "safetensors", "numpy")

_MODULES = {
    CHAT: "agentcli.llm.openai",
    RESPONSES: "agentcli.llm.openai_responses",
    MESSAGES: "agentcli.llm.anthropic",
}


def split_name(name: str) -> tuple[str, str]:
    """(provider, model) of a name; raises ConfigError for anything else."""
    if name == EMBEDDED:
        return EMBEDDED, ""
    provider, colon, model = name.partition(":")
    if not colon or not provider.strip() or not model.strip():
        raise ConfigError(
            f'"{name}" is not the name of a model',
            hint="Write PROVIDER:NAME, for instance openai:gpt-6.2-sol or ollama:qwen3:8b",
        )
    return provider.strip(), model.strip()


def default_model(environ: Mapping[str, str] | None = None) -> str:
    """What is used when nothing was chosen: a provider whose key is there, else embedded."""
    environ = os.environ if environ is None else environ
    for provider, model in DEFAULT_MODELS.items():
        if environ.get(PROVIDERS[provider].api_key_env):
            return f"{provider}:{model}"
    return EMBEDDED


def resolve(name: str, settings: Settings, environ: Mapping[str, str] | None = None) -> Endpoint:
    """Where a provider's model is, without asking it and without importing anything.

    Raises:
        ConfigError: malformed name, unknown provider or address.
        AuthenticationError: its key is not set.
    """
    environ = os.environ if environ is None else environ
    provider, model = split_name(name)
    known, chosen = _provider(provider, settings, environ)
    api_key = find_key(provider, known.api_key_env, chosen, environ)
    for header, value in chosen.headers.items():
        if not (f"{header}{value}".isascii() and f"{header}{value}".isprintable() and header):
            raise ConfigError(f"[providers.{provider}] headers: {header!r} is not a valid header")
    window = chosen.context_window or context_window(model)
    return Endpoint(
        info=ModelInfo(
            model,
            provider,
            context_window=window,
            images=known.images if chosen.images is None else chosen.images,
            priced_by=known.priced_by,
        ),
        base_url=known.base_url,
        api=chosen.api or _api(known, model),
        api_key=api_key,
        key_name=known.api_key_env,
        headers=chosen.headers,
        streaming=chosen.streaming,
        timeout_s=settings.request_timeout_s,
        reasoning_field=known.reasoning_field,
    )


def connect(
    name: str,
    settings: Settings | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    read_recording: Callable[[Path], Sequence[ChatResponse]] | None = None,
) -> LLMClient:
    """The client of a model. ``read_recording`` reads the answers of a session's journal.

    Raises:
        ConfigError: the name cannot be resolved, or what it needs is not installed.
        AuthenticationError: the key is not set.
    """
    settings = settings or Settings()
    provider, model = split_name(name)
    if provider == REPLAY:
        if read_recording is None:
            raise ConfigError("recordings cannot be played here")
        if not Path(model).is_file():
            raise ConfigError(f"{model}: no such file", hint="Name a session's events.jsonl")
        answers = read_recording(Path(model))
        return Replay(ModelInfo(model, REPLAY), answers, source=model)
    if provider in (LOCAL, EMBEDDED):
        folder = local_folder(name)  # before the import, which fails where the extra is missing
        local: LLMClient = importlib.import_module("agentcli.llm.local").connect(folder, settings)
        return local
    is_known = provider in PROVIDERS or provider in settings.providers
    plugin = None if is_known else plugins.load(plugins.PROVIDERS, provider)
    if plugin is not None:
        return _of_plugin(provider, model, plugin, settings)
    endpoint = resolve(name, settings, environ)
    client: LLMClient = _load(_MODULES[endpoint.api]).connect(endpoint)
    chosen = settings.providers.get(provider)
    if chosen is None or chosen.tools == "native":
        return client
    prompts = Prompts.standard(user=user_folder() / "prompts")
    return TextTools(client, chosen.tools, prompts)


def _of_plugin(provider: str, model: str, connect: Any, settings: Settings) -> LLMClient:
    try:
        client: LLMClient = connect(model, settings)
        known = isinstance(client.info, ModelInfo)
    except AgentCLIError:
        raise
    except Exception as error:
        raise ConfigError(plugins.failure(plugins.PROVIDERS, provider, error)) from error
    if not known:
        raise ConfigError(f"the provider {provider} of an installed package gives no ModelInfo")
    return client


def local_folder(name: str) -> Path | None:
    """The folder of a model on this machine; None for the embedded one.

    Raises:
        ConfigError: it is no such model, it is not there, or the extra is not installed.
    """
    provider, model = split_name(name)
    if provider not in (LOCAL, EMBEDDED):
        raise ConfigError(
            f'"{name}" is not a model on this machine', hint="Name local:PATH, or embedded"
        )
    path = Path(model).expanduser() if provider == LOCAL else None
    if path is not None and not path.exists():
        raise ConfigError(f"{path}: no such model", hint="Name a model's file or folder")
    need_extra()
    return path


def lacking() -> list[str]:
    """What is missing of the extra ``local``, without importing any of it."""
    return [library for library in _EXTRA if importlib.util.find_spec(library) is None]


def need_extra() -> None:
    """Raises ConfigError where the extra ``local`` is not installed."""
    if missing := lacking():
        raise ConfigError(
            f"models on this machine need the extra 'local' (missing: {', '.join(missing)})",
            hint=f"{extras.install('local')}, or set ANTHROPIC_API_KEY or OPENAI_API_KEY",
        )


def learnt_its_tools(name: str) -> bool:
    """Whether a model was trained with agentcli's own tools, and reads no prompt about them."""
    provider, model = split_name(name)
    if provider != LOCAL:
        return provider == EMBEDDED
    try:
        config = json.loads((Path(model).expanduser() / "config.json").read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("model_type") == "agentcli"


def price_of(info: ModelInfo) -> Callable[[Usage], float | None]:
    """A function from the usage of one call to US dollars, or None where that is not known.

    Loads the price tables (a quarter of a second) for models that have a price: call it in a
    thread, beside the first request.
    """
    if info.provider in (LOCAL, EMBEDDED, REPLAY):
        return _nothing
    if not info.priced_by:
        return _unknown
    price: Callable[[Usage], float | None]
    price = importlib.import_module("agentcli.llm.pricing").price_of(info)
    return price


def window_of(info: ModelInfo) -> int | None:
    """Tokens of a model's context window, also where its name alone does not tell; else None.

    May load the price tables, as ``price_of``.
    """
    if info.context_window is not None or not info.priced_by:
        return info.context_window
    found: int | None = importlib.import_module("agentcli.llm.pricing").window_of(info)
    return found


def _nothing(usage: Usage) -> float:
    return 0.0


def _unknown(usage: Usage) -> None:
    return None


def preload(
    name: str, settings: Settings, environ: Mapping[str, str] | None = None
) -> threading.Thread | None:
    """Begin to import what ``connect`` will need, in a thread beside the rest of the start-up.

    Whatever is wrong with the name is left for ``connect`` to say.
    """
    try:
        provider, model = split_name(name)
        if provider in (LOCAL, EMBEDDED, REPLAY):
            return None
        environ = os.environ if environ is None else environ
        known, chosen = _provider(provider, settings, environ)
        if known.api_key_env and not has_source(known.api_key_env, chosen, environ):
            return None
        module = _MODULES[chosen.api or _api(known, model)]
    except ConfigError:
        return None
    thread = threading.Thread(target=_import, args=(module,), name="preload", daemon=True)
    thread.start()
    return thread


def _import(module: str) -> None:
    # Nothing that an import makes is garbage: looking for it would cost a twentieth of the time
    # now, and again at each full collection later.
    collecting = gc.isenabled()
    gc.disable()
    try:
        _load(module)
        importlib.import_module("anyio._backends._asyncio")  # else loaded by the first request
        # The SDKs tell their servers the processor, for which Python runs `uname -p`.
        vars(platform.uname())["processor"] = platform.machine()
        gc.freeze()
    finally:
        if collecting:
            gc.enable()


def _load(module: str) -> ModuleType:
    """Import one of our modules, and its SDK with it.

    Both SDKs import aiohttp where it happens to be installed, for a client of their own that is not
    used here: a fifth of their time. It is hidden from them.
    """
    spare("openai", "anthropic")
    hidden = sys.modules.setdefault("aiohttp", None) is None  # type: ignore[arg-type]
    try:
        return importlib.import_module(module)
    finally:
        if hidden:
            sys.modules.pop("aiohttp", None)


def _provider(
    name: str, settings: Settings, environ: Mapping[str, str]
) -> tuple[Provider, ProviderSettings]:
    """What is known of a provider, with what the user has set."""
    chosen = settings.providers.get(name)
    known = PROVIDERS.get(name)
    if known is None and chosen is None:
        others = plugins.names(plugins.PROVIDERS)
        names = sorted({*PROVIDERS, *settings.providers, *others, LOCAL, EMBEDDED, REPLAY})
        near = nearest(name, names)
        stop = "" if near.endswith("?") else "."
        raise ConfigError(
            f'unknown provider "{name}"',
            hint=f"{near}{stop} Others need [providers.{name}] with a base_url",
        )
    chosen = chosen or ProviderSettings()
    known = known or Provider("")
    from_env = environ.get(known.base_url_env, "") if known.base_url_env else ""
    base_url = chosen.base_url or from_env or known.base_url
    if not _is_address(base_url):
        where = f"[providers.{name}] base_url" if not base_url else known.base_url_env
        raise ConfigError(
            f"{where} is {'missing' if not base_url else 'no http address'}",
            hint="Set it to an address such as http://127.0.0.1:8000/v1",
        )
    key_name = known.api_key_env if chosen.api_key_env is None else chosen.api_key_env
    base_url = base_url.rstrip("/")
    priced_by = known.priced_by if base_url == known.base_url else ""
    return replace(known, base_url=base_url, api_key_env=key_name, priced_by=priced_by), chosen


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _api(known: Provider, model: str) -> str:
    own = known.base_url.startswith(OPENAI_URL)
    return RESPONSES if own and known.api == CHAT and reasons(model) else known.api
