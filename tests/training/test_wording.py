"""Phrasings: expanding lines with alternatives, and keeping held-out phrases from training."""

from __future__ import annotations

import random
import re

import pytest

from training import beyond, wording
from training.sums import arithmetic

LISTS = {**wording.QUESTIONS, **wording.TALK}
REPAIRS = {**wording.REPAIRS, **wording.lists("complaints.txt")}
LEFT_OVER = re.compile(r"[\[\]|<>]|  |\{(?!(?:f|kind|name|words|path|n|e|d|a|b|c|p|w|s|x|y)\})")


def drawn(name: str, held: bool, count: int = 150) -> set[str]:
    rng = random.Random(name)
    return {wording.chosen(rng, {**LISTS, **REPAIRS}[name], held) for _ in range(count)}


@pytest.mark.parametrize("name", sorted(LISTS))
def test_alternatives_are_all_chosen(name: str) -> None:
    for text in drawn(name, held=False) | drawn(name, held=True):
        text = text.replace("wc -l <", "wc -l").replace("[{w}]", "{w}")
        assert text and not LEFT_OVER.search(text), text


@pytest.mark.parametrize("name", sorted({**LISTS, **REPAIRS}))
def test_training_says_nothing_that_is_held(name: str) -> None:
    lines = {**LISTS, **REPAIRS}[name]
    assert any(map(wording.is_held, lines)), "no line is kept for the evaluation"
    train, held = ({wording.bare(text) for text in drawn(name, side)} for side in (False, True))
    assert not train & held
    assert len(train) > 40


def test_training_asks_for_nothing_beyond_it_that_is_held() -> None:
    rng = random.Random(4)
    train, held = (
        {wording.bare(beyond.request(rng, side)[0]) for _ in range(3000)} for side in (False, True)
    )
    assert not train & held


def test_capitals_and_punctuation_do_not_make_another_phrase() -> None:
    held = next(
        f"count all {word}" for word in map(str, range(99)) if wording.is_held(f"count all {word}")
    )
    lines = [held, f"[Please, |][{held.upper()}!|say it]"]
    assert not wording.is_held(lines[1])
    rng = random.Random(1)
    said = {wording.chosen(rng, lines) for _ in range(60)}
    assert said == {"say it", "Please, say it", f"Please, {held.upper()}!"}


def test_lists_are_read_by_their_headings() -> None:
    assert set(LISTS["where"]) >= {"where is {f} defined?", "{f} - where?"}  # the oldest lines


def test_answers_have_the_number() -> None:
    rng = random.Random(5)
    for _ in range(200):
        talk = arithmetic(rng)
        assert re.search(r"\d", talk.messages[-1].text)
        assert "{" not in talk.messages[0].text
