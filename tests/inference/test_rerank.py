"""Edits weighed by how likely the file is after them, against a full recompute."""

from __future__ import annotations

import pytest
import torch

from agentcli.inference import rerank
from agentcli.inference.engine import Engine
from agentcli.inference.propose import Proposal
from agentcli.inference.rerank import CLIP, WEIGHT, Files, reranked

TEXT = "".join(f"def f{n}(a, b):\n    return a - b * {n}\n\n\n" for n in range(12))


def naive(engine: Engine, path: str, text: str, old: str, new: str, after: int) -> float:
    """The same, from two whole forward passes and the texts' own tokens."""

    def scored(content: str) -> tuple[list[int], list[float]]:
        tokenizer = engine.tokenizer
        assert tokenizer.bos_id is not None
        tokens = [tokenizer.bos_id, *tokenizer.encode(f"# {path}\n{content}")]
        with torch.inference_mode():
            rows = torch.log_softmax(engine.model(torch.tensor([tokens]))[0], -1)
        return tokens, [0.0] + [float(rows[i, token]) for i, token in enumerate(tokens[1:])]

    (was, before), (now, then) = scored(text), scored(text.replace(old, new))
    start = next(i for i, (a, b) in enumerate(zip(was, now, strict=False)) if a != b)
    rest = next(
        (n for n in range(min(len(was), len(now)) - start) if was[-1 - n] != now[-1 - n]),
        min(len(was), len(now)) - start,
    )
    itself = sum(then[start : len(now) - rest]) - sum(before[start : len(was) - rest])
    pairs = list(zip(then[len(now) - rest :], before[len(was) - rest :], strict=True))[:after]
    return sum(max(-CLIP, min(CLIP, gain)) for gain in (itself, *(a - b for a, b in pairs)))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("a - b * 3", "a + b * 3"),
        ("a - b * 3", "a"),
        ("def f0(a, b)", "def f0(b, a, c=None)"),  # at the start of the file
        (" * 11\n", " * 11 - 1\n"),  # little follows
        ("    return a - b * 7\n", ""),
        ("return a - b * 5\n", "return a - b * 5\n    # more\n"),
    ],
)
def test_it_equals_a_full_recompute(engine: Engine, old: str, new: str) -> None:
    files = Files(engine)
    files.gain("m.py", TEXT, "a - b * 9", "a")  # what was scored before does not matter
    found = files.gain("m.py", TEXT, old, new)
    assert found == pytest.approx(naive(engine, "m.py", TEXT, old, new, rerank.AFTER), abs=1e-3)
    assert found == pytest.approx(files.gain("m.py", TEXT, old, new), abs=1e-5)


def test_only_the_text_around_an_edit_of_a_long_file_is_read(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rerank, "BLOCK", 60)
    monkeypatch.setattr(rerank, "MARGIN", 30)
    files = Files(engine)
    assert files.gain("m.py", TEXT, "b * 6", "b * 5") != 0.0
    (part,) = files._parts
    assert "b * 6" in part and len(part) < 4 * 60 and part.startswith("# m.py\n")
    for number in range(12):
        files.gain("m.py", TEXT, f"def f{number}(", f"def g{number}(")
    assert len(files._parts) == rerank.MAX_PARTS


def test_what_is_no_edit_gains_nothing(engine: Engine) -> None:
    files = Files(engine)
    assert files.gain("m.py", TEXT, "nowhere", "x") == 0.0
    assert files.gain("m.py", TEXT, "return a", "return b") == 0.0  # more than one place
    assert files.gain("m.py", TEXT, "b * 6", "b * 6") == 0.0
    assert files.gain("m.py", "x", "x", "") == 0.0  # nothing follows


def test_the_best_of_the_next_few_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rerank, "LOOKAHEAD", 2)
    gains = {1: 0.0, 2: 10.0, 3: 1.0, 4: 100.0, 5: 0.0}
    drawn: list[int] = []

    def source() -> object:
        for number in gains:
            drawn.append(number)
            yield Proposal([number] * 4, -float(number))

    order = reranked(source(), lambda proposal: gains[proposal.tokens[0]])  # type: ignore[arg-type]
    first = next(order)
    assert first.tokens[0] == 2 and drawn == [1, 2, 3]  # not more than needed is drawn
    assert first.logprob == pytest.approx((-2.0 * 4 + WEIGHT * 10.0) / 4)
    assert [proposal.tokens[0] for proposal in order] == [4, 1, 3, 5]
