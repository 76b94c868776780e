"""Composes projects of real functions with recorded behaviour (functions.py).

Their tests are in one of several styles.
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from training.names import MODULE_WORDS, RESERVED
from training.projects import Project, checked
from training.quick_tests import QuickTests


def compose(
    records: Sequence[Mapping[str, Any]], rng: random.Random, runner: QuickTests
) -> Project | None:
    """Compose one or two modules from a few records of one package, with tests."""
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
    """The source with its docstrings kept, cut to the first line, or removed."""
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
        kept = docs != "none" and short
        lines[first.lineno - 1 : first.end_lineno] = [f'{indent}"""{short}"""'] if kept else []
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
