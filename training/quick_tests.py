"""Runs a small project's tests inside this process and prints what pytest would print.

Starting pytest for every generated task would cost more than everything else together. This
runner uses pytest's own assertion rewriting, comparison and traceback code, and does collection,
fixtures and parametrisation itself, for what small projects use: functions, classes, unittest
cases, ``parametrize``, ``raises``, function-scoped fixtures, ``tmp_path``, ``monkeypatch``.
``tests/training/test_quick_tests.py`` holds its text to pytest's, as ``compact`` shows it.

Modules come from memory; the files are also written to ``folder`` since tracebacks are made from
files. CPU time of a run is limited; what hangs in C code must be killed from outside.
"""

from __future__ import annotations

import ast
import importlib.abc
import importlib.machinery
import importlib.util
import inspect
import io
import linecache
import os
import shutil
import signal
import sys
import tempfile
import unittest
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any

import _pytest.assertion.rewrite as rewrite
import _pytest.assertion.truncate as truncate
import _pytest.assertion.util as assertion_util
import pytest
from _pytest._code import code as code_module
from _pytest._code import source as code_source
from _pytest._code.code import ExceptionInfo, filter_traceback
from _pytest.config import _prepareconfig
from _pytest.python import IdMaker

CPU_SECONDS = 0.25
SHOWN = 3  # failures whose text is made: as many as the compact form shows


class Unsupported(Exception):
    """The tests use something that this runner does not know."""


class _TimeUp(BaseException):
    pass


@dataclass
class Run:
    """What happened. ``text`` is None if the run was stopped or printed something."""

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


@lru_cache(maxsize=4096)
def _compiled(path: str, source: str, is_test: bool) -> CodeType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not is_test:
            return compile(source, path, "exec", dont_inherit=True)
        tree = ast.parse(source, filename=path)
        rewrite.rewrite_asserts(tree, source.encode(), path, None)
        return compile(tree, path, "exec", dont_inherit=True)


@lru_cache(maxsize=512)
def _tree(text: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(text)


@lru_cache(maxsize=8192)
def _range(line: int, text: str) -> tuple[int, int]:
    source = code_source.Source()
    source.lines = text.split("\n")
    _, start, end = code_source.getstatementrange_ast(line, source, astnode=_tree(text))
    return start, end


def _statement_range(
    lineno: int, source: code_source.Source, assertion: bool = False, astnode: Any = None
) -> tuple[ast.AST, int, int]:
    """Pytest's search for a statement's lines, remembered: tests are seen many times."""
    text = "\n".join(source.lines)
    return _tree(text), *_range(lineno, text)


def _find_source(obj: Any) -> tuple[code_source.Source | None, int]:
    """Pytest's search for a code's file, from the cache of lines alone."""
    code = getattr(obj, "__code__", obj)
    lines = linecache.getlines(code.co_filename)
    if not lines:
        return None, -1
    source = code_source.Source()
    source.lines = [line.rstrip() for line in lines]
    source.raw_lines = lines
    return source, code.co_firstlineno - 1


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports from the project's files in memory."""

    def __init__(self, root: str, files: Mapping[str, str], bases: Sequence[str]) -> None:
        self.root, self.files, self.bases = root, files, bases

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        relative = name.replace(".", "/")
        for base in self.bases:
            stem = base + relative
            for file, package in ((f"{stem}/__init__.py", True), (f"{stem}.py", False)):
                if file in self.files:
                    origin = f"{self.root}/{file}"
                    spec = importlib.machinery.ModuleSpec(name, self, origin=origin)
                    spec.has_location = True
                    if package:
                        spec.submodule_search_locations = [f"{self.root}/{stem}"]
                    spec.loader_state = file
                    return spec
            if any(file.startswith(f"{stem}/") for file in self.files):
                spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
                spec.submodule_search_locations = [f"{self.root}/{stem}"]
                return spec
        return None

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        file = module.__spec__.loader_state
        code = _compiled(f"{self.root}/{file}", self.files[file], is_test_file(file))
        exec(code, module.__dict__)

    def get_source(self, name: str) -> None:
        return None


def _truncated(lines: Any, config: Any) -> list[str]:
    """With CI set, pytest does not cut; older versions have another name for it."""
    cut = getattr(truncate, "materialize_with_truncation", None)
    return list(cut(lines, config) if cut else lines)


def is_test_file(path: str) -> bool:
    name = path.rsplit("/", 1)[-1]
    return name.startswith("test_") or name.endswith("_test.py") or name == "conftest.py"


class QuickTests:
    """A runner with its own scratch folder (on a memory file system, best)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        arguments = ["-q", "--tb=short", "--no-header", "-p", "no:cacheprovider", str(folder)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.config = _prepareconfig(arguments)
            self.config._do_configure()
        self._written: dict[str, str] = {}

    @contextmanager
    def _installed(self) -> Iterator[None]:
        """Puts our parts into pytest's code while a project runs."""
        places = [
            (code_module, "getstatementrange_ast", _statement_range),
            (code_module, "findsource", _find_source),
            (assertion_util, "_reprcompare", self._compare),
            (assertion_util, "_config", self.config),
        ]
        before = [getattr(module, name) for module, name, _ in places]
        ci = os.environ.get("CI")
        os.environ["CI"] = "1"  # as run_tests sets it: pytest then shows comparisons in full
        for module, name, value in places:
            setattr(module, name, value)
        try:
            yield
        finally:
            for (module, name, _), value in zip(places, before, strict=True):
                setattr(module, name, value)
            if ci is None:
                del os.environ["CI"]
            else:
                os.environ["CI"] = ci

    def _compare(self, op: str, left: object, right: object) -> str | None:
        for lines in self.config.hook.pytest_assertrepr_compare(
            config=self.config, op=op, left=left, right=right
        ):
            if lines:
                lines = _truncated(lines, self.config)
            if lines:
                text = "\n~".join(line.replace("\n", "\\n") for line in lines)
                return text.replace("%", "%%")
        return None

    def run(self, files: Mapping[str, str], only: str | None = None) -> Run:
        """Run all tests, or those of one file.

        Raises:
            Unsupported: the tests cannot be run here.
        """
        self._write(files)
        root = str(self.folder)
        tests = sorted(f for f in files if is_test_file(f) and not f.endswith("conftest.py"))
        bases = [""]
        for file in [*tests, *(f for f in files if f.endswith("conftest.py"))]:
            base = _base_of(file, files)
            if base not in bases:
                bases.insert(0, base)
        if any(file.startswith("src/") for file in files):
            bases.append("src/")
        finder = _Finder(root, files, bases)
        before = dict(sys.modules)
        here = os.getcwd()
        os.chdir(root)
        sys.meta_path.insert(0, finder)
        captured = io.StringIO()
        out, err = sys.stdout, sys.stderr
        sys.stdout = sys.stderr = captured
        try:
            with warnings.catch_warnings(), self._installed():
                warnings.simplefilter("ignore")
                run = self._limited(files, [only] if only else tests)
        finally:
            sys.stdout, sys.stderr = out, err
            sys.meta_path.remove(finder)
            os.chdir(here)
            for name in list(sys.modules):
                if name not in before:
                    del sys.modules[name]
        if captured.getvalue():
            run.text = None
        return run

    def _write(self, files: Mapping[str, str]) -> None:
        for path in self._written.keys() - files.keys():
            (self.folder / path).unlink(missing_ok=True)
            linecache.cache.pop(f"{self.folder}/{path}", None)
        for path, text in files.items():
            if self._written.get(path) != text:
                target = self.folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text)
                name = str(target)
                linecache.cache[name] = (len(text), None, text.splitlines(True), name)
        self._written = dict(files)

    def _limited(self, files: Mapping[str, str], tests: Sequence[str]) -> Run:
        def stop(number: int, frame: FrameType | None) -> None:
            raise _TimeUp

        signal.signal(signal.SIGVTALRM, stop)
        signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS)
        signal.setitimer(signal.ITIMER_REAL, 8 * CPU_SECONDS)
        try:
            return _Session(self, files).run(tests)
        except (_TimeUp, MemoryError, RecursionError):
            return Run()
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)


def _base_of(file: str, files: Mapping[str, str]) -> str:
    """The folder that pytest puts first on the path for a test file: the first without
    ``__init__.py``."""
    folder = file.rpartition("/")[0]
    while folder and f"{folder}/__init__.py" in files:
        folder = folder.rpartition("/")[0]
    return f"{folder}/" if folder else ""


@dataclass
class _Item:
    """One test: what to call, with which parameters, under which name."""

    file: str
    name: str  # TestX.test_a[1-2]
    function: Callable[..., object]
    cls: type | None
    parameters: dict[str, object]


class _Session:
    def __init__(self, runner: QuickTests, files: Mapping[str, str]) -> None:
        self.runner, self.files = runner, files
        self.root = str(runner.folder)
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
                shared |= _fixtures(self._load(file))
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
        base = _base_of(file, self.files)
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
        # from the test's own frame on; without one (a fixture of conftest.py) what is ours
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
        self, session: _Session, item: _Item, fixtures: Mapping[str, Any], stack: ExitStack
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
        known = {name: fields.get(name) for name in IdMaker.__slots__}
        identities = IdMaker(**known).make_unique_parameterset_ids()
        sets = [
            (
                f"{suffix}-{identity}" if suffix else str(identity),
                given | dict(zip(names, row.values)),
            )
            for suffix, given in sets
            for identity, row in zip(identities, rows)
        ]
    for suffix, values in sets:
        yield (f"[{suffix}]" if suffix else ""), values


def _is_set(value: object) -> bool:
    return type(value).__name__ == "ParameterSet"
