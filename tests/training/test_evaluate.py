"""The report of the evaluation, and the baseline that only uses counts."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pytest

from training.baselines import variants
from training.evaluate import Score, known, says, table, wilson


def score(name: str, by: str, solved: bool, tries: int) -> Score:
    return Score(name, "repair", solved, tries == 1, "final", 5, 20.0, "", tries, by, solved)


def test_intervals_are_wilsons() -> None:
    # Newcombe 1998, table I, method 3.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-4)
    assert wilson(0, 0) == (0.0, 1.0)


def test_each_has_its_line_and_unsolved_tasks_cost_tries_too() -> None:
    scores = [
        score("a", "model", True, 1),
        score("b", "model", True, 3),
        score("a", "prior", False, 30),
        score("b", "prior", True, 12),
    ]
    model, prior = (line.split(" | ") for line in table(scores).splitlines()[2:])
    assert model[1:3] == ["model", "2"] and prior[1:3] == ["prior", "2"]
    assert model[3].startswith("100%") and prior[3].startswith("50%")
    assert (model[5], prior[5]) == ("2.0", "42.0")
    assert (model[6], prior[6]) == ("2 of 2", "1 of 1")


def test_an_interrupted_evaluation_is_resumed(tmp_path: Path) -> None:
    out = tmp_path / "scores.jsonl"
    assert known(out) == []
    scores = [score("a", "model", True, 1), score("a", "prior", False, 30)]
    out.write_text("".join(json.dumps(asdict(one)) + "\n" for one in scores))
    assert [(one.name, one.by) for one in known(out)] == [("a", "model"), ("a", "prior")]


def test_known_changes_are_made_wherever_they_fit() -> None:
    changes = Counter({("<", "<="): 3, ("len", "max"): 1, ("a b", ""): 1})
    found = variants("if len(a) < len(b):", changes)
    assert sorted(found, key=lambda one: (-one[1], one[0])) == [
        ("if len(a) <= len(b):", 3),
        ("if len(a) < max(b):", 1),
        ("if max(a) < len(b):", 1),
    ]


@pytest.mark.parametrize(
    ("answer", "fact", "said"),
    [
        ("There are 80 tests; all pass.", "0", False),
        ("That is 5.8.", "5", False),
        ("That is 15.8.", "5.8", False),
        ("That is 5821.8.", "5821.8", True),
        ("Line 48 is `def f(a):`.", "def f(a):", True),
        ("It is in Yahtzee.py, line 55.", "yahtzee.py", True),
        ("There is no such function.", "no", True),
        ("I do not know.", "no", False),
    ],
)
def test_a_fact_stands_by_itself(answer: str, fact: str, said: bool) -> None:
    assert says(answer, fact) is said
