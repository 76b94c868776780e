"""Variants of an edit: one span is replaced; the most likely variants come first."""

from __future__ import annotations

import json
from itertools import islice

import pytest
import torch

from agentcli.inference.constrain import Grammar
from agentcli.inference.engine import Engine
from agentcli.inference.propose import propose
from agentcli.inference.substring import CopyConstraint
from agentcli.inference.variants import HEAD_MOST, Edit, Variant, Variants
from agentcli.llm.local import EMBEDDED
from agentcli.model.checkpoint import load_model
from tests.inference.test_substring import FILES, SCHEMA, engine, text_for

__all__ = ["engine"]
HEAD = '{"name": "edit", "arguments": {"path": "b.py", "old": "aaaaaaab", "new": "'


def collect(variants: Variants, count: int) -> list[Variant]:
    found: list[Variant] = []
    while variants and len(found) < count:
        if (variant := variants.advance()) is not None:
            found.append(variant)
    return found


def test_variants_differ_in_one_span_and_are_scored_exactly(engine: Engine) -> None:
    edit = Edit.of(HEAD, "old")
    assert edit.old == "aaaaaaab" and edit == Edit.at(
        "edit", {"path": "b.py", "old": "aaaaaaab"}, "new", "old"
    )
    variants = Variants(engine, [1, 2, 3], [4], engine.model.new_cache())
    variants.add(edit)
    variants.add(edit)  # ignored: already known
    found = collect(variants, 6)
    texts = []
    for variant in found:
        assert variant.tokens[-1] == 4
        call = json.loads(engine.tokenizer.decode(variant.tokens[:-1]))["arguments"]
        assert call["old"] == "aaaaaaab" != call["new"]
        texts.append(call["new"])
    assert len(set(texts)) == len(texts) == 6
    costs = [-variant.logprob for variant in found]
    assert costs == sorted(costs)
    # Recomputing parts of the cache gives the same result as recomputing everything.
    fresh = Variants(engine, [1, 2, 3], [4], engine.model.new_cache())
    tokens = found[-1].tokens
    rows = fresh._logprobs(tokens, 0, len(tokens) - 1)
    with torch.inference_mode():
        logits = engine.model(torch.tensor([[1, 2, 3, *tokens]]))[0, 2:-1]
    assert torch.allclose(rows, torch.log_softmax(logits, -1), atol=1e-4)


def test_a_call_that_exceeds_the_context_is_left_out(engine: Engine) -> None:
    limit = engine.model.config.sequence_len
    old = "b" * limit
    variants = Variants(engine, [1, 2, 3], [4], engine.model.new_cache())
    variants.add(Edit.of(HEAD.replace("aaaaaaab", old), "old"))
    variants.add(Edit.of(HEAD, "old"), cost=1.0)
    found = collect(variants, 3)
    assert len(found) == 3
    assert all(old not in engine.tokenizer.decode(variant.tokens[:-1]) for variant in found)


def test_costly_places_wait(engine: Engine) -> None:
    variants = Variants(engine, [1, 2, 3], [4], engine.model.new_cache())
    variants.add(Edit.of(HEAD, "old"))
    variants.add(Edit.of(HEAD.replace("aaaaaaab", "ab"), "old"), 1000.0)
    olds = {
        json.loads(engine.tokenizer.decode(variant.tokens[:-1]))["arguments"]["old"]
        for variant in collect(variants, 3)
    }
    assert olds == {"aaaaaaab"}


def test_proposals_take_places_and_find_their_own(engine: Engine) -> None:
    grammar = Grammar.json_schema(SCHEMA, engine.tokenizer)
    constraint = CopyConstraint(grammar.constraint(), engine.tokenizer, text_for)
    given = (Edit.of(HEAD, "old"), 0.0)
    proposals = propose(
        engine,
        [1, 2],
        constraint,
        engine.model.new_cache(),
        closing=[4],
        varying={"new": "old"},
        places=[given],
        max_tokens=120,
    )
    for proposal in islice(proposals, 3):
        call = json.loads(engine.tokenizer.decode(proposal.tokens[:-1]))["arguments"]
        assert FILES[call["path"]].count(call["old"]) == 1
        assert call["old"] != call["new"]


def test_a_search_without_results_ends(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentcli.inference.propose.PATIENCE", 50)
    grammar = Grammar.json_schema(SCHEMA, engine.tokenizer)
    constraint = CopyConstraint(grammar.constraint(), engine.tokenizer, text_for)
    cache = engine.model.new_cache()
    assert not list(propose(engine, [1, 2], constraint, cache, max_tokens=2))  # no edit fits


@pytest.fixture(scope="module")
def trained() -> Engine:
    loaded = load_model(EMBEDDED, dtype=torch.float32)
    return Engine(loaded.model, loaded.tokenizer, stop_ids=loaded.stop_ids)


def found_by(trained: Engine, old: str, count: int) -> list[str]:
    """The new texts of the likeliest edits of a line that the model has not read."""
    prompt = trained.tokenizer.encode_template(
        "<|bos|><|user_start|>tests fail, fix it<|user_end|><|assistant_start|><|call_start|>"
    )
    variants = Variants(trained, prompt, [], trained.model.new_cache())
    variants.add(Edit.at("search_replace", {"path": "a.py", "old": old}, "new", "old"))
    calls = [trained.tokenizer.decode(variant.tokens) for variant in collect(variants, count)]
    return [json.loads(call)["arguments"]["new"] for call in calls]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("        while len(self.data) >= self.size:", "        while len(self.data) > self.size:"),
        ("    return (low + high) // 2", "    return (low + high) / 2"),
        ("    if count <= limit:", "    if count < limit:"),
        # Characters in two tokens each.
        ('    return "ÄÖÜ äöü" if size <= 3 else "ß"', '    return "ÄÖÜ äöü" if size < 3 else "ß"'),
    ],
)
def test_the_end_of_a_token_can_be_left_out(trained: Engine, old: str, new: str) -> None:
    assert new in found_by(trained, old, 12)


def test_a_file_that_was_not_read_is_within_reach(trained: Engine) -> None:
    variants = Variants(trained, trained.tokenizer.encode("<"), [], trained.model.new_cache())
    line = "            thresholds.setdefault(zone_code, {})[quarter_index] = wanted"
    variants.add(Edit.at("search_replace", {"path": "x/y/zones.py", "old": line}, "new", "old"))
    (edit,) = variants._known
    variants.advance()
    copy = variants._copies[edit]
    start = next(
        i
        for i in range(len(copy.tokens))
        if len(trained.tokenizer.decode(copy.tokens[:i])) >= len(edit.head)
    )
    assert -HEAD_MOST == copy.before[start] > copy.before[-1]
