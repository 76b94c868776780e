"""docs/parity.md names a test for every part of the three systems, and those tests exist."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "parity.md"
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


@functools.cache
def functions_of(path: str) -> frozenset[str]:
    file = ROOT / path
    if not file.exists():
        return frozenset()
    tree = ast.parse(file.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, kinds))


def rows() -> Iterator[str]:
    """The rows of all tables, without headers."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        head = following.startswith("|---")
        if line.startswith("|") and not line.startswith("|---") and not head:
            yield line


def test_every_test_that_is_named_exists() -> None:
    missing = [
        f"{path}::{name}"
        for path, name in NAMED.findall(PAGE.read_text(encoding="utf-8"))
        if name not in functions_of(path)
    ]
    assert missing == []


def test_every_row_names_a_test() -> None:
    found = list(rows())
    assert len(found) >= 30
    assert [row for row in found if not NAMED.search(row)] == []


def test_the_three_systems_have_a_section_each() -> None:
    heads = re.findall(r"^## ([ABC])\. (\w+)", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert heads == [("A", "nanochat"), ("B", "dodo"), ("C", "QitOS")]


def test_each_row_of_the_kernel_has_a_test_of_its_own() -> None:
    """Every row of sections B and C, the kernel's behaviour, names exactly one test."""
    text = PAGE.read_text(encoding="utf-8")
    kernel = set(text[text.index("## B.") :].splitlines())
    named = [NAMED.findall(row) for row in rows() if row in kernel]
    assert len(named) >= 43 and all(len(tests) == 1 for tests in named)
    tests = [test for row in named for test in row]
    assert [test for test in tests if tests.count(test) > 1] == []
