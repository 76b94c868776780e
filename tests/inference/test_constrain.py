"""Constrained decoding: even a random model's output parses under its grammar."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from agentcli.errors import ModelError
from agentcli.inference.constrain import Grammar
from agentcli.inference.engine import Engine
from agentcli.inference.sampling import Sampling
from agentcli.inference.speculate import Lookup
from agentcli.model.tokenizer import HfTokenizer
from tests.inference.conftest import make_engine
from tests.model.families import save_tokenizer
from tests.model.test_tokenizer import nanochat, sentencepiece

# Random weights tend to write long strings, so the lengths are limited.
LEAVES: list[dict[str, Any]] = [
    {"type": "integer", "minimum": -5, "maximum": 999},
    {"type": "boolean"},
    {"type": "null"},
    {"type": "string", "maxLength": 4},
    {"enum": ["a", "ß", 3, None]},
    {"type": "string", "pattern": "^[a-c]{1,3}$"},
]


@pytest.fixture(scope="module")
def engine() -> Engine:
    """A random model with one small layer."""
    return make_engine(n_layer=1, n_embd=32, n_head=2, n_kv_head=1)


def random_schema(rng: random.Random, depth: int = 2) -> dict[str, Any]:
    kind = rng.choice(["leaf", "object", "array", "any"]) if depth else "leaf"
    if kind == "leaf":
        return rng.choice(LEAVES)
    inner = [random_schema(rng, depth - 1) for _ in range(rng.randint(1, 3))]
    if kind == "array":
        return {"type": "array", "items": inner[0], "maxItems": 2}
    if kind == "any":
        return {"anyOf": inner}
    names = [f"k{i}" for i in range(len(inner))]
    return {
        "type": "object",
        "properties": dict(zip(names, inner, strict=True)),
        "required": names[: rng.randint(0, len(names))],
        "additionalProperties": False,
    }


def say(engine: Engine, grammar: Grammar, seed: int, **options: Any) -> tuple[str, str | None]:
    generation = engine.generate(
        [1, 2, 3],
        max_tokens=300,
        sampling=Sampling(temperature=1.0, seed=seed, top_k=options.pop("top_k", None)),
        constraint=grammar.constraint(),
        **options,
    )
    tokens = [column[0] for column, _ in generation]
    return engine.tokenizer.decode(tokens, skip_special=True), generation.rows[0].finish


@pytest.mark.parametrize("part", range(10))
def test_random_schemas(engine: Engine, part: int) -> None:
    for seed in range(30 * part, 30 * part + 30):
        schema = random_schema(random.Random(seed))
        text, finish = say(engine, Grammar.json_schema(schema, engine.tokenizer), seed)
        assert finish == "stop", schema
        jsonschema_rs.validate(schema, json.loads(text))


def test_regex_and_lark(engine: Engine) -> None:
    pattern = r"[0-9]{3}-(ab|ä)+"
    grammar = Grammar.regex(pattern, engine.tokenizer)
    for seed in range(5):
        text, finish = say(engine, grammar, seed)
        assert re.fullmatch(pattern, text) if finish == "stop" else re.match(r"[0-9]{3}-", text)
    grammar = Grammar.lark('start: "call" "(" /[0-9]+/ ")"', engine.tokenizer)
    text, _ = say(engine, grammar, 1, top_k=5)
    assert text.startswith("call(")


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece"])
def test_other_tokenizers(kind: str, tmp_path: Path) -> None:
    """The grammar works on bytes, however a tokenizer spells its tokens."""
    save_tokenizer(tmp_path)
    tokenizer = (
        HfTokenizer.load(tmp_path) if kind == "byte_level" else sentencepiece(eos_token="</s>")
    )
    grammar = Grammar.regex("hello ä", tokenizer, vocab_size=tokenizer.vocab_size + 13)
    constraint = grammar.constraint()
    said: list[int] = []
    while not constraint.finished and len(said) < 20:
        allowed = constraint.allowed()
        assert allowed is not None and len(allowed) == tokenizer.vocab_size + 13
        choices = [i for i in allowed.nonzero()[:, 0].tolist() if i != tokenizer.eos_id]
        if not choices:
            break
        said.append(choices[-1])
        constraint.accept(said[-1])
    assert b"".join(tokenizer.token_bytes(token) for token in said) == "hello ä".encode()


def test_with_drafts_and_rows(engine: Engine) -> None:
    schema = {"type": "array", "items": {"enum": ["hello", "help"]}, "minItems": 6, "maxItems": 6}
    grammar = Grammar.json_schema(schema, engine.tokenizer)
    plain = say(engine, grammar, 3)
    assert say(engine, grammar, 3, lookup=Lookup()) == plain
    generation = engine.generate(
        [1],
        num_samples=4,
        max_tokens=200,
        constraint=grammar.constraint(),
        sampling=Sampling(seed=2),
    )
    for _ in generation:
        pass
    texts = [engine.tokenizer.decode(row.generated, skip_special=True) for row in generation.rows]
    for text in texts:
        jsonschema_rs.validate(schema, json.loads(text))
    assert len(set(texts)) > 1


def test_special_tokens_never_stand_for_text(engine: Engine) -> None:
    grammar = Grammar.regex(r"<\|bos\|>", engine.tokenizer)
    allowed = grammar.constraint().allowed()
    assert allowed is not None
    assert not any(allowed[token] for token in engine.tokenizer.special.values())


def test_fork(engine: Engine) -> None:
    one = Grammar.regex("ab?c", engine.tokenizer).constraint()
    one.accept(97)
    two = one.fork()
    two.accept(99)
    assert two.finished and not one.finished
    allowed = one.allowed()
    assert allowed is not None and allowed[98] and allowed[99]
    with pytest.raises(ModelError, match="token 120 breaks the grammar"):
        one.accept(120)


def test_bad_grammars() -> None:
    tokenizer = nanochat()
    with pytest.raises(ModelError) as raised:
        Grammar.regex("(", tokenizer)
    assert str(raised.value) == 'regular expression "(": unclosed group'
    with pytest.raises(ModelError, match="grammar"):
        Grammar.lark("start: nothing", tokenizer)
    with pytest.raises(ModelError, match=r"(?i)schema|grammar"):
        Grammar.json_schema({"type": "bogus"}, tokenizer)


def test_special_tokens_by_name(engine: Engine) -> None:
    """Any number of tool calls between tags, mixed with ordinary text."""
    source = """start: (TEXT <|python_start|> %json {"type": "boolean"} <|python_end|>)* TEXT
TEXT: /[a-z ]*/"""
    tokenizer = engine.tokenizer
    constraint = Grammar.lark(source, tokenizer).constraint()
    opens, closes = (tokenizer.special_id(f"<|python_{part}|>") for part in ("start", "end"))
    for token in (97, opens, *b"true", closes, 98, opens):
        allowed = constraint.allowed()
        assert allowed is not None and allowed[token]
        constraint.accept(token)
    within = constraint.allowed()
    assert within is not None and not within[closes] and not within[ord("x")]
