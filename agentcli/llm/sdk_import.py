"""Imports an SDK in less than half the usual time, by importing its modules lazily.

Both SDKs import a class for every object of every endpoint, 500 modules of openai and 3,000 of
anthropic, although agentcli only sends requests and reads plain JSON. Most of these imports are
in packages that only re-export the names of their modules. The finder here makes such a package
look up a name on first access (PEP 562) and import only the module that defines it. The SDK's
top-level package does more: it also starts as a table of names, and its own code runs as soon as a
name is requested that is not in the table. So nothing is missing, even for other code in the
process that uses the SDK. An SDK that is built differently is imported as usual.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType

_NAMES = r"from \.([\w.]+) import (?:\(([^)]*)\)|([^\n(]+))"
_NAMING = re.compile(_NAMES)
_ONLY_NAMING = re.compile(rf"(?:\s+|#[^\n]*|from __future__ import annotations\n|{_NAMES})*")


def import_lazily(*sdks: str) -> None:
    """From now on, import the modules of these top-level packages lazily."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder(sdks))


class _Finder:
    """Gives the SDKs' packages a lazy loader."""

    def __init__(self, sdks: Sequence[str]) -> None:
        self._sdks = frozenset(sdks)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Implement ``importlib.abc.MetaPathFinder``."""
        top, _, inner = fullname.partition(".")
        spec = PathFinder.find_spec(fullname, path, target) if top in self._sdks else None
        if spec is not None and spec.submodule_search_locations:
            loader = spec.loader
            source = loader.get_source(fullname) if type(loader) is SourceFileLoader else None
            if source and (not inner or _ONLY_NAMING.fullmatch(source)):
                spec.loader = _Names(fullname, str(spec.origin))
        return spec


class _Names(SourceFileLoader):
    """Loads a package as a table of the names it imports from its own modules."""

    def exec_module(self, module: ModuleType) -> None:
        """Leave the module empty except for a ``__getattr__`` that looks up names."""
        homes: dict[str, tuple[str, str]] = {}

        def look_up(name: str) -> object:
            if not homes:
                homes.update(_homes(self.get_source(self.name) or ""))
            if home := homes.get(name):
                value = getattr(importlib.import_module(home[0], self.name), home[1])
                setattr(module, name, value)
                return value
            if PathFinder.find_spec(f"{self.name}.{name}", module.__path__):
                return importlib.import_module(f"{self.name}.{name}")
            if vars(module).pop("__getattr__", None):
                super(_Names, self).exec_module(module)
            return getattr(module, name)

        vars(module)["__getattr__"] = look_up


def _homes(source: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """Each name that a package imports from its modules, with the module and the name there."""
    for module, several, one in _NAMING.findall(source):
        for entry in re.sub(r"#[^\n]*", "", several or one).split(","):
            name, _, other = entry.partition(" as ")
            if name := name.strip():
                yield other.strip() or name, (f".{module}", name)
