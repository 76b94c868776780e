"""What an edit does to a program, told without running it."""

from __future__ import annotations

import pytest

from agentcli.agent.programs import MAX_PARSED, breaks, mentioned, program

SOURCE = '"""Sums."""\n\n\ndef add(a, b):\n    """Add."""\n    return a + b\n'


@pytest.mark.parametrize(
    "other",
    [
        SOURCE.replace("Add.", "Add two numbers."),
        SOURCE.replace("Sums.", "x"),
        SOURCE.replace('    """Add."""\n', ""),
        SOURCE.replace("a + b", "(a+b)  # the sum"),
        SOURCE.replace("\n", "\r\n"),
    ],
)
def test_files_that_run_equally(other: str) -> None:
    assert other != SOURCE and program("a.py", other) == program("a.py", SOURCE)
    assert program("a.txt", other) != program("a.txt", SOURCE)


@pytest.mark.parametrize(
    "other",
    [
        SOURCE.replace("a + b", "b + a"),
        SOURCE.replace("(a, b)", "(a: int, b)"),  # a decorator may look at annotations
        SOURCE + "\n'text'\n",
        SOURCE.replace("return a + b", "pass"),
    ],
)
def test_files_that_may_run_differently(other: str) -> None:
    assert program("a.py", other) != program("a.py", SOURCE)


def test_a_program_nested_too_deeply_is_its_text() -> None:
    text = "x = " + " + ".join(["a"] * 2000) + "\n"
    assert program("a.py", text) == text


def test_a_file_that_cannot_be_parsed_is_its_text() -> None:
    for text in ("def (", "\0", "(" * 5000, "x = 1\n" * MAX_PARSED):
        assert program("a.py", text) == text


def test_an_edit_that_breaks_a_file() -> None:
    assert breaks("a.py", SOURCE, SOURCE.replace("a + b", "a +"))
    assert breaks("a.py", SOURCE, SOURCE.replace("a + b", "a + c"))
    assert not breaks("a.py", SOURCE, SOURCE.replace("a + b", "a - b"))
    assert not breaks("a.txt", SOURCE, "def (")
    assert breaks("a.py", SOURCE, SOURCE.replace("(a, b)", "(a, a)"))  # no such function
    two = SOURCE + "\n\ndef one():\n    c = 1\n    return c\n"
    assert breaks("a.py", two, two.replace("a + b", "a + c"))  # bound, but not here
    broken = SOURCE.replace("a + b", "a +")
    assert not breaks("a.py", broken, broken + "1\n")  # it was broken before
    unbound = SOURCE.replace("a + b", "a + c")
    assert not breaks("a.py", unbound, unbound.replace("add", "sum_of"))


def test_an_edit_that_takes_away_what_is_used() -> None:
    source = SOURCE.replace("add", "plus")
    renamed = source.replace("plus", "sum_of")
    assert not breaks("a.py", source, renamed)  # nothing mentions either name
    test = "from a import plus\n\n\ndef test_it():\n    assert plus(1, 2) == 3\n"
    assert breaks("a.py", source, renamed, mentioned("test_a.py", test))
    assert not breaks("a.py", renamed, source, mentioned("test_a.py", test))
    used = source + "\n\nclass Sum:\n    def every(self):\n        return plus(1, 2)\n"
    used += "\n\ndef total(sums):\n    return sums.every()\n"
    assert breaks("a.py", used, used.replace("def every", "def some"))
    getter = used.replace("every", "get")
    assert not breaks("a.py", getter, getter.replace("def get", "def some"))  # or a dict's?
    assert mentioned("a.py", "def (") == frozenset()
