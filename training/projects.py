"""Small repositories with passing tests, and the same repositories with faults.

``vary`` gives a hand-written project other names; compose.py makes projects of real functions.
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from training.faults import Fault, Faults
from training.names import MODULE_WORDS, RESERVED, new_name
from training.quick_session import Run, Unsupported, is_test_file
from training.quick_tests import QuickTests


@dataclass
class Project:
    """Files by path; ``baseline`` is the run in which all tests pass."""

    name: str
    files: dict[str, str]
    baseline: Run
    faults: dict[str, Faults] = field(default_factory=dict)

    @property
    def sources(self) -> list[str]:
        return _sources(self.files)

    @property
    def tests(self) -> list[str]:
        return [p for p in self.files if is_test_file(p) and not p.endswith("conftest.py")]

    def faults_of(self, path: str) -> Faults:
        if path not in self.faults:
            self.faults[path] = Faults(self.files[path])
        return self.faults[path]


@dataclass
class Case:
    """A project with faults: the faulty files and the result of their tests."""

    project: Project
    faults: list[tuple[str, Fault]]
    files: dict[str, str]
    run: Run


def _sources(files: Mapping[str, str]) -> list[str]:
    return [p for p in files if p.endswith(".py") and not is_test_file(p)]


def checked(name: str, files: dict[str, str], runner: QuickTests) -> Project | None:
    """Make a project if all of its tests pass here; otherwise None."""
    try:
        run = runner.run(files)
    except (Unsupported, SyntaxError, RecursionError):
        return None
    return Project(name, files, run) if run.ok else None


_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _bound_names(files: Mapping[str, str]) -> set[str]:
    """The names defined in the project: functions, classes, parameters, variables, attributes."""
    names: set[str] = set()
    for path, text in files.items():
        if not path.endswith(".py"):
            continue
        for node in ast.walk(ast.parse(text)):
            match node:
                case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                    names.add(name)
                case ast.arg(arg=name):
                    names.add(name)
                case ast.Name(id=name, ctx=ast.Store()):
                    names.add(name)
                case ast.Attribute(attr=name, ctx=ast.Store()):
                    names.add(name)
    return {n for n in names if n not in RESERVED and not n.startswith(("__", "test"))}


def vary(project: Project, rng: random.Random, runner: QuickTests) -> Project | None:
    """Make the same project with other identifiers, and often other file names."""
    return checked(project.name, renamed(project.files, renames(project.files, rng)), runner)


def renames(files: Mapping[str, str], rng: random.Random) -> dict[str, str]:
    """Draw new names for some of a project's own names and modules."""
    imported = {
        word
        for text in files.values()
        for line in text.split("\n")
        if line.startswith(("import ", "from "))
        for word in _WORD.findall(line)
    }
    modules = {p.rsplit("/", 1)[-1].removesuffix(".py") for p in _sources(files)}
    taken = {word for text in files.values() for word in _WORD.findall(text)}
    found: dict[str, str] = {}
    share = rng.choice([0.0, 0.2, 0.5, 0.8])
    for name in sorted(_bound_names(files) - modules):
        if rng.random() > share or (name in imported and name in RESERVED):
            continue
        new = new_name(rng, name)
        if new not in taken and new not in RESERVED:
            found[name] = new
            taken.add(new)
    if rng.random() < 0.5:
        for module in sorted(modules - {"__init__", "__main__"}):
            new = rng.choice(MODULE_WORDS)
            if new not in taken and new not in RESERVED:
                found[module] = new
                taken.add(new)
    return found


def renamed(files: Mapping[str, str], names: Mapping[str, str]) -> dict[str, str]:
    """The files with other names, in the text and in the paths."""
    return {
        _moved(path, names): _WORD.sub(lambda m: names.get(m[0], m[0]), text)
        for path, text in files.items()
    }


def _moved(path: str, renames: Mapping[str, str]) -> str:
    folder, slash, name = path.rpartition("/")
    stem = name.removesuffix(".py")
    if stem.startswith("test_") and stem[5:] in renames:
        name = f"test_{renames[stem[5:]]}.py"
    elif stem in renames and name.endswith(".py"):
        name = f"{renames[stem]}.py"
    return f"{folder}{slash}{name}"


def definitions(files: Mapping[str, str], paths: Iterable[str]) -> dict[str, tuple[str, int, str]]:
    """Map the name of every function, method, class and module constant to (path, line, kind)."""
    found: dict[str, tuple[str, int, str]] = {}
    for path in paths:
        try:
            tree = ast.parse(files[path])
        except SyntaxError:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, (path, node.lineno, "class"))
                for inner in node.body:
                    if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                        found.setdefault(inner.name, (path, inner.lineno, "method"))
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found[node.name] = (path, node.lineno, "function")
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                name = node.targets[0].id
                if name.isupper():
                    found.setdefault(name, (path, node.lineno, "constant"))
    return found
