"""``agentcli doctor``: tests what works on this machine."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
import textwrap
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from agentcli import __version__, config, extras
from agentcli.cli.help import App
from agentcli.errors import AgentCLIError, AuthenticationError
from agentcli.llm import registry
from agentcli.llm.catalog import DEFAULT_MODELS, MESSAGES, PROVIDERS
from agentcli.llm.keys import has_source
from agentcli.sandbox.doctor import probe
from agentcli.sandbox.offline import is_loopback
from agentcli.session.store import sessions_dir
from agentcli.settings import ProviderSettings, Settings
from agentcli.text import counted, escape
from agentcli.wiring import plugged
from agentcli.wiring.rule_names import check_rule_names

app = App()


@dataclass(frozen=True)
class Finding:
    """The outcome of one test. ``needed`` means that agentcli cannot work without it."""

    what: str
    works: bool
    detail: str
    needed: bool = False


@app.command()
def doctor() -> int:
    """Check what works on this machine; exit code 1 if something required is missing."""
    findings = [
        *(_python(), *asyncio.run(_sandbox()), _settings()),
        *(*_programs(), _sessions(), *_models(), *asyncio.run(_servers()), *_packages()),
    ]
    for finding in findings:
        mark = "ok" if finding.works else ("MISSING" if finding.needed else "missing")
        print(_wrapped(escape(f"{mark:<9}{finding.what:<32}{finding.detail}")))
    return int(any(finding.needed and not finding.works for finding in findings))


def _wrapped(line: str) -> str:
    """Wrap a line to the width of the terminal, if there is one; paths stay whole."""
    width = shutil.get_terminal_size((0, 0)).columns
    if not 0 < width < len(line):
        return line
    hanging = " " * (41 if width >= 80 else 11)
    return textwrap.fill(
        line, width, subsequent_indent=hanging, break_long_words=False, break_on_hyphens=False
    )


def _python() -> Finding:
    detail = f"{platform.python_version()} on {platform.platform(terse=True)}"
    return Finding("agentcli", True, f"{__version__}, Python {detail}", needed=True)


async def _sandbox() -> list[Finding]:
    """Each layer of the sandbox, and the resulting level, which is needed."""
    try:
        layers = await probe(near=os.getcwd())
    except AgentCLIError as error:
        return [Finding("sandbox", False, error.line(), needed=True)]
    return [
        Finding(
            "sandbox" if layer.name == "level" else f"  {layer.name}",
            layer.ok,
            layer.reason,
            needed=layer.name == "level",
        )
        for layer in layers
    ]


def _settings() -> Finding:
    """What commands can reach by this folder's settings, if these can be read at all."""
    try:
        settings = config.load(Path.cwd())
        check_rule_names(settings)
    except AgentCLIError as error:
        return Finding("settings", False, error.line(), needed=True)
    network = settings.commands_network
    reach = f"{network}: {', '.join(settings.domains)}" if network == "allow" else network
    return Finding("network of commands", True, f"{reach}{' (offline)' * settings.offline}")


def _programs() -> list[Finding]:
    programs = {
        "git": "shows what a run changed",
        "bwrap": "bubblewrap, for the sandbox level full",
        "rg": "ripgrep, for fast searches",
    }
    return [
        Finding(name, bool(path := _which(name)), path or purpose)
        for name, purpose in programs.items()
    ]


def _which(name: str) -> str:
    # A program in Python's own folder, such as a packaged ripgrep, counts without activation.
    beside = os.path.join(os.path.dirname(sys.executable), name)
    return shutil.which(name) or (beside if os.access(beside, os.X_OK) else "")


def _sessions() -> Finding:
    folder = sessions_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return Finding("sessions", False, f"{folder}: {error.strerror}", needed=True)
    return Finding("sessions", True, str(folder), needed=True)


def _models() -> list[Finding]:
    try:
        settings = config.load(Path.cwd())
    except AgentCLIError:  # reported by _settings
        settings = Settings()
    providers = settings.providers
    keys = [_key(name, providers.get(name, ProviderSettings())) for name in DEFAULT_MODELS]
    torch = importlib.util.find_spec("torch") is not None
    hint = "installed" if torch else f"{extras.install('local')} for models on this machine"
    return [_model(settings), *keys, Finding("torch", torch, hint)]


def _model(settings: Settings) -> Finding:
    """The model that is used here, as far as it is known without running or asking anything."""
    name = settings.model or registry.default_model()
    try:
        provider = registry.split_name(name)[0]
        chosen = settings.providers.get(provider, ProviderSettings())
        if provider in (registry.LOCAL, registry.EMBEDDED):
            registry.local_folder(name)
        elif not (chosen.api_key_command or chosen.api_key_keyring or provider == registry.REPLAY):
            registry.resolve(name, settings)
    except AgentCLIError as error:
        return Finding("model", False, f"{name}: {error.line()}")
    return Finding("model", True, name)


def _key(provider: str, chosen: ProviderSettings) -> Finding:
    """Where a key would come from; runs no command and opens no keyring."""
    variable = chosen.api_key_env or PROVIDERS[provider].api_key_env
    if os.environ.get(variable):
        return Finding(variable, True, "set")
    if has_source(variable, chosen, {}):
        return Finding(variable, True, "not set; the settings name a command or the keyring")
    return Finding(variable, False, "not set")


async def _servers() -> list[Finding]:
    """Whether the servers of the settings answer; all are asked at once."""
    try:
        settings = config.load(Path.cwd())
    except AgentCLIError:  # reported by _settings
        return []
    named = [name for name, chosen in settings.providers.items() if chosen.base_url]
    return await asyncio.gather(*(_server(name, settings) for name in named))


async def _server(name: str, settings: Settings) -> Finding:
    """Whether a server lists its models; runs no command and opens no keyring for a key."""
    from agentcli.llm.served import served  # slow, and only this command asks

    what, chosen = f"server of {name}", settings.providers[name]
    no_source = chosen.model_copy(update={"api_key_command": (), "api_key_keyring": False})
    if elsewhere := bool(chosen.api_key_command or chosen.api_key_keyring):
        no_source = no_source.model_copy(update={"api_key_env": ""})
    asked = settings.model_copy(update={"providers": {name: no_source}})
    try:
        endpoint = registry.resolve(f"{name}:NAME", asked)
        if endpoint.api == MESSAGES:
            return Finding(what, True, f"{endpoint.base_url}, not asked: it has another protocol")
        if settings.offline and not is_loopback(urlsplit(endpoint.base_url).hostname or ""):
            return Finding(what, True, f"{endpoint.base_url}, not asked: offline is set")
        models = await served(endpoint)
    except AuthenticationError as error:
        if elsewhere and error.status:
            return Finding(what, True, f"{chosen.base_url} answers; its key was not tried")
        return Finding(what, False, error.line())
    except AgentCLIError as error:
        return Finding(what, False, error.line())
    return Finding(what, True, f"{endpoint.base_url} answers: {counted(len(models), 'model')}")


def _packages() -> list[Finding]:
    """What installed packages add by entry points."""
    return [
        Finding(f"{one.kind} {one.name}", one.works, f"{one.package}: {one.what}")
        for one in plugged.added()
    ]
