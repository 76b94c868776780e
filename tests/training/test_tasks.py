"""Trajectories are consistent: calls have results, edits apply, and the end matches the tests."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from agentcli.llm.nanochat_format import DECLINE_TOOL, NanochatFormat
from agentcli.messages import Role, validate_history
from training import questions, repairs, sums, wording
from training.candidates import candidates
from training.compose import compose
from training.denoise import denoise, excerpts
from training.functions import record
from training.projects import Project, checked, vary
from training.quick_session import Run
from training.quick_tests import QuickTests
from training.seeds import load_seeds
from training.tasks import KINDS, MIXES, Sources, Worker
from training.tokenizer import load
from training.trajectories import MAX_TOKENS, Conversation, Unusable, Workspace

FORM = NanochatFormat(load())


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> QuickTests:
    return QuickTests(tmp_path_factory.mktemp("quick"))


@pytest.fixture(scope="module")
def projects(runner: QuickTests) -> list[Project]:
    found = [checked(seed.name, seed.files, runner) for seed in load_seeds("train")[:12]]
    return [project for project in found if project is not None]


def sound(talk: Conversation) -> None:
    if talk.messages[-1].calls:
        assert talk.messages[-1].calls[0].name == DECLINE_TOOL
        validate_history(talk.messages[:-1])
    else:
        validate_history(talk.messages)
        assert talk.messages[-1].role is Role.ASSISTANT
    for message in talk.messages:
        for call in message.calls:
            assert isinstance(json.loads(call.arguments), dict)
        assert message.role is not Role.TOOL or not message.result.content.startswith("error")
    tokens, mask = talk.tokens(FORM)
    assert len(tokens) == len(mask) <= MAX_TOKENS
    assert max(tokens) < 8192
    assert sum(mask) > 5


def made(maker: object, count: int = 12) -> list[Conversation]:
    talks = []
    for _ in range(count * 6):
        try:
            talks.append(maker())  # type: ignore[operator]
        except Unusable:
            continue
        if len(talks) == count:
            break
    assert len(talks) == count
    return talks


@pytest.mark.parametrize("kind", [repairs.one_fault, repairs.two_faults, repairs.rename])
def test_changes_end_with_passing_tests(
    kind: object, projects: list[Project], runner: QuickTests
) -> None:
    rng = random.Random(1)
    for talk in made(lambda: kind(rng.choice(projects), rng, runner)):  # type: ignore[operator]
        sound(talk)
        assert talk.workspace.test_run().ok
        names = [call.name for message in talk.messages for call in message.calls]
        assert names[-1] == "run_tests" and "search_replace" in names


@pytest.mark.parametrize("turns", [1, 2])
def test_an_opening_ends_with_a_turn_of_the_model(
    projects: list[Project], runner: QuickTests, turns: int
) -> None:
    rng = random.Random(3)
    for whole in made(lambda: questions.question(rng.choice(projects), rng, runner)):
        opening = whole.opening(turns)
        said = [Role.USER, Role.ASSISTANT, Role.TOOL, Role.ASSISTANT][: 2 * turns]
        assert [message.role for message in opening.messages] == said
        tokens, mask = opening.tokens(FORM)
        whole_tokens, whole_mask = whole.tokens(FORM)
        assert tokens == whole_tokens[: len(tokens)] and mask == whole_mask[: len(mask)]
        assert mask[-1] > 0  # the end of the turn is learnt too
        cut, cut_mask = whole.opening(turns, learnt=4).tokens(FORM)
        assert cut == tokens[: len(cut)] and sum(map(bool, cut_mask)) == 4 and cut_mask[-1]


def test_every_mix_is_of_documents_that_can_be_made(tmp_path: Path) -> None:
    worker = Worker(Sources(tmp_path, 0, held=False), 1, tmp_path)
    assert set(worker.makers) == set(KINDS)
    assert all(sum(mix.values()) == pytest.approx(1.0) for mix in MIXES.values())


def test_questions(projects: list[Project], runner: QuickTests) -> None:
    rng = random.Random(2)
    for talk in made(lambda: questions.question(rng.choice(projects), rng, runner), 40):
        sound(talk)


def test_a_default_that_grep_cannot_show_is_not_asked_for(runner: QuickTests) -> None:
    code = "class A:\n    def __init__(\n        self, size=3\n    ):\n        self.size = size\n"
    project = Project("p", {"a.py": code}, Run())
    talk = Conversation(Workspace(project.files, runner))
    with pytest.raises(Unusable, match="one line"):
        questions._default(talk, project, random.Random(1), False)


@pytest.mark.parametrize("ask", [questions._where, questions._constant])
def test_an_answer_about_a_constant_has_its_value_and_its_place(
    runner: QuickTests, ask: Callable[..., None]
) -> None:
    project = Project("p", {"a.py": "\nLIMIT = 30  # seconds\n"}, Run())
    talk = Conversation(Workspace(project.files, runner))
    ask(talk, project, random.Random(1), False)
    answer = talk.messages[-1].text
    assert "30" in answer and "seconds" not in answer and "a.py, line 2" in answer


@pytest.mark.parametrize(
    ("ask", "answers"),
    [
        (questions._classes, {"a.py defines `Box`, `Lid`: 2 classes."}),
        (questions._methods, {"`Box` has `empty`, `fill`: 2 methods.", "`Lid` has no methods."}),
        (
            questions._parameters,
            {
                "`fill` takes `amount`, `*more`, `unit`: 3 parameters (a.py, line 7).",
                "`empty` takes no parameters (a.py, line 4).",
            },
        ),
    ],
)
def test_answers_about_what_a_file_defines(
    runner: QuickTests, ask: Callable[..., None], answers: set[str]
) -> None:
    code = """class Box:
    # a class of its own

    def empty(self):
        return 0

    def fill(self, amount: int, *more: int, unit: str = "l") -> int:
        return amount


class Lid:
    pass
"""
    project = Project("p", {"a.py": code}, Run())
    said = set()
    for seed in range(12):
        talk = Conversation(Workspace(project.files, runner))
        ask(talk, project, random.Random(seed), False)
        said.add(talk.messages[-1].text)
    assert said == answers


def test_a_constant_asked_for_in_words_is_looked_up_by_its_name(runner: QuickTests) -> None:
    project = Project("p", {"a.py": "VAT_PERCENT = 19\n"}, Run())
    asked = set()
    for seed in range(40):
        talk = Conversation(Workspace(project.files, runner))
        questions._constant(talk, project, random.Random(seed), False)
        question, call = talk.messages[0].text, talk.messages[1].calls[0]
        assert "VAT_PERCENT =" in call.arguments and "19" in talk.messages[-1].text
        asked |= {"VAT_PERCENT" in question} if "vat percent" in question.lower() else set()
    assert asked == {True, False}  # beside the name, and in its place


def test_words_are_counted_in_the_sentence_as_it_was_typed() -> None:
    for seed in range(20):
        talk = Conversation(Workspace({}))
        sums.count_words(talk, random.Random(seed))
        asked, call = talk.messages[0].text, talk.messages[1].calls[0]
        sentence = json.loads(call.arguments)["expression"].split("'")[1]
        assert sentence in asked
        assert re.search(rf"\b{len(sentence.split())}\b", talk.messages[-1].text)


def test_without_a_repository(projects: list[Project]) -> None:
    rng = random.Random(3)
    for _ in range(20):
        sound(sums.arithmetic(rng))
        sound(questions.small_talk(rng))
        sound(questions.decline(rng, projects[0]))


def test_varied_projects_still_pass(projects: list[Project], runner: QuickTests) -> None:
    rng = random.Random(4)
    varied = [vary(project, rng, runner) for project in projects]
    assert sum(project is not None and project.baseline.ok for project in varied) > 6


CODE = '''import re


def shout(text):
    """Upper case words, and no more than one blank between them."""
    words = re.split(r"\\s+", text.strip())
    return " ".join(word.upper() for word in words)


def middle(values):
    ordered = sorted(values)
    if not ordered:
        raise ValueError("empty")
    return ordered[len(ordered) // 2]


def load(path):
    with open(path) as file:
        return file.read()
'''


def test_functions_are_recorded_and_composed(runner: QuickTests) -> None:
    rng = random.Random(5)
    found = list(candidates(CODE))
    assert [candidate.name for candidate in found] == ["shout", "middle"]
    records = [{"package": "x", **(record(candidate, rng) or {})} for candidate in found]
    assert all(len(item["calls"]) >= 3 for item in records)
    projects = [compose(records, rng, runner) for _ in range(15)]
    good = [project for project in projects if project is not None]
    assert len(good) > 8
    for talk in made(lambda: repairs.one_fault(rng.choice(good), rng, runner), 5):
        sound(talk)


def test_denoising_restores_the_source() -> None:
    rng = random.Random(6)
    (piece,) = excerpts(CODE * 2, rng)
    for talk in made(lambda: denoise("a/b.py", piece, rng), 15):
        sound(talk)
        assert talk.workspace.files == {"a/b.py": piece}


def test_held_out_wordings_are_apart() -> None:
    train, held = (
        wording.phrases(wording.REPAIRS["fix"]),
        wording.phrases(wording.REPAIRS["fix"], held=True),
    )
    assert not set(train) & set(held)
    assert 3 <= len(held) < len(train)
    assert all("{output}" in text for text in wording.REPAIRS["fix_pasted"])


def test_the_same_seed_gives_the_same(
    projects: list[Project], runner: QuickTests, tmp_path: Path
) -> None:
    def first() -> list[int]:
        rng = random.Random(7)
        return made(lambda: repairs.one_fault(projects[0], rng, runner), 1)[0].tokens(FORM)[0]

    assert first() == first()
