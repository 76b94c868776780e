"""Loads settings: defaults < user's TOML < its profile < project's TOML < environment < flags.

Every value remembers which layer set it. An unknown key is an error. A project's file may come from
anyone: until the folder is trusted, only its harmless keys are used, and ``notices`` names the
others.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from agentcli.errors import ConfigError
from agentcli.folders import user_folder
from agentcli.settings import (
    HookSettings,
    McpServerSettings,
    ProviderSettings,
    Settings,
    complaint,
    leaves,
    parts,
    quoted,
)
from agentcli.text import one_line
from agentcli.trust import is_trusted

PROJECT_FILE = Path(".agentcli") / "config.toml"
PROJECT_KEYS = ("checks", "max_steps", "timeout_s", "permissions.ask", "permissions.deny")
"""What a project's file may set without trust: nothing that spends, sends or unlocks."""

_PREFIX = "AGENTCLI_"
# These say where files are and which profile applies; they are not settings.
_NO_SETTINGS = {"CONFIG_DIR", "DATA_DIR", "STATE_DIR", "CACHE_DIR", "PROFILE"}


_NAMED_SECTIONS: dict[str, type[BaseModel]] = {
    "providers": ProviderSettings,
    "servers": McpServerSettings,
}
"""Keys whose values are sections with names chosen by the user."""


_ADDED_UP = ("hooks", "permissions.allow", "permissions.ask", "permissions.deny")
"""Lists to which each layer adds."""


def load(
    workspace: Path | None = None,
    *,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    user_file: Path | None = None,
    profile: str | None = None,
) -> Settings:
    """Read all layers. ``flags`` maps keys to values; None stands for a flag that was not given.

    A project's file counts in full if the user trusts the folder.
    ``profile`` names a ``[profiles.NAME]`` of the user's file; the default is AGENTCLI_PROFILE.

    Raises:
        ConfigError: a file cannot be read, a key is unknown, or a value has the wrong type.
    """
    environ = os.environ if environ is None else environ
    user_file = user_file or user_folder(environ) / "config.toml"
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    notices: list[str] = []

    def add(layer: Mapping[str, Any], name: str) -> None:
        _check_keys(layer, Settings, name)
        try:
            found = list(leaves(layer))
        except RecursionError as error:
            raise ConfigError(f"{name}: {_short(error)}") from error
        for key, value in found:
            for other in _replaced(values, key):
                sources.pop(other, None)
            if key in _ADDED_UP and isinstance(before := _get(values, key), list):
                # A higher layer must not drop what a lower one forbids.
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
        harmless = _harmless(layer)
        refused = [key for key in _tops(layer) if key not in _tops(harmless)]
        if refused and not is_trusted(workspace, environ):
            notices.append(
                f"{file}: {', '.join(refused)} left out: a project may only set "
                f"{', '.join(PROJECT_KEYS)} until it is trusted (agentcli trust)"
            )
            layer = harmless
        add(layer, str(file))
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
    """Remove the profiles from the user's file and return them; each is a layer of its own."""
    found = layer.pop("profiles", {})
    if not isinstance(found, dict) or not all(isinstance(one, dict) for one in found.values()):
        raise ConfigError(f"{file}: profiles should be sections, such as [profiles.work]")
    for name, one in found.items():
        _check_keys(one, Settings, f"{file} [profiles.{name}]")
    return found


def _tops(layer: Mapping[str, Any]) -> list[str]:
    """The keys as ``PROJECT_KEYS`` names them: top-level ones, except inside permissions."""
    found: list[str] = []
    for key, value in layer.items():
        inner = value if key == "permissions" and isinstance(value, Mapping) else None
        found += [key] if inner is None else [f"{key}.{name}" for name in inner]
    return found


def _harmless(layer: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a project's file that applies without trust."""
    kept: dict[str, Any] = {key: value for key, value in layer.items() if key in PROJECT_KEYS}
    rules = layer.get("permissions")
    if isinstance(rules, Mapping):
        kept["permissions"] = {
            key: value for key, value in rules.items() if f"permissions.{key}" in PROJECT_KEYS
        }
    return kept


def nearest(key: str, known: Sequence[str]) -> str:
    """A hint for an unknown key."""
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
        if field is Settings.model_fields["hooks"] and isinstance(value, list):
            for number, hook in enumerate(value):
                if isinstance(hook, Mapping):
                    _check_keys(hook, HookSettings, name, f"{key}.{number}.")
        if not isinstance(value, Mapping):
            continue
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            _check_keys(value, field.annotation, name, f"{at}{key}.")
        elif key in _NAMED_SECTIONS:
            for entry, inner in value.items():
                if isinstance(inner, Mapping):
                    _check_keys(inner, _NAMED_SECTIONS[key], name, f"{at}{key}.{quoted(entry)}.")


def _from_environment(environ: Mapping[str, str]) -> Iterator[tuple[str, str, Any]]:
    """Yield (variable, key, value); ``__`` stands for a dot, as in AGENTCLI_CHECKS__TEST."""
    for variable, text in sorted(environ.items()):
        name = variable.removeprefix(_PREFIX)
        if name == variable or name in _NO_SETTINGS:
            continue
        key = name.lower().replace("__", ".")
        yield variable, key, from_text(key, text)


def from_text(key: str, text: str) -> Any:
    """Convert a text to the type of its key.

    Numbers, booleans and texts that start with a bracket are read as TOML, lists as comma-separated
    words, and permissions as one rule.
    """
    kinds = _kinds(_annotation(key))
    takes_list = tuple in kinds
    in_brackets = takes_list and text.lstrip().startswith("[")
    if not in_brackets and (key.startswith("checks.") or _is_command(key)):
        return text
    if takes_list and not in_brackets:
        words = [text] if key.startswith("permissions.") else text.split(",")
        return [word.strip() for word in words if word.strip()]
    if not takes_list and (str in kinds or "\n" in text):
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def _is_command(key: str) -> bool:
    """Whether ``settings.Command`` itself splits the key's text into words."""
    return key.rpartition(".")[2] in ("command", "api_key_command")


def _annotation(key: str) -> Any:
    """The type of a key, also of one inside a profile; None if there is no such key."""
    path = parts(key)
    at: Any = Settings
    for step in path[2:] if path[0] == "profiles" else path:
        if isinstance(at, type) and issubclass(at, BaseModel):
            field = at.model_fields.get(step)
            at = field.annotation if field else None
        else:
            at = get_args(at)[1] if get_origin(at) is dict else None
    return at


def _kinds(annotation: Any) -> set[Any]:
    """The Python types that values of an annotation can have: str, tuple, dict and so on."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kinds(arguments[0])
    if origin is Literal:
        return {type(option) for option in arguments}
    if origin in (Union, UnionType):
        return set().union(*map(_kinds, arguments))
    return {origin or annotation}


def _validate(values: dict[str, Any], sources: Mapping[str, str]) -> Settings:
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(quoted(str(step)) for step in first["loc"])
        source = next(
            (name for key, name in sources.items() if place == key or place.startswith(f"{key}.")),
            next((name for key, name in sources.items() if key.startswith(f"{place}.")), "?"),
        )
        if first["type"] == "value_error":
            what = first["msg"].removeprefix("Value error, ")
            raise ConfigError(f"{source}: {place}: {what[:1].lower()}{what[1:]}") from error
        raise ConfigError(f"{source}: {place} {complaint(first)}") from error


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    *path, last = parts(key)
    for step in path:
        if not isinstance(values.get(step), dict):
            values[step] = {}
        values = values[step]
    values[last] = value


def _get(values: Mapping[str, Any], key: str) -> Any:
    at: Any = values
    for step in parts(key):
        at = at.get(step) if isinstance(at, Mapping) else None
    return at


def _replaced(values: Mapping[str, Any], key: str) -> Iterator[str]:
    """Yield keys that setting this one replaces: a section by a value, or a value by a section."""
    at: Any = values
    path = parts(key)
    for depth, step in enumerate(path, start=1):
        at = at.get(step) if isinstance(at, Mapping) else None
        if depth < len(path) and at is not None and not isinstance(at, Mapping):
            yield ".".join(map(quoted, path[:depth]))
    if isinstance(at, Mapping):
        yield from (inner for inner, _ in leaves(at, f"{key}."))


def _short(error: Exception) -> str:
    return "nested too deep" if isinstance(error, RecursionError) else one_line(str(error), 120)


def _nested(key: str, value: Any) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    _set(nested, key, value)
    return nested
