"""Small repositories with passing tests: hand-written ones varied, and ones composed of real code.

``Project`` is what a task starts from. ``vary`` gives a hand-written project other names;
``compose`` puts recorded functions (functions.py) into a module and writes tests for them in one
of several styles.
"""

from __future__ import annotations

import ast
import builtins
import keyword
import random
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from training.faults import Faults
from training.quick_tests import QuickTests, Run, Unsupported, is_test_file

RESERVED = (
    frozenset(keyword.kwlist)
    | frozenset(keyword.softkwlist)
    | frozenset(dir(builtins))
    | sys.stdlib_module_names
    | frozenset(
        name
        for kind in (str, int, float, list, dict, set, tuple, bytes, object, Exception)
        for name in dir(kind)
    )
    | frozenset(
        [
            "self",
            "cls",
            "pytest",
            "test",
            "tests",
            "src",
            "conftest",
            "unittest",
            "args",
            "kwargs",
            "main",
        ]
    )
)
MODULE_WORDS = [
    "shapes",
    "metrics",
    "billing",
    "report",
    "ledger",
    "wallet",
    "parser",
    "lexer",
    "router",
    "mapper",
    "planner",
    "budget",
    "roster",
    "catalog",
    "library",
    "store",
    "basket",
    "pricing",
    "invoice",
    "ranking",
    "ratings",
    "survey",
    "voting",
    "tally",
    "schedule",
    "timetable",
    "rota",
    "shifts",
    "booking",
    "tickets",
    "seats",
    "rooms",
    "hotel",
    "fleet",
    "trips",
    "routes",
    "geo",
    "grid",
    "maze",
    "board",
    "cards",
    "dice",
    "game",
    "scores",
    "league",
    "ladder",
    "recipe",
    "pantry",
    "menu",
    "orders",
    "kitchen",
    "stock",
    "warehouse",
    "parts",
    "units",
    "convert",
    "measure",
    "weather",
    "climate",
    "sensors",
    "signals",
    "filters",
    "window",
    "series",
    "trend",
    "smoothing",
    "sampling",
    "bins",
    "histogram",
    "outliers",
    "quantiles",
    "encoding",
    "cipher",
    "codec",
    "checksum",
    "digits",
    "numerals",
    "primes",
    "factors",
    "fractions_",
    "vectors",
    "matrix",
    "polygon",
    "circle",
    "bounds",
    "ranges",
    "spans",
    "intervals",
    "merge",
    "diffing",
    "patch",
    "versioning",
    "semver",
    "tags",
    "labels",
    "slug",
    "titles",
    "words",
    "sentences",
    "wrapping",
    "columns",
    "layout",
    "tables",
    "markdown",
    "html_tools",
    "templates",
    "config",
    "settings",
    "options",
    "flags",
    "env",
    "paths",
    "files_",
    "names",
    "urls",
    "query",
    "headers",
    "cookies",
    "tokens",
    "session",
    "auth_rules",
    "roles",
    "permissions",
    "quota",
    "throttle",
    "backoff",
    "retry",
    "cache",
    "memo",
    "pool",
    "queue_",
    "stack_",
    "heap_",
    "trees",
    "trie",
    "graph_",
    "walks",
    "toposort",
    "cycles",
    "flows",
    "events",
    "bus",
    "signals_",
    "hooks",
    "plugins",
    "registry",
    "loader",
    "store_",
    "journal",
    "history",
    "undo",
    "snapshots",
    "tasks",
    "jobs",
    "worker",
    "pipeline",
    "stages",
    "batches",
    "chunks",
    "paging",
    "cursor",
    "feeds",
    "digest",
    "mailbox",
    "contacts",
    "people",
    "teams",
    "org",
    "payroll",
    "tax",
    "discounts",
    "coupons",
    "loyalty",
    "loans",
    "interest",
    "savings",
    "currency",
    "exchange",
    "portfolio",
    "trades",
    "helpers",
    "core",
    "util",
    "tools",
    "common",
    "logic",
    "model",
    "engine",
    "service",
    "ops",
    "text_tools",
    "list_tools",
    "dict_tools",
]
NEW_NAMES = [
    "value",
    "item",
    "entry",
    "record",
    "row",
    "node",
    "element",
    "key",
    "name",
    "label",
    "kind",
    "total",
    "count",
    "amount",
    "size",
    "width",
    "height",
    "length",
    "start",
    "stop",
    "begin",
    "end",
    "first",
    "last",
    "left",
    "right",
    "upper",
    "lower",
    "low",
    "high",
    "limit",
    "step",
    "index",
    "offset",
    "position",
    "pos",
    "current",
    "previous",
    "following",
    "result",
    "output",
    "answer",
    "found",
    "best",
    "worst",
    "score",
    "rank",
    "weight",
    "cost",
    "price",
    "rate",
    "ratio",
    "factor",
    "scale",
    "source",
    "target",
    "origin",
    "destination",
    "text",
    "line",
    "word",
    "char",
    "letter",
    "token",
    "symbol",
    "part",
    "piece",
    "chunk",
    "block",
    "group",
    "batch",
    "bucket",
    "slot",
    "cell",
    "point",
    "edge",
    "path",
    "route",
    "parent",
    "child",
    "owner",
    "member",
    "user",
    "account",
    "balance",
    "deposit",
    "credit",
    "debit",
    "number",
    "digit",
    "quotient",
    "remainder",
    "base",
    "power",
    "mean",
    "middle",
    "spread",
    "delta",
    "gap",
    "distance",
    "speed",
    "duration",
    "elapsed",
    "moment",
    "day",
    "week",
    "month",
    "year",
    "hour",
    "minute",
    "second",
    "date",
    "deadline",
    "status",
    "state",
    "phase",
    "level",
    "depth",
    "flag",
    "mode",
    "option",
    "setting",
    "default",
    "extra",
    "rest",
    "tail",
    "head",
    "body",
    "title",
    "header",
    "footer",
    "message",
    "reason",
    "error",
    "detail",
    "data",
    "payload",
    "packet",
    "frame",
    "buffer",
    "queue",
    "stack",
    "heap",
    "pool",
    "cache",
    "store",
    "table",
    "columns",
    "rows",
    "cells",
    "field",
    "fields",
    "pattern",
    "prefix",
    "suffix",
    "sep",
    "marker",
    "acc",
    "seen",
    "known",
    "missing",
    "pending",
    "done",
    "active",
    "open",
    "closed",
]


# Names that people use for the same thing.
ALIKE = [
    group.split()
    for group in (
        "value val v item element x entry",
        "values items elements xs data numbers nums entries",
        "result out output res answer ret",
        "total acc subtotal amount running grand_total",
        "i idx index pos position k j at",
        "n count num size amount length",
        "text s string source raw content",
        "line row record ln",
        "lines rows records",
        "word token term part piece",
        "words tokens terms parts pieces",
        "key name label field ident",
        "start begin first low lo lower left",
        "end stop last high hi upper right finish",
        "best top winner highest leader",
        "current cur now node active",
        "prev previous last_seen before",
        "seen visited known found",
        "queue pending todo frontier waiting",
        "stack opened nesting",
        "a left one first_item p",
        "b right other second_item q",
        "d mapping table lookup mp",
        "path route way trail",
        "cost price weight charge",
        "rate ratio factor share",
        "limit maximum max_size bound cap",
        "threshold cutoff minimum level",
        "groups buckets bins clusters",
        "group bucket bin_ cluster",
        "f func fn function callback",
        "c ch char letter symbol",
        "dist distance gap offset",
        "day date_ when moment",
        "owner user person member",
        "balance funds saldo credit",
        "remaining rest left_over remainder",
        "message msg reason detail",
    )
]


@dataclass
class Project:
    """Files by path; ``baseline`` is the run in which all tests pass."""

    name: str
    files: dict[str, str]
    baseline: Run
    faults: dict[str, Faults] = field(default_factory=dict)
    ground: dict[str, str] = field(default_factory=dict)
    """Extra knowledge: which source file defines a name."""

    @property
    def sources(self) -> list[str]:
        return [p for p in self.files if p.endswith(".py") and not is_test_file(p)]

    @property
    def tests(self) -> list[str]:
        return [p for p in self.files if is_test_file(p) and not p.endswith("conftest.py")]

    def faults_of(self, path: str) -> Faults:
        if path not in self.faults:
            self.faults[path] = Faults(self.files[path])
        return self.faults[path]


def checked(name: str, files: dict[str, str], runner: QuickTests) -> Project | None:
    """A project, if all of its tests pass here."""
    try:
        run = runner.run(files)
    except (Unsupported, SyntaxError, RecursionError):
        return None
    return Project(name, files, run) if run.ok else None


# names

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _bound_names(files: Mapping[str, str]) -> set[str]:
    """What the project itself names: functions, classes, parameters, variables, attributes."""
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
    """The same project under other names: identifiers, and often the modules' files."""
    files = dict(project.files)
    imported = {
        word
        for text in files.values()
        for line in text.split("\n")
        if line.startswith(("import ", "from "))
        for word in _WORD.findall(line)
    }
    modules = {p.rsplit("/", 1)[-1].removesuffix(".py") for p in project.sources}
    taken = {word for text in files.values() for word in _WORD.findall(text)}
    renames: dict[str, str] = {}
    share = rng.choice([0.0, 0.2, 0.5, 0.8])
    for name in sorted(_bound_names(files) - modules):
        if rng.random() > share or (name in imported and name in RESERVED):
            continue
        new = _new_name(rng, name)
        if new not in taken and new not in RESERVED:
            renames[name] = new
            taken.add(new)
    if rng.random() < 0.5:
        for module in sorted(modules - {"__init__", "__main__"}):
            new = rng.choice(MODULE_WORDS)
            if new not in taken and new not in RESERVED:
                renames[module] = new
                taken.add(new)
    swapped = {
        path: _WORD.sub(lambda m: renames.get(m[0], m[0]), text) for path, text in files.items()
    }
    moved = {_moved(path, renames): text for path, text in swapped.items()}
    return checked(project.name, moved, runner)


def _moved(path: str, renames: Mapping[str, str]) -> str:
    folder, slash, name = path.rpartition("/")
    stem = name.removesuffix(".py")
    if stem.startswith("test_") and stem[5:] in renames:
        name = f"test_{renames[stem[5:]]}.py"
    elif stem in renames and name.endswith(".py"):
        name = f"{renames[stem]}.py"
    return f"{folder}{slash}{name}"


def _new_name(rng: random.Random, name: str) -> str:
    """Another name in the same style: CamelCase, CONSTANT, one letter, snake_case."""
    for group in ALIKE:
        if name in group and rng.random() < 0.8:
            return rng.choice([other for other in group if other != name])
    words = rng.sample(NEW_NAMES, 2)
    private = "_" if name.startswith("_") else ""
    bare = name.lstrip("_")
    if bare.isupper():
        return private + "_".join(words[: 1 + ("_" in bare)]).upper()
    if bare[:1].isupper():
        return private + "".join(word.capitalize() for word in words)
    if len(bare) == 1:
        return private + rng.choice("abcdefghijklmnopqrstuvwxyz")
    return private + "_".join(words[: 1 + ("_" in bare or rng.random() < 0.3)])


# composition of recorded functions


def compose(
    records: Sequence[Mapping[str, Any]], rng: random.Random, runner: QuickTests
) -> Project | None:
    """One or two modules made of a few records of one package, with tests."""
    names: set[str] = set()
    chosen: list[Mapping[str, Any]] = []
    for record in records:
        public = record["name"].lstrip("_")
        if public not in names and public not in RESERVED and public:
            names.add(public)
            chosen.append(record)
    if not chosen:
        return None
    split = len(chosen) if len(chosen) < 4 or rng.random() < 0.7 else len(chosen) // 2
    parts = [part for part in (chosen[:split], chosen[split:]) if part]
    modules = rng.sample(MODULE_WORDS, len(parts))
    layout = rng.choice(["flat", "flat", "flat", "tests", "tests", "package", "src"])
    package = rng.choice(MODULE_WORDS)
    if package in modules:
        return None
    files: dict[str, str] = {}
    for module, part in zip(modules, parts, strict=True):
        text = _module(part, rng)
        match layout:
            case "flat":
                files[f"{module}.py"], place, home = text, "", module
            case "tests":
                files[f"{module}.py"], place, home = text, "tests/", module
            case "package":
                files[f"{package}/__init__.py"] = ""
                files[f"{package}/{module}.py"] = text
                place, home = "tests/", f"{package}.{module}"
            case _:
                files[f"src/{package}/__init__.py"] = ""
                files[f"src/{package}/{module}.py"] = text
                place, home = "tests/", f"{package}.{module}"
        files[f"{place}test_{module}.py"] = _tests(part, home, rng)
    return checked(f"{chosen[0]['package']}:{chosen[0]['name']}", files, runner)


def _module(part: Sequence[Mapping[str, Any]], rng: random.Random) -> str:
    imports = sorted({line for record in part for line in record["imports"]})
    pieces: list[str] = []
    docs = rng.choice(["none", "short", "short", "all"])
    for record in part:
        for need in record["needs"]:
            text = _public(_documented(need, docs), record["name"])
            if text not in pieces:
                pieces.append(text)
        pieces.append(_public(_documented(record["source"], docs), record["name"]))
    future = any("->" in piece or re.search(r"\w: [A-Z\w]", piece) for piece in pieces)
    head = ["from __future__ import annotations"] if future else []
    return (
        "\n\n\n".join([*(["\n".join(head + imports)] if head or imports else []), *pieces]) + "\n"
    )


def _public(text: str, name: str) -> str:
    bare = name.lstrip("_")
    return re.sub(rf"\b{re.escape(name)}\b", bare, text) if bare != name else text


def _documented(source: str, docs: str) -> str:
    """The source with its docstrings kept, cut to the first line, or taken out."""
    if docs == "all" and source.count("\n") < 25:
        return source
    lines = source.split("\n")
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return source
    for node in reversed(list(ast.walk(tree))):
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or len(node.body) < 2:
            continue
        first = node.body[0]
        if not (isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)):
            continue
        if not isinstance(first.value.value, str) or first.end_lineno is None:
            continue
        found = [line.strip() for line in first.value.value.split("\n") if line.strip()]
        indent = " " * first.col_offset
        short = found[0].replace("\\", "").replace('"', "'") if found else ""
        if docs == "none" or not short:
            replacement = []
        else:
            replacement = [f'{indent}"""{short}"""']
        lines[first.lineno - 1 : first.end_lineno] = replacement
    return "\n".join(lines)


def _tests(part: Sequence[Mapping[str, Any]], home: str, rng: random.Random) -> str:
    style = rng.choice(["plain", "plain", "each", "parametrize", "class", "unittest", "module"])
    shown = {record["name"]: _chosen_calls(record, rng) for record in part}
    names = [record["name"].lstrip("_") for record in part]
    prefix = ""
    if style == "module" and "." not in home:
        imports, prefix = f"import {home}", f"{home}."
    else:
        imports = f"from {home} import {', '.join(sorted(names))}"
        if len(imports) > 99:
            imports = f"from {home} import (\n    " + ",\n    ".join(sorted(names)) + ",\n)"
    raises = {r["name"]: r["raises"][:1] if rng.random() < 0.7 else [] for r in part}
    uses_pytest = style == "parametrize" or any(raises.values())
    blocks: list[str] = []
    for record in part:
        name = record["name"].lstrip("_")
        calls, errors = shown[record["name"]], raises[record["name"]]
        blocks.append(_TESTS[style](f"{prefix}{name}", name, calls, errors, rng))
    body = "\n\n\n".join(block for block in blocks if block)
    if style == "unittest":
        cases = "\n\n".join(blocks)
        head = f"import unittest\n\n{imports}"
        title = "".join(word.capitalize() for word in home.split(".")[-1].split("_"))
        tail = '\n\n\nif __name__ == "__main__":\n    unittest.main()' if rng.random() < 0.4 else ""
        return f"{head}\n\n\nclass {title}Test(unittest.TestCase):\n{cases}{tail}\n"
    head = f"import pytest\n\n{imports}" if uses_pytest else imports
    return f"{head}\n\n\n{body}\n"


def _chosen_calls(record: Mapping[str, Any], rng: random.Random) -> list[tuple[str, str]]:
    calls = [tuple(call) for call in record["calls"]]
    rng.shuffle(calls)
    return calls[: rng.randint(2, max(2, len(calls)))]


def _same(call: str, result: str) -> str:
    if result in ("True", "False", "None"):
        return f"{call} is {result}"
    if "." in result and result.replace(".", "").replace("-", "").isdigit():
        return f"{call} == {result}"
    return f"{call} == {result}"


Calls = Sequence[tuple[str, str]]


def _plain(call: str, name: str, calls: Calls, errors: Calls, rng: random.Random) -> str:
    lines = [f"def test_{name}():"]
    lines += [f"    assert {_same(f'{call}({args})', result)}" for args, result in calls]
    return "\n".join(lines) + _raising(call, name, errors)


def _each(call: str, name: str, calls: Calls, errors: Calls, rng: random.Random) -> str:
    endings = ["", "_other", "_more", "_again", "_second", "_third", "_last", "_extra"]
    if rng.random() < 0.5:
        endings = [f"_{n}" for n in range(1, 9)]
    blocks = []
    for ending, (args, result) in zip(endings, calls, strict=False):
        if rng.random() < 0.3:
            lines = [f"    result = {call}({args})", f"    assert {_same('result', result)}"]
        elif rng.random() < 0.2:
            lines = [f"    expected = {result}", f"    assert {call}({args}) == expected"]
        else:
            lines = [f"    assert {_same(f'{call}({args})', result)}"]
        blocks.append("\n".join([f"def test_{name}{ending}():", *lines]))
    return "\n\n\n".join(blocks) + _raising(call, name, errors)


def _parametrize(call: str, name: str, calls: Calls, errors: Calls, rng: random.Random) -> str:
    try:
        counts = {len(ast.parse(f"f({args})", mode="eval").body.args) for args, _ in calls}  # type: ignore[attr-defined]
    except SyntaxError:
        counts = set()
    if len(counts) != 1:
        return _plain(call, name, calls, errors, rng)
    count = counts.pop()
    names = ["value"] if count == 1 else ["a", "b", "c", "d"][:count]
    rows = [f"        ({args}, {result})," for args, result in calls]
    arguments = ", ".join(names)
    return (
        f'@pytest.mark.parametrize(\n    "{arguments}, expected",\n    [\n'
        + "\n".join(rows)
        + f"\n    ],\n)\ndef test_{name}({arguments}, expected):\n"
        f"    assert {call}({arguments}) == expected" + _raising(call, name, errors)
    )


def _class(call: str, name: str, calls: Calls, errors: Calls, rng: random.Random) -> str:
    title = "".join(word.capitalize() for word in name.split("_"))
    methods = [
        f"    def test_{ending}(self):\n        assert {_same(f'{call}({args})', result)}"
        for ending, (args, result) in zip(
            ["basic", "other", "more", "again", "edge", "last", "extra", "seven"],
            calls,
            strict=False,
        )
    ]
    return f"class Test{title}:\n" + "\n\n".join(methods) + _raising(call, name, errors)


def _unittest(call: str, name: str, calls: Calls, errors: Calls, rng: random.Random) -> str:
    lines = [f"    def test_{name}(self):"]
    for args, result in calls:
        if result in ("True", "False"):
            lines.append(f"        self.assert{result}({call}({args}))")
        else:
            lines.append(f"        self.assertEqual({call}({args}), {result})")
    for args, error in errors:
        lines += [f"        with self.assertRaises({error}):", f"            {call}({args})"]
    return "\n".join(lines)


def _raising(call: str, name: str, errors: Calls) -> str:
    return "".join(
        f"\n\n\ndef test_{name}_raises():\n    with pytest.raises({error}):\n        {call}({args})"
        for args, error in errors
    )


_TESTS = {
    "plain": _plain,
    "module": _plain,
    "each": _each,
    "parametrize": _parametrize,
    "class": _class,
    "unittest": _unittest,
}


def definitions(files: Mapping[str, str], paths: Iterable[str]) -> dict[str, tuple[str, int, str]]:
    """Name → (path, line, kind) of every function, method, class and module constant."""
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
