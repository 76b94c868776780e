"""Imports of an SDK in less than half their time: of its packages only what is used is loaded.

Both SDKs import a class for every object of every endpoint that they know, 500 modules of openai
and 3,000 of anthropic, though agentcli only sends requests and reads plain JSON. Most are imported
by packages that do nothing but name what their modules hold. Here such a package looks a name up
when somebody asks for it (PEP 562) and imports the one module that has it. The SDK's own package
does more than that: it too starts as a table of names, and runs as it is as soon as something is
asked of it that is not in there. Thus nothing is missing, also for others in the process that use
the SDK; and an SDK that comes to be built in another way is imported as it is, and takes longer.
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


def spare(*sdks: str) -> None:
    """From now on, imports of these top-level packages are spared what nobody asks for."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder(sdks))


class _Finder:
    """Finds the packages of the SDKs, and gives those a loader that can wait."""

    def __init__(self, sdks: Sequence[str]) -> None:
        self._sdks = frozenset(sdks)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As ``importlib`` asks for it."""
        top, _, inner = fullname.partition(".")
        spec = PathFinder.find_spec(fullname, path, target) if top in self._sdks else None
        if spec is not None and spec.submodule_search_locations:
            loader = spec.loader
            source = loader.get_source(fullname) if type(loader) is SourceFileLoader else None
            if source and (not inner or _ONLY_NAMING.fullmatch(source)):
                spec.loader = _Names(fullname, str(spec.origin))
        return spec


class _Names(SourceFileLoader):
    """Loads a package as a table of the names that its source imports from its own modules."""

    def exec_module(self, module: ModuleType) -> None:
        """Leave the module empty but for a way to look names up."""
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
    """Each name that a package has of its modules: the module, and the name that it has there."""
    for module, several, one in _NAMING.findall(source):
        for entry in re.sub(r"#[^\n]*", "", several or one).split(","):
            name, _, other = entry.partition(" as ")
            if name := name.strip():
                yield other.strip() or name, (f".{module}", name)
