"""Runs a small project's tests in this process and prints what pytest would print.

Starting pytest for every generated task would take longer than everything else together. This
runner uses pytest's own assertion rewriting, comparison and traceback code. It does collection,
fixtures and parametrisation itself, for what small projects use: functions, classes, unittest
cases, ``parametrize``, ``raises``, function-scoped fixtures, ``tmp_path``, ``monkeypatch``.
``tests/training/test_quick_tests.py`` compares its text with pytest's, as ``compact`` shows it.

Modules are loaded from memory; the files are also written to ``folder``, because tracebacks are
made from files. The CPU time of a run is limited; code that hangs in C must be killed from outside.
"""

from __future__ import annotations

import ast
import importlib.abc
import importlib.machinery
import io
import linecache
import os
import shutil
import signal
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any

import _pytest.assertion.rewrite as rewrite
import _pytest.assertion.truncate as truncate
import _pytest.assertion.util as assertion_util
from _pytest._code import code as code_module
from _pytest._code import source as code_source
from _pytest.config import _prepareconfig

from training.quick_session import Run, Session, base_of, is_test_file

CPU_SECONDS = 0.25


class _TimeUp(BaseException):
    pass


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
    """pytest's search for a statement's lines, cached, as the same tests are seen many times."""
    text = "\n".join(source.lines)
    return _tree(text), *_range(lineno, text)


def _find_source(obj: Any) -> tuple[code_source.Source | None, int]:
    """pytest's search for the source of a code object, using only the line cache."""
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
    """With CI set, pytest does not truncate; older versions use another name for the function."""
    cut = getattr(truncate, "materialize_with_truncation", None)
    return list(cut(lines, config) if cut else lines)


class QuickTests:
    """A runner with its own scratch folder (best on a memory file system)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        arguments = ["-q", "--tb=short", "--no-header", "-p", "no:cacheprovider", str(folder)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.config = _prepareconfig(arguments)
            self.config._do_configure()
        self._written: dict[str, str] = {}

    @contextmanager
    def _installed(self) -> Iterator[None]:
        """Patch pytest with our functions while a project runs."""
        places = [
            (code_module, "getstatementrange_ast", _statement_range),
            (code_module, "findsource", _find_source),
            (assertion_util, "_reprcompare", self._compare),
            (assertion_util, "_config", self.config),
        ]
        before = [getattr(module, name) for module, name, _ in places]
        ci = os.environ.get("CI")
        os.environ["CI"] = "1"  # as in run_tests, so that pytest shows comparisons in full
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
            base = base_of(file, files)
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
            return Session(str(self.folder), files).run(tests)
        except (_TimeUp, MemoryError, RecursionError):
            return Run()
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
