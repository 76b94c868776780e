"""Hand-written mistakes: their notation, and that tests notice them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from training import repairs
from training.mistakes import Mistake, load_mistakes, parse, problem
from training.quick_tests import QuickTests
from training.seeds import Seed, load_seeds
from training.trajectories import Unusable

SEED = Seed(
    "pets",
    {
        "pets.py": "def names(pets):\n    found = []\n    for pet in pets:\n        if pet:\n"
        "            found.append(pet)\n    return found\n",
        "test_pets.py": "from pets import names\n\n\ndef test_names():\n"
        "    assert names(['a', '', 'b']) == ['a', 'b']\n",
    },
)
TEXT = """\
##### project: pets
##### file: pets.py
-            found.append(pet)
+            found.extend(pet * 2)

-        if pet:
-            found.append(pet)
+        found.append(pet)

-    found = []
##### file: other.py
-a
+b
"""


def test_mistakes_are_groups_of_right_and_wrong_lines() -> None:
    append = "            found.append(pet)"
    assert list(parse(TEXT)) == [
        (3, Mistake("pets", "pets.py", append, "            found.extend(pet * 2)")),
        (6, Mistake("pets", "pets.py", f"        if pet:\n{append}", append[4:])),
        (10, Mistake("pets", "pets.py", "    found = []", "")),
        (12, Mistake("pets", "other.py", "a", "b")),
    ]


def test_a_line_outside_of_a_mistake_is_named() -> None:
    with pytest.raises(ValueError, match="line 3: neither"):
        list(parse(TEXT.replace("-            found.append(pet)\n+", "+", 1)))


def test_a_mistake_replaces_whole_lines() -> None:
    mistakes = [mistake for _, mistake in parse(TEXT)]
    assert "extend(pet * 2)\n    return" in mistakes[0].made(SEED.files)["pets.py"]
    assert "found = []\n" not in mistakes[2].made(SEED.files)["pets.py"]
    with pytest.raises(ValueError, match="no file other"):
        mistakes[3].made(SEED.files)


def test_why_a_mistake_cannot_be_used(tmp_path: Path) -> None:
    runner, seeds = QuickTests(tmp_path), {"pets": SEED}
    returned = "    return found"
    told = {
        "none": Mistake("pets", "pets.py", returned, "    return pets"),
        "there is no project cats": Mistake("cats", "pets.py", returned, ""),
        "it is in a test": Mistake("pets", "test_pets.py", "", ""),
        "the right lines occur 0 times": Mistake("pets", "pets.py", "found", ""),
        "the tests still pass": Mistake("pets", "pets.py", returned, "    return list(found)"),
    }
    assert {why: problem(mistake, seeds, runner) or "none" for why, mistake in told.items()} == {
        why: why for why in told
    }


def test_those_of_the_repository_can_be_used(tmp_path: Path) -> None:
    seeds = {seed.name: seed for seed in load_seeds()}
    known = load_mistakes()
    every = [mistake for mistakes in known.values() for mistake in mistakes]
    assert len(every) > 2500 and len(set(every)) == len(every)
    assert set(known) <= set(seeds)
    for mistake in every:
        assert mistake.made(seeds[mistake.project].files)
    runner = QuickTests(tmp_path)
    some = random.Random(0).sample(every, 40)
    assert {m: why for m in some if (why := problem(m, seeds, runner))} == {}


def test_a_repair_of_a_mistake_restores_the_file(tmp_path: Path) -> None:
    [(_, mistake)] = list(parse(TEXT))[1:2]
    runner = QuickTests(tmp_path)
    case = repairs.mistaken("pets", SEED.files, mistake.made(SEED.files), runner)
    talk = repairs.one_fault(case.project, random.Random(1), runner, case=case)
    assert talk.workspace.files == SEED.files
    with pytest.raises(Unusable, match="unnoticed"):
        longer = {**SEED.files, "pets.py": SEED.files["pets.py"] + "\n"}
        repairs.mistaken("pets", SEED.files, longer, runner)
