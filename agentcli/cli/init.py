"""``agentcli init``: writes a settings file with a model that is available on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
from pathlib import Path
from typing import Annotated

import typer

from agentcli import config, extras
from agentcli.cli.help import App
from agentcli.errors import AgentCLIError, AuthenticationError, ConfigError
from agentcli.folders import user_folder
from agentcli.llm import registry
from agentcli.llm.catalog import DEFAULT_MODELS, PROVIDERS
from agentcli.settings import Settings
from agentcli.settings_reference import as_toml

app = App()

LOCAL_SERVERS = ("ollama", "lmstudio", "vllm")


@app.command()
def init(
    model: Annotated[
        str | None, typer.Option(help="Use this model instead of looking for one.", metavar="MODEL")
    ] = None,
) -> None:
    """Write a commented settings file, unless there is one, with a model that is available here."""
    file = user_folder() / "config.toml"
    if file.exists() and file.stat().st_size:  # "config unset" may have left it empty
        raise ConfigError(
            f"{file} already exists", hint="Change it with: agentcli config set KEY VALUE"
        )
    chosen = _known(model) if model else _look()
    lines = ["# Settings of agentcli. What is commented out shows the defaults.", ""]
    named = f"model = {json.dumps(chosen)}"
    lines += [named if line == "# model =" else line for line in as_toml()]
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with file.open("a", encoding="utf-8") as new:  # never overwrites anything
            new.write("\n".join(lines) + "\n")
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror or error}") from error
    print(f"wrote {file} with the model {chosen}")


def _known(model: str) -> str:
    """The model, if its provider is known; the key can be set later. Raises ConfigError."""
    if registry.split_name(model)[0] not in (registry.LOCAL, registry.EMBEDDED):
        with contextlib.suppress(AuthenticationError):
            registry.resolve(model, config.load(Path.cwd()))
    return model


def _look() -> str:
    """The first model available: by a key, from a server on this machine, or the embedded one."""
    for provider, name in DEFAULT_MODELS.items():
        variable = PROVIDERS[provider].api_key_env
        if os.environ.get(variable):
            print(f"found {variable}")
            return f"{provider}:{name}"
    for provider, names in zip(LOCAL_SERVERS, asyncio.run(_ask_servers()), strict=True):
        if names:
            print(f"found {provider} at {PROVIDERS[provider].base_url} with {', '.join(names[:5])}")
            return f"{provider}:{names[0]}"
    for provider, known in PROVIDERS.items():  # those without a default model
        if os.environ.get(known.api_key_env):
            print(f"found {known.api_key_env}: agentcli config set model {provider}:NAME")
    if importlib.util.find_spec("torch") is None:
        needed = extras.install("local")
        print(f"chose the embedded model, which needs: {needed}")
    else:
        print("chose the embedded model, which needs no key and no server")
    return registry.EMBEDDED


async def _ask_servers() -> list[list[str]]:
    return await asyncio.gather(*map(_served, LOCAL_SERVERS))


async def _served(provider: str) -> list[str]:
    """The models of a server on this machine; none if it does not answer within a second."""
    from agentcli.llm.served import served  # slow

    try:
        return await served(registry.resolve(f"{provider}:NAME", Settings()), time_s=1.0)
    except AgentCLIError:
        return []
