"""Settings: defaults < the user's TOML < its profile < the project's TOML < environment < flags.

Every value remembers which layer set it. An unknown key is an error, never a guess. A project's
file comes with code that may be anyone's: until the folder is trusted it sets harmless keys only,
and the rest of it is named in ``notices``.
"""

from __future__ import annotations

import difflib
import os
import shlex
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import platformdirs
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from agentcli.errors import ConfigError
from agentcli.text import one_line

PROJECT_FILE = Path(".agentcli") / "config.toml"
PROJECT_KEYS = ("checks", "max_steps", "timeout_s", "permissions.ask", "permissions.deny")
"""What a project's file may set without trust: nothing that spends, sends or unlocks."""

_PREFIX = "AGENTCLI_"
# Where files live and which profile holds: not settings themselves.
_NO_SETTINGS = {"CONFIG_DIR", "DATA_DIR", "STATE_DIR", "CACHE_DIR", "PROFILE"}


def _command(value: object) -> object:
    return tuple(shlex.split(value)) if isinstance(value, str) else value


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


Command = Annotated[tuple[str, ...], BeforeValidator(_as_tuple), BeforeValidator(_command)]
"""A command as a list of words, or as one line that is split as a shell would."""
Positive = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class ProviderSettings(_Section):
    """A server that answers models named ``NAME:model``; each field overrides a known one."""

    base_url: str | None = Field(default=None, pattern=r"^https?://[^/\s]")
    """Where its API is, up to and with ``/v1``."""
    api_key_env: str | None = None
    """The variable that holds the key; empty for servers without keys."""
    api_key_command: Command = ()
    """A command that prints the key, used where the variable is not set: ``pass show openai``."""
    api_key_keyring: bool = False
    """Whether the system's keyring holds the key; see ``agentcli config key``."""
    api: Literal["chat", "responses", "messages"] | None = None
    """The wire: OpenAI Chat Completions, OpenAI Responses or Anthropic Messages."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Sent with every request."""
    streaming: bool = True
    """Off for servers that cannot stream tool calls."""
    tools: Literal["native", "react", "json", "xml", "function"] = "native"
    """How its models call tools; all but native are text, for models that cannot do otherwise."""
    context_window: Positive | None = None
    """Tokens that its models take, where it cannot be known otherwise."""
    images: bool | None = None
    """Whether its models can be shown images."""


class McpServerSettings(_Section):
    """A server of tools: a program (``command``, ``args``, ``env``) or an address (``url``).

    ``${NAME}`` and ``${NAME:-default}`` in its texts are filled from the environment.
    """

    command: Command = ()
    args: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = ()
    env: dict[str, str] = Field(default_factory=dict)
    """Variables that it gets beside HOME, PATH and the like; it sees no others."""
    url: str | None = None
    """Of a streamable HTTP endpoint."""
    headers: dict[str, str] = Field(default_factory=dict)
    tools: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = ()
    """Only these of its tools; without it: all."""
    enabled: bool = True
    startup_timeout_s: Seconds = 20.0
    timeout_s: Seconds = 60.0
    """Seconds for one call."""

    @model_validator(mode="after")
    def _one_way_to_reach_it(self) -> Self:
        if bool(self.command) == bool(self.url):
            raise ValueError("needs either command or url")
        return self


class McpSettings(_Section):
    """Servers by name, as in ``[mcp.servers.NAME]`` (modelcontextprotocol.io)."""

    servers: dict[str, McpServerSettings] = Field(default_factory=dict)


class HookSettings(_Section):
    """A command of the user's own at a moment of a session; see ``agentcli.user_hooks``."""

    event: Literal["session_start", "before_tool", "after_tool", "stop"]
    command: Command
    match: str = "*"
    """Names of tools, as a shell pattern."""
    timeout_s: Seconds = 60.0

    @model_validator(mode="after")
    def _has_a_command(self) -> Self:
        if not self.command:
            raise ValueError("command is empty")
        return self


class CheckSettings(_Section):
    """Commands of run_tests, run_build and run_lint in place of those that are detected."""

    test: Command = ()
    build: Command = ()
    lint: Command = ()


Texts = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]


class PermissionSettings(_Section):
    """Rules such as ``shell(git status:*)``; those of all layers hold together.

    Deny wins over ask, and ask over allow.
    """

    allow: Texts = ()
    ask: Texts = ()
    deny: Texts = ()


class LocalSettings(_Section):
    """How models on this machine are loaded; None leaves the choice to what is fast here."""

    device: str | None = None
    """cpu, cuda or cuda:1."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    quantize: Literal["int8", "int4"] | None = None
    """Matrices in 8 or 4 bits."""
    context: Positive | None = None
    """Tokens of the context window, where it is not to be the model's own."""
    threads: Positive | None = None
    """Threads that compute; measured if left out."""


class LimitSettings(_Section):
    """What tools may use. Times in seconds, memory and disk in MiB, output in characters."""

    command_time_s: Seconds = 120.0
    check_time_s: Seconds = 600.0
    memory_mib: Positive = 2048
    """Of each process, and of all that one command starts."""
    tasks: Positive = 1024
    disk_mib: Positive = 2048
    """Growth of the disk by one command; no single file can be larger either."""
    open_files: Positive = 4096
    output_mib: Positive = 1
    """Kept of each stream, its start and its end."""
    output_chars: Positive = 30_000
    """What the model is shown of it."""


class ContextSettings(_Section):
    """How long conversations are kept within the model's context window. In tokens of a request."""

    soft_tokens: Positive | None = None
    """From here on a conversation is compacted; None: ``compact_at`` of the hard limit."""
    hard_tokens: Positive | None = None
    """More is never sent; None: the model's window less the reserve."""
    reserve_tokens: Positive | None = None
    """Kept for the answer; None: the longest answer, and at most a quarter of the window."""
    compact_at: Annotated[float, Field(gt=0, le=1)] = 0.8
    compact_to: Annotated[float, Field(gt=0, lt=1)] = 0.4
    """Shares of the hard limit."""
    processors: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] | None = None
    """What makes a conversation shorter, in this order, until it is short enough."""
    memory: Literal["none", "window", "summary", "search"] = "none"
    """What the model is reminded of when it is no longer shown it."""


class Settings(_Section):
    """All that can be configured; the docstrings of the fields are its reference."""

    model: str | None = None
    """``PROVIDER:NAME``, ``local:PATH`` or ``embedded``."""
    fallback: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = ()
    """Models to try in turn when one fails for good."""
    providers: dict[str, ProviderSettings] = Field(default_factory=dict)
    mode: Literal["ask", "edits", "auto", "plan"] | None = None
    """Who is asked before tools act; None: ask in chat, auto in run."""
    max_steps: Positive = 100
    timeout_s: Seconds | None = None
    """Seconds for a whole run."""
    step_timeout_s: Seconds | None = None
    """Seconds for one step: the model's answer with its retries, and the tools."""
    request_timeout_s: Seconds = 600.0
    """Seconds without a piece of a model's answer before it is given up."""
    retries: Annotated[int, Field(ge=0)] = 3
    """Further attempts after a provider's failure."""
    budget_tokens: Positive | None = None
    max_cost: Annotated[float, Field(gt=0)] | None = None
    """US dollars."""
    max_output_tokens: Positive | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    sandbox: Literal["auto", "full", "reduced", "none"] = "auto"
    """The level that must hold; auto takes the best that works."""
    network: Literal["none", "loopback", "allow", "full"] = "none"
    """What commands reach: nothing, a loopback of their own, ``domains``, or what you reach."""
    domains: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = ()
    """Hosts for the network ``allow``: example.com, *.example.com, 10.0.0.0/8, localhost:8000."""
    offline: bool = False
    """agentcli reaches this machine only, and so do commands."""
    output: Literal["text", "json", "stream-json"] = "text"
    env: Annotated[str, Field(pattern=r"^(host|docker:\S+|ssh:\S+)$")] = "host"
    """Where tools act: ``host``, ``docker:IMAGE`` or ``ssh:HOST[:FOLDER]``."""
    ssh_config: str | None = None
    """A file for ssh in place of its own configuration."""
    permissions: PermissionSettings = Field(default_factory=PermissionSettings)
    hooks: Annotated[tuple[HookSettings, ...], BeforeValidator(_as_tuple)] = ()
    """The user's commands, then the project's where it is trusted."""
    mcp: McpSettings = Field(default_factory=McpSettings)
    plan_gate: bool = False
    """No file is changed before the model has made a plan of 3 to 6 steps."""
    critic: str | None = None
    """A model that judges each final answer before it counts."""
    tool_rates: dict[str, Annotated[int, Field(gt=0)]] = Field(default_factory=dict)
    """Most calls a second of a tool, by its name; others wait for their turn."""
    tool_cache: bool = False
    """The same reading of a file that has not changed is answered as before."""
    checks: CheckSettings = Field(default_factory=CheckSettings)
    local: LocalSettings = Field(default_factory=LocalSettings)
    limits: LimitSettings = Field(default_factory=LimitSettings)
    context: ContextSettings = Field(default_factory=ContextSettings)

    _sources: dict[str, str] = PrivateAttr(default_factory=dict)
    _notices: tuple[str, ...] = PrivateAttr(default=())

    @property
    def notices(self) -> tuple[str, ...]:
        """Lines to show: keys of an untrusted project file that were left out."""
        return self._notices

    @property
    def commands_network(self) -> Literal["none", "loopback", "allow", "full"]:
        """``network``, unless ``offline`` forbids it."""
        beyond = self.network in ("allow", "full")
        return "none" if self.offline and beyond else self.network

    def source(self, key: str) -> str:
        """Which layer set a key such as ``checks.test``."""
        return self._sources.get(key, "default")

    def rows(self) -> Iterator[tuple[str, Any, str]]:
        """(key, value, source) of every value, in order."""
        for key, value in _leaves(self.model_dump()):
            yield key, value, self.source(key)


_NAMED_SECTIONS = {"providers": ProviderSettings, "servers": McpServerSettings}
"""Keys whose values are sections under names of the user's own."""


_ADDED_UP = ("hooks", "permissions.allow", "permissions.ask", "permissions.deny")
"""Lists to which each layer adds."""


def load(
    workspace: Path | None = None,
    *,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    user_file: Path | None = None,
    trusted: bool = False,
    profile: str | None = None,
) -> Settings:
    """Read all layers. ``flags`` maps keys to values; None values are flags that were not given.

    ``profile`` names a ``[profiles.NAME]`` of the user's file; without, AGENTCLI_PROFILE does.

    Raises:
        ConfigError: a file that cannot be read, an unknown key or a value of the wrong type.
    """
    environ = os.environ if environ is None else environ
    user_file = user_file or user_folder(environ) / "config.toml"
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    notices: list[str] = []

    def add(layer: Mapping[str, Any], name: str) -> None:
        _check_keys(layer, Settings, name)
        try:
            leaves = list(_leaves(layer))
        except RecursionError as error:
            raise ConfigError(f"{name}: {_short(error)}") from error
        for key, value in leaves:
            for other in _replaced(values, key):
                sources.pop(other, None)
            if key in _ADDED_UP and isinstance(before := _get(values, key), list):
                # A layer above must not silence what one below forbids.
                value = before + value if isinstance(value, list) else value
                name = f"{sources.get(key)}, {name}"
            _set(values, key, value)
            sources[key] = name

    own = _read(user_file)
    profiles = _profiles(own, user_file)
    add(own, str(user_file))
    if profile := profile or environ.get(f"{_PREFIX}PROFILE"):
        if profile not in profiles:
            known = ", ".join(profiles) or "none"
            raise ConfigError(
                f'{user_file}: there is no profile "{profile}"', hint=f"There are: {known}"
            )
        add(profiles[profile], f"{user_file} [profiles.{profile}]")
    if workspace is not None:
        file = workspace / PROJECT_FILE
        layer = _read(file)
        _check_keys(layer, Settings, str(file))
        kept = layer if trusted else _harmless(layer)
        if refused := [key for key in _tops(layer) if key not in _tops(kept)]:
            notices.append(
                f"{file}: {', '.join(refused)} left out: a project may only set "
                f"{', '.join(PROJECT_KEYS)} until it is trusted (agentcli trust)"
            )
        add(kept, str(file))
    for variable, key, value in _from_environment(environ):
        add(_nested(key, value), variable)
    for key, value in (flags or {}).items():
        if value is not None:
            add(_nested(key, value), f"--{key.replace('_', '-').replace('.', '-')}")
    settings = _validate(values, sources)
    settings._sources = sources
    settings._notices = tuple(notices)
    return settings


def _profiles(layer: dict[str, Any], file: Path) -> dict[str, Mapping[str, Any]]:
    """Take the profiles out of the user's file; each is a layer of its own."""
    found = layer.pop("profiles", {})
    if not isinstance(found, dict) or not all(isinstance(one, dict) for one in found.values()):
        raise ConfigError(f"{file}: profiles should be sections, such as [profiles.work]")
    for name, one in found.items():
        _check_keys(one, Settings, f"{file} [profiles.{name}]")
    return found


def _tops(layer: Mapping[str, Any]) -> list[str]:
    """Its keys as trust speaks of them: by the top one, but for permissions."""
    found: list[str] = []
    for key, value in layer.items():
        inner = value if key == "permissions" and isinstance(value, Mapping) else None
        found += [key] if inner is None else [f"{key}.{name}" for name in inner]
    return found


def _harmless(layer: Mapping[str, Any]) -> dict[str, Any]:
    """What of a project's file holds without trust."""
    kept: dict[str, Any] = {key: value for key, value in layer.items() if key in PROJECT_KEYS}
    rules = layer.get("permissions")
    if isinstance(rules, Mapping):
        kept["permissions"] = {
            key: value for key, value in rules.items() if f"permissions.{key}" in PROJECT_KEYS
        }
    return kept


def cache_folder(environ: Mapping[str, str] | None = None) -> Path:
    """Where what can be made again lives; ``AGENTCLI_CACHE_DIR`` overrides the platform's."""
    root = (os.environ if environ is None else environ).get(f"{_PREFIX}CACHE_DIR")
    return Path(root) if root else platformdirs.user_cache_path("agentcli", appauthor=False)


def user_folder(environ: Mapping[str, str] | None = None) -> Path:
    """Where the user's configuration lives; ``AGENTCLI_CONFIG_DIR`` overrides the platform's."""
    root = (os.environ if environ is None else environ).get(f"{_PREFIX}CONFIG_DIR")
    return Path(root) if root else platformdirs.user_config_path("agentcli", appauthor=False)


def nearest(key: str, known: Sequence[str]) -> str:
    """A hint for a wrong key."""
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f'Did you mean "{close[0]}"?' if close else f"There are: {', '.join(known)}"


def _read(file: Path) -> dict[str, Any]:
    try:
        if file.exists() and not file.is_file() and not file.is_dir():
            raise ConfigError(f"{file}: not a regular file")
        return tomllib.loads(file.read_bytes().decode("utf-8"))
    except FileNotFoundError:
        return {}
    except NotADirectoryError:
        return {}
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8", hint="Save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: {str(error)[:1].lower()}{str(error)[1:]}") from error
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, deep nesting
        raise ConfigError(f"{file}: {_short(error)}") from error


def _check_keys(
    layer: Mapping[str, Any], section: type[BaseModel], name: str, at: str = ""
) -> None:
    for key, value in layer.items():
        field = section.model_fields.get(key)
        if field is None:
            raise ConfigError(
                f'{name}: unknown key "{at}{key}"', hint=nearest(key, list(section.model_fields))
            )
        if not isinstance(value, Mapping):
            continue
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            _check_keys(value, field.annotation, name, f"{at}{key}.")
        elif key in _NAMED_SECTIONS:
            for entry, inner in value.items():
                if isinstance(inner, Mapping):
                    _check_keys(inner, _NAMED_SECTIONS[key], name, f"{at}{key}.{entry}.")


def _from_environment(environ: Mapping[str, str]) -> Iterator[tuple[str, str, Any]]:
    """(variable, key, value); ``__`` stands for the dot, as in AGENTCLI_CHECKS__TEST."""
    for variable, text in sorted(environ.items()):
        name = variable.removeprefix(_PREFIX)
        if name == variable or name in _NO_SETTINGS:
            continue
        key = name.lower().replace("__", ".")
        yield variable, key, from_text(key, text)


def from_text(key: str, text: str) -> Any:
    """A text as the type of its key: words for lists, TOML for numbers and switches."""
    field = Settings.model_fields.get(key)
    if key in ("fallback", "domains") and not text.startswith("["):
        return [word.strip() for word in text.split(",") if word.strip()]
    if key.startswith("checks.") or (field is not None and _takes_text(field.annotation)):
        return text
    if "\n" in text:
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def _takes_text(annotation: Any) -> bool:
    return annotation is str or any(
        option is str or isinstance(option, str) or _takes_text(option)
        for option in get_args(annotation)
    )


def _validate(values: dict[str, Any], sources: Mapping[str, str]) -> Settings:
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(str(step) for step in first["loc"])
        source = next(
            (name for key, name in sources.items() if place == key or place.startswith(f"{key}.")),
            next((name for key, name in sources.items() if key.startswith(f"{place}.")), "?"),
        )
        if first["type"] == "value_error":
            what = first["msg"].removeprefix("Value error, ")
            raise ConfigError(f"{source}: {place}: {what[:1].lower()}{what[1:]}") from error
        what = first["msg"].removeprefix("Input should be ")
        raise ConfigError(f"{source}: {place} should be {what}") from error


def _leaves(layer: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in layer.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{at}{key}.")
        elif not isinstance(value, Mapping):
            yield f"{at}{key}", value


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    for step in path:
        if not isinstance(values.get(step), dict):
            values[step] = {}
        values = values[step]
    values[last] = value


def _get(values: Mapping[str, Any], key: str) -> Any:
    at: Any = values
    for step in key.split("."):
        at = at.get(step) if isinstance(at, Mapping) else None
    return at


def _replaced(values: Mapping[str, Any], key: str) -> Iterator[str]:
    """Keys whose values give way to this one: a section where a value is set, or the reverse."""
    at: Any = values
    path = key.split(".")
    for depth, step in enumerate(path, start=1):
        at = at.get(step) if isinstance(at, Mapping) else None
        if depth < len(path) and at is not None and not isinstance(at, Mapping):
            yield ".".join(path[:depth])
    if isinstance(at, Mapping):
        yield from (inner for inner, _ in _leaves(at, f"{key}."))


def _short(error: Exception) -> str:
    return "nested too deep" if isinstance(error, RecursionError) else one_line(str(error), 120)


def _nested(key: str, value: Any) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    _set(nested, key, value)
    return nested
