"""A turn under its grammar: calls are valid and copy their source, whatever the weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import agentcli.embedded
from agentcli.inference.tool_schemas import OfferedTool
from agentcli.inference.turn import TurnConstraint, call_grammar
from agentcli.model.tokenizer import Tokenizer, load_tokenizer

TEXT = 'def f(x):\n    return x + 1\n\n\ndef g(x):\n    return "a\\n" + x\n'
STRING = {"type": "string"}
EDIT = OfferedTool(
    "edit",
    {
        "type": "object",
        "properties": {"path": STRING, "old": STRING, "new": STRING},
        "required": ["path", "old", "new"],
        "additionalProperties": False,
    },
    {"old": "path"},
)
LOOK = OfferedTool(
    "look", {"type": "object", "properties": {"n": {"type": "integer"}}, "required": []}
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(Path(agentcli.embedded.__file__).parent)


def turn(tokenizer: Tokenizer, **options: bool) -> TurnConstraint:
    tools = (EDIT, LOOK)
    grammar = call_grammar(tools, tokenizer, tokenizer.vocab_size)
    return TurnConstraint(
        tokenizer,
        tokenizer.vocab_size,
        grammar,
        tools,
        lambda tool, arguments: TEXT if arguments.get("path") == "f.py" else None,
        **options,
    )


def say(constraint: TurnConstraint, tokenizer: Tokenizer, text: str) -> None:
    for token in tokenizer.encode_template(text):
        allowed = constraint.allowed()
        assert allowed[token], (text, tokenizer.decode([token]))
        constraint.accept(token)


def names(constraint: TurnConstraint, tokenizer: Tokenizer) -> set[str]:
    """The special tokens that may come next."""
    allowed = constraint.allowed()
    return {text[2:-2] for text, token in tokenizer.special.items() if allowed[token]}


def test_what_may_follow_what(tokenizer: Tokenizer) -> None:
    one = turn(tokenizer, inline=True)
    assert names(one, tokenizer) == {"call_start", "python_start"}  # an empty turn is not allowed
    say(one, tokenizer, "Yes")
    assert names(one, tokenizer) == {"call_start", "python_start", "assistant_end"}
    say(one, tokenizer, "<|python_start|>")
    assert names(one, tokenizer) == set()
    say(one, tokenizer, "1+1<|python_end|>")
    assert names(one, tokenizer) == {"call_start", "python_start"}
    say(one, tokenizer, '<|call_start|>{"name": "look", "arguments": {"n": 3}}')
    assert names(one, tokenizer) == {"call_end"}
    say(one, tokenizer, "<|call_end|>")
    assert names(one, tokenizer) == {"call_start", "assistant_end"}
    assert int(one.allowed().sum()) == 2  # no text after a call


def test_an_argument_is_copied_where_it_occurs_once(tokenizer: Tokenizer) -> None:
    one = turn(tokenizer)
    head = '<|call_start|>{"name": "edit", "arguments": {"path": "f.py", "old": "    return x'
    say(one, tokenizer, head)
    quote = tokenizer.encode('", "')[0]
    assert not one.fork().allowed()[tokenizer.encode("9")[0]]
    say(one, tokenizer, " + 1")
    assert one.allowed()[quote]
    say(one, tokenizer, '", "new": "anything"}}<|call_end|>')


def test_another_path_may_be_anything(tokenizer: Tokenizer) -> None:
    call = '{"name": "edit", "arguments": {"path": "other", "old": "zzz", "new": ""}}'
    say(turn(tokenizer), tokenizer, f"<|call_start|>{call}<|call_end|>")


def test_fork(tokenizer: Tokenizer) -> None:
    one = turn(tokenizer)
    for token in tokenizer.encode_template('hm<|call_start|>{"name": "look", "arg'):
        one.accept(token)
    before = one.allowed().clone()
    one.fork().accept(int(before.nonzero()[0]))
    assert torch.equal(one.allowed(), before)


@pytest.mark.parametrize("seed", range(12))
def test_random_weights_make_valid_calls(tokenizer: Tokenizer, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    one = turn(tokenizer)
    said = tokenizer.encode_template("<|call_start|>")
    one.accept(said[0])
    end = tokenizer.special_id("<|call_end|>")
    quote = [i for i in range(tokenizer.vocab_size) if b'"' in tokenizer.token_bytes(i)]
    for _ in range(400):
        logits = torch.randn(tokenizer.vocab_size, generator=random)
        logits[quote] += 4  # else strings never end
        logits[end] += 9
        token = int(logits.masked_fill(~one.allowed(), -torch.inf).argmax())
        one.accept(token)
        said.append(token)
        if token == end:
            break
    text = tokenizer.decode(said[1:-1] if said[-1] == end else said[1:])
    if said[-1] == end:
        call = json.loads(text)
        assert call["name"] in ("edit", "look")
        arguments = call["arguments"]
        if arguments.get("path") == "f.py":
            assert TEXT.count(arguments["old"]) == 1
