"""Creates the client for a model's name, importing SDKs only when they are needed.

    openai:NAME  anthropic:NAME  PROVIDER:NAME   see ``catalog`` and ``[providers.NAME]``
    local:PATH  embedded                         models on this machine (extra ``local``)
    replay:FILE                                  the answers of a recorded session

A missing key raises AuthenticationError (exit code 3) before any request is made. A name that
cannot be resolved raises ConfigError (2).
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
from agentcli.config import nearest
from agentcli.errors import AgentCLIError, ConfigError
from agentcli.folders import data_folder, user_folder
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
from agentcli.llm.sdk_import import import_lazily
from agentcli.llm.text_tools import TextTools
from agentcli.messages import Usage
from agentcli.prompts import Prompts
from agentcli.settings import ProviderSettings, Settings

LOCAL, EMBEDDED, REPLAY = "local", "embedded", "replay"

# Libraries of the extra ``local``.
_EXTRA = ("torch", "tokenizers", "llguidance", "jinja2", "safetensors", "numpy")

_MODULES = {
    CHAT: "agentcli.llm.openai",
    RESPONSES: "agentcli.llm.openai_responses",
    MESSAGES: "agentcli.llm.anthropic",
}


def split_name(name: str) -> tuple[str, str]:
    """Split a name into provider and model; raises ConfigError for an invalid name."""
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
    """The model used without a choice: that of a provider whose key is set, else embedded."""
    environ = os.environ if environ is None else environ
    for provider, model in DEFAULT_MODELS.items():
        if environ.get(PROVIDERS[provider].api_key_env):
            return f"{provider}:{model}"
    return EMBEDDED


def resolve(name: str, settings: Settings, environ: Mapping[str, str] | None = None) -> Endpoint:
    """Find the endpoint of a provider's model, without connecting or importing anything.

    Raises:
        ConfigError: the name, the provider, its address or a header is invalid.
        AuthenticationError: the provider's key is not set.
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
    """Create the client for a model. ``read_recording`` reads the answers in a session's journal.

    Raises:
        ConfigError: the name cannot be resolved, or a library it needs is not installed.
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
        folder = local_folder(name)  # first, because the import fails without the extra
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
    """The path of a model on this machine; None for the embedded one.

    Raises:
        ConfigError: the name is not local, there is no such path or known model, or the extra is
            missing.
    """
    provider, model = split_name(name)
    if provider not in (LOCAL, EMBEDDED):
        raise ConfigError(
            f'"{name}" is not a model on this machine', hint="Name local:PATH, or embedded"
        )
    path = Path(model).expanduser() if provider == LOCAL else None
    need_extra()
    if path is not None and not path.exists():
        from agentcli.llm import local_models

        known = local_models.folders(os.environ, data_folder() / "models")
        if model not in known:
            hint = nearest(model, [*known]) if known else "Name a model's file or folder"
            raise ConfigError(f"{path}: no such model", hint=hint)
        path = known[model]
    return path


def lacking() -> list[str]:
    """The missing libraries of the extra ``local``, found without importing any."""
    return [library for library in _EXTRA if importlib.util.find_spec(library) is None]


def need_extra() -> None:
    """Raise ConfigError if the extra ``local`` is not installed."""
    if missing := lacking():
        raise ConfigError(
            f"models on this machine need the extra 'local' (missing: {', '.join(missing)})",
            hint=f"{extras.install('local')}, or set ANTHROPIC_API_KEY or OPENAI_API_KEY",
        )


def learnt_its_tools(name: str) -> bool:
    """Whether a model was trained with agentcli's own tools and needs no prompt about them."""
    provider, model = split_name(name)
    if provider != LOCAL:
        return provider == EMBEDDED
    try:
        config = json.loads((Path(model).expanduser() / "config.json").read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("model_type") == "agentcli"


def price_of(info: ModelInfo) -> Callable[[Usage], float | None]:
    """A function from the usage of one request to its cost in US dollars, None if unknown.

    For models with a price, this loads the price tables in 0.25 s; call it in a thread during the
    first request.
    """
    if info.provider in (LOCAL, EMBEDDED, REPLAY):
        return _nothing
    if not info.priced_by:
        return _unknown
    price: Callable[[Usage], float | None]
    price = importlib.import_module("agentcli.llm.pricing").price_of(info)
    return price


def window_of(info: ModelInfo) -> int | None:
    """A model's context window in tokens, or None if unknown.

    May load the price tables, like ``price_of``.
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
    """Start importing what ``connect`` will need, in a thread parallel to the start-up.

    ``connect`` will report any problem with the name.
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
    # Imports create no garbage. Collecting would cost 5 % of the time now, and traversing the
    # imported objects again at each later full collection.
    collecting = gc.isenabled()
    gc.disable()
    try:
        _load(module)
        importlib.import_module("anyio._backends._asyncio")  # or the first request would load it
        # The SDKs send the processor to their servers, for which Python would run `uname -p`.
        vars(platform.uname())["processor"] = platform.machine()
        gc.freeze()
    finally:
        if collecting:
            gc.enable()


def _load(module: str) -> ModuleType:
    """Import one of our modules and thereby its SDK.

    If aiohttp is installed, both SDKs import it for a client that is not used here, which takes a
    fifth of their import time. It is hidden from them.
    """
    import_lazily("openai", "anthropic")
    hidden = sys.modules.setdefault("aiohttp", None) is None  # type: ignore[arg-type]
    try:
        return importlib.import_module(module)
    finally:
        if hidden:
            sys.modules.pop("aiohttp", None)


def _provider(
    name: str, settings: Settings, environ: Mapping[str, str]
) -> tuple[Provider, ProviderSettings]:
    """A provider with the user's settings applied, and those settings."""
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
    priced_by = chosen.priced_by
    if priced_by is None:  # another server may have other prices
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
