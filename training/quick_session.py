"""One run of a project's tests: collection, fixtures, parametrisation, report (quick_tests.py)."""

from __future__ import annotations

import importlib
import inspect
import os
import shutil
import tempfile
import unittest
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from _pytest._code.code import ExceptionInfo, filter_traceback
from _pytest.python import IdMaker

SHOWN = 3  # failures with a text: as many as the compact form shows


class Unsupported(Exception):
    """The tests use something that this runner does not support."""


@dataclass
class Run:
    """The result of a run. ``text`` is None if the run was stopped or printed something."""

    text: str | None = None
    passed: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    """(test file, name of the test with its class and parameters)"""
    errors: int = 0
    frames: list[tuple[str, int]] = field(default_factory=list)
    """(file, line) of the first failure, outermost first, files relative to the project."""
    message: str = ""
    """The first failure's error, one line."""

    @property
    def ok(self) -> bool:
        return self.text is not None and not self.failed and not self.errors and self.passed > 0


def is_test_file(path: str) -> bool:
    name = path.rsplit("/", 1)[-1]
    return name.startswith("test_") or name.endswith("_test.py") or name == "conftest.py"


def base_of(file: str, files: Mapping[str, str]) -> str:
    """The folder that pytest puts first on ``sys.path`` for a test file.

    It is the nearest folder above the file without an ``__init__.py``.
    """
    folder = file.rpartition("/")[0]
    while folder and f"{folder}/__init__.py" in files:
        folder = folder.rpartition("/")[0]
    return f"{folder}/" if folder else ""


@dataclass
class _Item:
    """One test: the function, its parameters and its name."""

    file: str
    name: str  # TestX.test_a[1-2]
    function: Callable[..., object]
    cls: type | None
    parameters: dict[str, object]


class Session:
    def __init__(self, root: str, files: Mapping[str, str]) -> None:
        self.root, self.files = root, files
        self.result = Run()
        self.blocks: dict[str, list[str]] = {"ERRORS": [], "FAILURES": []}
        self.names: dict[str, list[str]] = {"FAILED": [], "ERROR": []}
        self.dots = ""
        self.tmp: list[str] = []

    def run(self, tests: Sequence[str]) -> Run:
        items: list[tuple[_Item, dict[str, Any]]] = []
        try:
            shared: dict[str, Any] = {}
            for file in sorted(f for f in self.files if f.endswith("conftest.py")):
                try:
                    shared |= _fixtures(self._load(file))
                except Exception as error:
                    raise Unsupported(f"{file}: {error}") from error
            for file in tests:
                try:
                    module = self._load(file)
                except (Exception, SystemExit):
                    self._collection_error(file)
                    continue
                fixtures = shared | _fixtures(module)
                items += [(item, fixtures) for item in _items(file, module)]
            if self.result.errors:
                return self._finish()
            for item, fixtures in items:
                self._test(item, fixtures)
            return self._finish()
        finally:
            for folder in self.tmp:
                shutil.rmtree(folder, ignore_errors=True)

    def _load(self, file: str) -> ModuleType:
        base = base_of(file, self.files)
        name = file.removeprefix(base).removesuffix(".py").replace("/", ".")
        return importlib.import_module(name)

    def _collection_error(self, file: str) -> None:
        info: ExceptionInfo[BaseException] = ExceptionInfo.from_current()
        value = info.value
        if not isinstance(value, SyntaxError):
            traceback = info.traceback.filter(filter_traceback)
            inside = traceback.cut(path=Path(self.root) / file)
            info.traceback = inside if inside is not traceback else traceback
        if self.result.errors < SHOWN:
            text = str(info.getrepr(style="short"))
            self.blocks["ERRORS"].append(f"{f' ERROR collecting {file} ':_^80}\n{text}")
        if not self.result.errors:
            self._remember(info)
        self.result.errors += 1
        self.names["ERROR"].append(f"ERROR {file}")

    def _remember(self, info: ExceptionInfo[BaseException]) -> None:
        inside = [(str(e.path), e.lineno + 1) for e in info.traceback]
        prefix = f"{self.root}/"
        self.result.frames = [
            (path.removeprefix(prefix), line) for path, line in inside if path.startswith(prefix)
        ]
        value = info.value
        if isinstance(value, SyntaxError) and (value.filename or "").startswith(prefix):
            place = (str(value.filename).removeprefix(prefix), value.lineno or 1)
            self.result.frames.append(place)
        self.result.message = info.exconly(tryshort=True).split("\n")[0]

    def _test(self, item: _Item, fixtures: Mapping[str, Any]) -> None:
        stage = "setup"
        with ExitStack() as stack:
            try:
                maker = _Maker(self, item, fixtures, stack)
                owner = item.cls() if item.cls else None
                if isinstance(owner, unittest.TestCase):
                    self._unittest(item, owner)
                    return
                if owner is not None and hasattr(owner, "setup_method"):
                    owner.setup_method()
                function = item.function.__get__(owner) if owner is not None else item.function
                if inspect.iscoroutinefunction(function):
                    raise Unsupported("async test")
                maker.autouse()
                values = {name: maker.value(name, owner) for name in _wanted(function)}
                stage = "call"
                function(**values)
            except Unsupported:
                raise
            except pytest.skip.Exception:
                raise Unsupported("skip") from None
            except (Exception, pytest.fail.Exception):
                self._failed(item, stage)
            else:
                self.result.passed += 1
                self.dots += "."

    def _unittest(self, item: _Item, case: unittest.TestCase) -> None:
        try:
            type(case).setUpClass()
            case.setUp()
            getattr(case, item.name.rpartition(".")[2])()
            case.tearDown()
            case.doCleanups()
        except unittest.SkipTest:
            raise Unsupported("skip") from None
        except Exception:
            self._failed(item, "call")
        else:
            self.result.passed += 1
            self.dots += "."

    def _failed(self, item: _Item, stage: str) -> None:
        info: ExceptionInfo[BaseException] = ExceptionInfo.from_current()
        path = Path(self.root) / item.file
        traceback = info.traceback
        # Start at the test's own frame; without one (a fixture of conftest.py), keep the project's.
        cut = traceback.cut(path=path)
        if cut is traceback:
            cut = traceback.filter(lambda entry: str(entry.path).startswith(self.root)) or cut
        cut = cut.filter(info)
        inner = cut.filter(lambda entry: not entry.frame.f_globals.get("__unittest"))
        info.traceback = inner or cut
        title = item.name if stage == "call" else f"ERROR at setup of {item.name}"
        blocks = self.blocks["FAILURES" if stage == "call" else "ERRORS"]
        if len(blocks) < SHOWN:
            bare = isinstance(info.value, pytest.fail.Exception) and not info.value.pytrace
            text = str(info.getrepr(style="value" if bare else "short"))
            blocks.append(f"{f' {title} ':_^80}\n{text}")
        if not self.result.failed and not self.result.errors:
            self._remember(info)
        identity = f"{item.file}::{item.name.replace('.', '::', 1) if item.cls else item.name}"
        if stage == "call":
            self.result.failed.append((item.file, item.name))
            self.names["FAILED"].append(f"FAILED {identity}")
            self.dots += "F"
        else:
            self.result.errors += 1
            self.names["ERROR"].append(f"ERROR {identity}")
            self.dots += "E"

    def _finish(self) -> Run:
        result = self.result
        counts = [f"{len(result.failed)} failed"] if result.failed else []
        counts += [f"{result.passed} passed"] if result.passed else []
        if result.errors:
            counts.append(f"{result.errors} error{'s' if result.errors > 1 else ''}")
        lines = [f"{self.dots} [100%]"] if self.dots else []
        for title, blocks in self.blocks.items():
            if blocks:
                lines += [f"{f' {title} ':=^80}", *blocks]
        if len(lines) > 1 or result.errors:
            lines.append(f"{' short test summary info ':=^80}")
            lines += self.names["FAILED"] + self.names["ERROR"]
        lines.append(f"{', '.join(counts) or 'no tests ran'} in 0.01s")
        result.text = "\n".join(lines)
        return result


class _Maker:
    """Makes fixture values for one test."""

    def __init__(
        self, session: Session, item: _Item, fixtures: Mapping[str, Any], stack: ExitStack
    ) -> None:
        self.session, self.item, self.fixtures, self.stack = session, item, fixtures, stack
        self.made: dict[str, object] = dict(item.parameters)

    def autouse(self) -> None:
        for name, fixture in self.fixtures.items():
            if fixture._fixture_function_marker.autouse:
                self.value(name, None)

    def value(self, name: str, owner: object) -> object:
        if name not in self.made:
            self.made[name] = self._make(name, owner)
        return self.made[name]

    def _make(self, name: str, owner: object) -> object:
        if name == "tmp_path":
            folder = tempfile.mkdtemp(
                prefix="case", dir="/dev/shm" if os.path.isdir("/dev/shm") else None
            )
            self.session.tmp.append(folder)
            return Path(folder)
        if name == "monkeypatch":
            patch = pytest.MonkeyPatch()
            self.stack.callback(patch.undo)
            return patch
        if name not in self.fixtures:
            raise Unsupported(f"fixture {name}")
        definition = self.fixtures[name]
        if definition._fixture_function_marker.params:
            raise Unsupported("parametrised fixture")
        function = definition._fixture_function
        if "self" in inspect.signature(function).parameters:
            function = function.__get__(owner)
        values = {wanted: self.value(wanted, owner) for wanted in _wanted(function)}
        if inspect.isgeneratorfunction(function):
            return self.stack.enter_context(contextmanager(function)(**values))
        return function(**values)


def _wanted(function: Callable[..., object]) -> list[str]:
    return [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is parameter.empty and name not in ("self", "cls")
    ]


def _fixtures(module: ModuleType) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for value in [*vars(module).values()]:
        if hasattr(value, "_fixture_function_marker"):
            found[value.name] = value
        elif isinstance(value, type) and value.__name__.startswith("Test"):
            for inner in vars(value).values():
                if hasattr(inner, "_fixture_function_marker"):
                    found[inner.name] = inner
    return found


def _items(file: str, module: ModuleType) -> Iterator[_Item]:
    for name, value in list(vars(module).items()):
        if isinstance(value, type) and issubclass(value, unittest.TestCase):
            if value.__module__ != module.__name__:
                continue
            for method in unittest.TestLoader().getTestCaseNames(value):
                function = getattr(value, method)
                case = _case_class(value, method)
                yield _Item(file, f"{name}.{method}", function, case, {})
        elif isinstance(value, type) and name.startswith("Test"):
            for method, function in list(vars(value).items()):
                if method.startswith("test") and callable(function):
                    for suffix, parameters in _parameters(function):
                        yield _Item(file, f"{name}.{method}{suffix}", function, value, parameters)
        elif name.startswith("test") and inspect.isfunction(value):
            for suffix, parameters in _parameters(value):
                yield _Item(file, f"{name}{suffix}", value, None, parameters)


def _case_class(cls: type, method: str) -> Any:
    def make() -> unittest.TestCase:
        case: unittest.TestCase = cls(method)
        return case

    return make


def _parameters(function: Callable[..., object]) -> Iterator[tuple[str, dict[str, object]]]:
    marks = getattr(function, "pytestmark", [])
    if any(mark.name in ("skip", "skipif", "xfail", "asyncio", "usefixtures") for mark in marks):
        raise Unsupported("mark")
    sets: list[tuple[str, dict[str, object]]] = [("", {})]
    for mark in marks:
        if mark.name != "parametrize":
            continue
        names, values = mark.args[0], list(mark.args[1])
        if isinstance(names, str):
            names = [part.strip() for part in names.split(",")]
        rows = [
            pytest.param(*value) if len(names) > 1 and not _is_set(value) else value
            for value in values
        ]
        rows = [row if _is_set(row) else pytest.param(row) for row in rows]
        fields = {"argnames": list(names), "parametersets": rows, "ids": mark.kwargs.get("ids")}
        known: dict[str, Any] = {name: fields.get(name) for name in IdMaker.__slots__}
        identities = IdMaker(**known).make_unique_parameterset_ids()
        sets = [
            (
                f"{suffix}-{identity}" if suffix else str(identity),
                given | dict(zip(names, row.values, strict=True)),
            )
            for suffix, given in sets
            for identity, row in zip(identities, rows, strict=True)
        ]
    for suffix, chosen in sets:
        yield (f"[{suffix}]" if suffix else ""), chosen


def _is_set(value: object) -> bool:
    return type(value).__name__ == "ParameterSet"
