"""Injected faults change what they claim, and their repair restores the file."""

from __future__ import annotations

import ast
import random

import pytest

from training.fault_lines import line_edits
from training.fault_parts import part_edits
from training.faults import HELD_OUT_KINDS, Faults, changed_lines, repair_edit
from training.seeds import load_seeds

SOURCE = '''"""A queue."""
from collections import deque


class Queue:
    def __init__(self, limit=10, strict=False):
        self.items = deque()
        self.limit = limit
        self.strict = strict

    def push(self, item, front=False):
        if item is None:
            raise ValueError("nothing to push")
        if len(self.items) >= self.limit and not self.strict:
            return False
        if front:
            self.items.appendleft(item)
        else:
            self.items.append(item)
        return True

    def take(self, count):
        taken = []
        for index in range(count):
            if not self.items:
                break
            taken.append(self.items.popleft())
        return taken


def describe(queue, sep=", "):
    total = 0
    for item in queue.items:
        total += len(str(item))
    names = sorted([str(item).strip() for item in queue.items], key=len, reverse=True)
    for left, right in zip(names, names[1:]):
        total = total - 1 if left < right else total
    return sep.join(names[:3]), f"{total} of {queue.limit}"
'''


def test_many_kinds_are_found() -> None:
    kinds = Faults(SOURCE).kinds
    assert len(kinds) >= 30
    assert kinds.keys() >= HELD_OUT_KINDS


@pytest.mark.parametrize("seed", range(60))
def test_the_repair_restores_the_file(seed: int) -> None:
    fault = Faults(SOURCE).draw(random.Random(seed), without=())
    assert fault is not None
    assert fault.source != SOURCE
    start, before, after = changed_lines(SOURCE, fault.source)
    assert (fault.line, fault.before, fault.after) == (start + 1, tuple(before), tuple(after))
    edit = repair_edit(fault.source, SOURCE)
    assert edit is not None
    old, new = edit
    assert fault.source.count(old) == 1
    assert fault.source.replace(old, new) == SOURCE
    # whole lines
    at = fault.source.index(old)
    assert at == 0 or fault.source[at - 1] == "\n"
    assert fault.source[at + len(old) : at + len(old) + 1] in ("", "\n")


def test_only_syntax_faults_break_the_syntax() -> None:
    faults = Faults(SOURCE)
    rng = random.Random(1)
    for _ in range(150):
        fault = faults.draw(rng, without=("missing_colon", "missing_bracket", "missing_quote"))
        assert fault is not None
        ast.parse(fault.source)


def test_draws_within_lines() -> None:
    faults = Faults(SOURCE)
    for seed in range(20):
        fault = faults.draw(random.Random(seed), lines=(22, 28))
        assert fault is not None
        assert 21 <= fault.line <= 28


def test_held_out_kinds_are_not_drawn_by_default() -> None:
    faults = Faults(SOURCE)
    rng = random.Random(3)
    drawn = {fault.kind for _ in range(300) if (fault := faults.draw(rng))}
    assert not drawn & HELD_OUT_KINDS


PARTS = """
class Account:
    def close(self, order, rates, name=None):
        key = name if name is not None else order.name.strip()
        order.total = max(0, order.price * (order.count + 1))
        self.paid = rates.get(key, 0)
        self.paid = order.total
        for rate in rates[1:]:
            if rate is None:
                break
            log(rate)
        return self.paid
"""


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        ("dropped_part", "order.name.strip()", "order.name"),
        ("dropped_part", "max(0, order.price * (order.count + 1))", "0"),
        ("dropped_part", "rates[1:]", "rates"),
        ("missing_parens", "(order.count + 1)", "order.count + 1"),
        ("wrong_member", "order.count", "order.name"),
        ("none_check", "rate is None", "not rate"),
        (
            "none_check",
            "name if name is not None else order.name.strip()",
            "name or order.name.strip()",
        ),
        ("wrong_lookup", "rates.get(key, 0)", "rates[key]"),
        ("missing_return", "return self.paid", "self.paid"),
        ("deleted_line", "            log(rate)\n", ""),
    ],
)
def test_faults_of_parts(kind: str, right: str, wrong: str) -> None:
    tree = ast.parse(PARTS)
    found = {
        PARTS[: edit.start] + edit.text + PARTS[edit.end :]
        for edit in (*part_edits(PARTS, tree), *line_edits(PARTS, tree))
        if edit.kind == kind
    }
    assert PARTS.replace(right, wrong, 1) in found


def test_something_is_added_around_a_part() -> None:
    tree = ast.parse(PARTS)
    added = [edit for edit in part_edits(PARTS, tree) if edit.kind == "added_part"]
    assert added
    for edit in added:
        assert PARTS[edit.start : edit.end] in edit.text
        ast.parse(PARTS[: edit.start] + edit.text + PARTS[edit.end :])


def test_a_line_that_is_not_unique_takes_a_neighbour() -> None:
    right = "def f():\n    return 1\n\n\ndef g():\n    return 2\n"
    wrong = right.replace("return 2", "return 1")
    assert repair_edit(wrong, right) == ("def g():\n    return 1", "def g():\n    return 2")


def test_a_missing_line_is_put_back_beside_its_neighbour() -> None:
    assert repair_edit("a = 1\nc = 3\n", "a = 1\nb = 2\nc = 3\n") == ("c = 3", "b = 2\nc = 3")


def test_all_seeds_offer_faults() -> None:
    rng = random.Random(5)
    for seed in load_seeds()[:20]:
        for path, text in seed.files.items():
            if path.endswith(".py") and "test" not in path and len(text) > 200:
                assert Faults(text).draw(rng) is not None, (seed.name, path)
