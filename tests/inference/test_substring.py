"""A copied string occurs exactly once in its source, even with a random model."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentcli.errors import ModelError
from agentcli.inference.call_syntax import Path
from agentcli.inference.constrain import Grammar
from agentcli.inference.engine import Engine
from agentcli.inference.sampling import Sampling
from agentcli.inference.speculate import Lookup
from agentcli.inference.substring import CopyConstraint, OneOf, UniqueSubstring
from agentcli.model.tokenizer import TiktokenTokenizer
from agentcli.text import BETWEEN_OPTIONS
from tests.inference.conftest import make_engine
from tests.model.test_tokenizer import PATTERN, RANKS

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"enum": ["edit"]},
        "arguments": {
            "type": "object",
            "properties": {
                "path": {"enum": ["a.py", "b.py"]},
                "old": {"type": "string"},
                "new": {"type": "string", "maxLength": 5},
            },
            "required": ["path", "old", "new"],
            "additionalProperties": False,
        },
    },
    "required": ["name", "arguments"],
    "additionalProperties": False,
}
FILES = {
    "a.py": 'def f(x):\n\treturn "ä\\n" + x\n\ndef g(x):\n\treturn "ß\u0001" + x\n',
    "b.py": "aaaaaaab",
}


def text_for(path: Path, strings: Mapping[Path, str]) -> UniqueSubstring | None:
    if path != ("arguments", "old"):
        return None
    return UniqueSubstring(FILES[strings["arguments", "path"]])


@pytest.fixture(scope="module")
def engine() -> Engine:
    """An engine with tokens that open, close or cross strings, or split an escape."""
    extra = [b'": "', b'", "', b'"}', b'"}}', b'")', b' "a', b'\\"', b"\\", b"n\\t", b'x"', b'"d']
    ranks = dict(RANKS)
    for data in extra:
        ranks.setdefault(data, len(ranks))
    tokenizer = TiktokenTokenizer.nanochat(ranks, PATTERN)
    small = make_engine(
        vocab_size=tokenizer.vocab_size, n_layer=1, n_embd=32, n_head=2, n_kv_head=1
    )
    return Engine(small.model, tokenizer)


@pytest.mark.parametrize("lookup", [None, Lookup(draft=4, shortest=1)])
def test_old_always_occurs_once(engine: Engine, lookup: Lookup | None) -> None:
    grammar = Grammar.json_schema(SCHEMA, engine.tokenizer)
    seen, crossing = set(), 0
    for seed in range(12):
        generation = engine.generate(
            [1, 2],
            max_tokens=400,
            sampling=Sampling(seed=seed, temperature=1.5),
            constraint=CopyConstraint(grammar.constraint(), engine.tokenizer, text_for),
            lookup=lookup,
        )
        tokens = [column[0] for column, _ in generation]
        assert generation.rows[0].finish == "stop"
        call = json.loads(engine.tokenizer.decode(tokens, skip_special=True))["arguments"]
        assert FILES[call["path"]].count(call["old"]) == 1 and call["old"]
        seen.add(call["old"])
        crossing += sum(len(engine.tokenizer.token_bytes(token)) > 1 for token in tokens)
    assert len(seen) > 6 and crossing > 12


def test_drafts_change_nothing(engine: Engine) -> None:
    grammar = Grammar.json_schema(SCHEMA, engine.tokenizer)
    for seed in range(5):
        said = []
        for lookup in (None, Lookup(draft=5, shortest=1)):
            constraint = CopyConstraint(grammar.constraint(), engine.tokenizer, text_for)
            generation = engine.generate(
                [1, 2], max_tokens=200, sampling=Sampling(seed=seed), constraint=constraint,
                lookup=lookup,
            )  # fmt: skip
            said.append([column[0] for column, _ in generation])
        assert said[0] == said[1]


@settings(max_examples=100)
@given(st.text(alphabet='ab"\\\nä', min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_walks_end_exactly_at_unique_copies(text: str, rng: random.Random) -> None:
    source = UniqueSubstring(text)
    alive, said = source.start(), b""
    while not (said and source.unique(alive) and rng.random() < 0.5):
        steps = {source.escaped[at] for at in alive if at < len(source.escaped)}
        if not steps:
            assert source.unique(alive)
            break
        byte = bytes([rng.choice(sorted(steps))])
        alive = source.walk(alive, byte)
        said += byte
    copied = json.loads(b'"' + said + b'"')
    count = sum(text.startswith(copied, at) for at in range(len(text)))
    assert count == 1


def test_fork_and_errors(engine: Engine) -> None:
    grammar = Grammar.json_schema(SCHEMA, engine.tokenizer)
    constraint = CopyConstraint(grammar.constraint(), engine.tokenizer, text_for)
    head = '{"name": "edit", "arguments": {"path": "b.py", "old": "'
    for byte in head.encode():
        constraint.accept(byte)
    allowed = constraint.allowed()
    assert allowed is not None
    assert allowed.nonzero()[:, 0].tolist() == [ord("a"), ord("b")]
    other = constraint.fork()
    for byte in b"ab":
        constraint.accept(byte)
    closing = constraint.allowed()
    assert closing is not None and closing[ord('"')] and not closing[ord("a")]
    with pytest.raises(ModelError, match="is not part of the text"):
        other.accept(ord("c"))
    with pytest.raises(ModelError, match="empty text"):
        UniqueSubstring("")


def test_one_of_the_options_whole() -> None:
    source = OneOf(BETWEEN_OPTIONS.join(["a.py", "a.pyi", 'b"c.py', "two\nlines", ""]))
    alive = source.walk(source.start(), b"a.py")
    assert source.unique(alive)  # although another one continues
    assert source.unique(source.walk(alive, b"i"))
    assert not source.walk(alive, b"x") and not source.walk(source.start(), b".py")
    assert not source.unique(source.walk(source.start(), b'b\\"c'))
    assert source.unique(source.walk(source.start(), b'b\\"c.py'))
    assert source.unique(source.walk(source.start(), b"two\\nlines"))
