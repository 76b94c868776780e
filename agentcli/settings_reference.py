"""Generates the settings reference from ``settings.py``, for ``agentcli init`` and the docs.

Docstrings of fields do not exist at run time, so they are read from the module's syntax tree.
"""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from agentcli import settings


@dataclass(frozen=True)
class Entry:
    """One key with its default and its description."""

    key: str
    default: Any
    about: str


@dataclass(frozen=True)
class Section:
    """A TOML table with its keys. The top level has no name; ``NAME`` is chosen by the user."""

    name: str
    about: str
    entries: tuple[Entry, ...]


def sections() -> Iterator[Section]:
    """All sections, in the order of the source."""
    documented = _docstrings()
    yield from _section("", settings.Settings, documented)


def as_toml() -> Iterator[str]:
    """The lines of a TOML file with every key, explained and commented out."""
    for section in sections():
        if section.name:
            yield ""
            yield from (f"# {line}" for line in section.about.splitlines() if line.strip())
            yield f"# [{section.name}]"
        for entry in section.entries:
            yield from (f"# {line}" for line in entry.about.splitlines())
            yield f"# {entry.key} = {_toml(entry.default)}".rstrip()


def as_markdown() -> Iterator[str]:
    """The lines of the reference in the documentation."""
    for section in sections():
        yield f"## `[{section.name}]`" if section.name else "## Top level"
        yield ""
        if section.about:
            yield f"{' '.join(section.about.split())}"
            yield ""
        if section.entries:
            yield "| Key | Default | |"
            yield "|---|---|---|"
        for entry in section.entries:
            about = " ".join(entry.about.replace("|", "\\|").split())
            yield f"| `{entry.key}` | {_shown(entry.default)} | {about} |"
        yield ""


def _section(name: str, model: type[BaseModel], documented: dict[str, str]) -> Iterator[Section]:
    entries, inner = [], []
    for key, field in model.model_fields.items():
        about = documented.get(f"{model.__name__}.{key}", "")
        below = f"{name}.{key}" if name else key
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            inner.append((below, field.annotation))
        elif (named := _NAMED.get(f"{model.__name__}.{key}")) is not None:
            inner.append((f"{below}.NAME" if key != "hooks" else f"[{below}]", named))
        else:
            options = ", ".join(_options(field.annotation))
            entries.append(Entry(key, _default(field), " ".join(filter(None, (about, options)))))
    about = documented.get(model.__name__, "") if name else ""
    if entries:
        yield Section(name, about.replace("``", "`"), tuple(entries))
    for below, section in inner:
        yield from _section(below, section, documented)


_NAMED: dict[str, type[BaseModel]] = {
    "Settings.providers": settings.ProviderSettings,
    "McpSettings.servers": settings.McpServerSettings,
    "Settings.hooks": settings.HookSettings,
}


def _docstrings() -> dict[str, str]:
    """Map ``Class`` and ``Class.field`` to their docstrings."""
    found = {}
    for node in ast.parse(inspect.getsource(settings)).body:
        if not isinstance(node, ast.ClassDef):
            continue
        found[node.name] = ast.get_docstring(node) or ""
        for field, text in zip(node.body, node.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
                and isinstance(text.value.value, str)
            ):
                about = inspect.cleandoc(text.value.value).replace("``", "`")
                found[f"{node.name}.{field.target.id}"] = about
    return found


def _options(annotation: Any) -> list[str]:
    """The allowed values of a key that takes only certain words."""
    found: list[str] = []
    for one in get_args(annotation):
        found += [f"`{one}`"] if isinstance(one, str) else _options(one)
    return found


def _default(field: FieldInfo) -> Any:
    return None if field.is_required() else field.get_default(call_default_factory=True)


def _toml(value: Any) -> str:
    if value is None:
        return ""
    return json.dumps(list(value) if isinstance(value, tuple) else value)


def _shown(value: Any) -> str:
    return "" if value in (None, (), {}) else f"`{_toml(value)}`"


if __name__ == "__main__":
    print("# Settings\n")
    print("\n".join(as_markdown()).rstrip())
