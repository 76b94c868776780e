"""Puts a fault into Python source, and finds the edit that removes it.

A fault is a span of the text replaced by other text. ``Finder`` (fault_kinds.py), ``line_edits``
and ``part_edits`` list the spans that a file offers, by kind; ``Faults`` draws from them. Kinds in
``HELD_OUT_KINDS`` never occur in training: they are only for the evaluation.
"""

from __future__ import annotations

import ast
import random
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from itertools import chain

from training.fault_kinds import SYNTAX_KINDS, Edit, Finder
from training.fault_lines import line_edits
from training.fault_parts import part_edits

HELD_OUT_KINDS = frozenset({"break_continue", "wrong_unpack", "missing_fprefix", "missing_call"})

# The weight with which a possible kind is drawn; 1 if not listed.
WEIGHTS = {
    "wrong_var": 3.5,
    "compare_op": 2.5,
    "arith_op": 2.5,
    "off_by_one": 2.5,
    "wrong_attr": 2.0,
    "slice_bounds": 2.0,
    "wrong_number": 1.5,
    "wrong_method": 2.0,
    "wrong_function": 2.0,
    "return_wrong": 1.5,
    "deleted_line": 1.5,
    "wrong_string": 1.5,
    "wrong_key": 1.2,
    "extra_not": 0.8,
    "wrong_exception": 0.7,
    "missing_colon": 0.4,
    "missing_bracket": 0.4,
    "missing_quote": 0.25,
    "missing_comma": 0.4,
    "typo_name": 1.2,
    "wrong_import": 0.6,
    "extra_line": 0.4,
    "wrong_type": 0.5,
    "dropped_part": 3.5,
    "added_part": 2.5,
    "wrong_value": 2.0,
    "wrong_member": 1.5,
    "wrong_target": 0.6,
    "missing_parens": 0.7,
    "none_check": 0.8,
    "wrong_lookup": 0.7,
    "missing_return": 0.6,
    "swapped_lines": 0.7,
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault in one file: ``line`` counts from 1 in the faulty text.

    ``before`` are the right lines, ``after`` the faulty ones in their place.
    """

    kind: str
    line: int
    before: tuple[str, ...]
    after: tuple[str, ...]
    source: str
    """The whole faulty text."""


class Faults:
    """All faults that a source offers; cheap to draw from many times."""

    def __init__(self, source: str) -> None:
        self.source = source
        tree = ast.parse(source)
        self._by_kind: dict[str, list[Edit]] = {}
        finder = Finder(source, tree)
        found = chain(finder.edits(), line_edits(source, tree), part_edits(source, tree))
        for edit in found:
            self._by_kind.setdefault(edit.kind, []).append(edit)

    @property
    def kinds(self) -> dict[str, int]:
        """The kinds that are possible here, with the number of places."""
        return {kind: len(edits) for kind, edits in self._by_kind.items()}

    def draw(
        self,
        rng: random.Random,
        *,
        only: Collection[str] | None = None,
        without: Collection[str] = HELD_OUT_KINDS,
        lines: tuple[int, int] | None = None,
    ) -> Fault | None:
        """Draw a random fault, within ``lines`` (from 1, inclusive) if given."""
        choice = self._by_kind
        if lines is not None:
            first, last = lines
            starts = _line_starts(self.source)
            low = starts[first - 1]
            high = starts[last] if last < len(starts) else len(self.source)
            choice = {
                kind: inside
                for kind, edits in self._by_kind.items()
                if (inside := [e for e in edits if low <= e.start and e.end <= high])
            }
        kinds = [k for k in choice if k not in without and (only is None or k in only)]
        for _ in range(6):
            if not kinds:
                return None
            weights = [WEIGHTS.get(k, 1.0) * min(1.0, 0.55 + len(choice[k]) / 6) for k in kinds]
            kind = rng.choices(kinds, weights)[0]
            fault = make_fault(self.source, rng.choice(choice[kind]))
            if fault is not None:
                return fault
        return None


def make_fault(source: str, edit: Edit) -> Fault | None:
    """Apply an edit to the source; None if it changes nothing or breaks what it should not."""
    faulty = source[: edit.start] + edit.text + source[edit.end :]
    if faulty == source:
        return None
    if edit.kind not in SYNTAX_KINDS and not _compiles(faulty):
        return None
    if edit.kind in SYNTAX_KINDS and _compiles(faulty):
        return None
    start, before, after = changed_lines(source, faulty)
    return Fault(edit.kind, start + 1, tuple(before), tuple(after), faulty)


def changed_lines(old: str, new: str) -> tuple[int, list[str], list[str]]:
    """(index of the first line that differs, old lines, new lines) without their common ends."""
    a, b = old.split("\n"), new.split("\n")
    start = 0
    while start < min(len(a), len(b)) and a[start] == b[start]:
        start += 1
    end = 0
    while end < min(len(a), len(b)) - start and a[-1 - end] == b[-1 - end]:
        end += 1
    return start, a[start : len(a) - end], b[start : len(b) - end]


def repair_edit(faulty: str, right: str) -> tuple[str, str] | None:
    """(old, new) for search_replace: the fewest whole lines of ``faulty`` that occur just once.

    None if the texts are equal or no such lines exist.
    """
    start, old, new = changed_lines(faulty, right)
    lines = faulty.split("\n")
    end = start + len(old)
    if not old and not new:
        return None
    # A single line must not be blank, and an insertion needs a line as its anchor.
    before, after = start, end
    while True:
        text = "\n".join(lines[before:after])
        if text.strip() and faulty.count(text) == 1:
            head, tail = lines[before:start], lines[end:after]
            return text, "\n".join([*head, *new, *tail])
        if after - before > len(old) + 8 or (before == 0 and after == len(lines)):
            return None
        grow_down = after < len(lines) and lines[after].strip() and (after - end <= start - before)
        if grow_down or before == 0:
            after = min(len(lines), after + 1)
        else:
            before -= 1


def _line_starts(text: str) -> list[int]:
    starts = [0]
    for line in text.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    return starts


def _compiles(source: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(source, "<faulty>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
