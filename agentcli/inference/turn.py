"""The grammar of one turn of a nanochat model, which writes calls between special tokens.

    turn = { text | <|python_start|> source <|python_end|> } { call } <|assistant_end|>
    call = <|call_start|> JSON <|call_end|>

The JSON of a call is ``{"name": ..., "arguments": ...}`` of an offered tool, spaced exactly as
``json.dumps`` does; arguments that must be copied from a file can only be written that way.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from agentcli.errors import ModelError
from agentcli.inference.call_syntax import Path
from agentcli.inference.constrain import Constraint, Grammar
from agentcli.inference.substring import (
    CopyConstraint,
    OneOf,
    PlainSubstring,
    TextFor,
    UniqueSubstring,
)
from agentcli.inference.tagged import CLOSE
from agentcli.inference.tool_schemas import SPACING, OfferedTool, one_of, usable
from agentcli.model.tokenizer import Tokenizer

CALL_START, CALL_END = "<|call_start|>", "<|call_end|>"
PYTHON_START, PYTHON_END = "<|python_start|>", "<|python_end|>"
END = "<|assistant_end|>"

# Takes the tool and the arguments written so far; returns the text that the next argument must be
# copied from, or None if it may be anything.
TextOf = Callable[[str, Mapping[str, str]], str | None]


def call_grammar(tools: Sequence[OfferedTool], tokenizer: Tokenizer, vocab_size: int) -> Grammar:
    """Compile the grammar of a call of any of ``tools``."""
    try:
        return _call_grammar(tools, tokenizer, vocab_size)
    except ModelError:
        return _call_grammar(usable(tools, tokenizer, vocab_size), tokenizer, vocab_size)


def _call_grammar(tools: Sequence[OfferedTool], tokenizer: Tokenizer, vocab_size: int) -> Grammar:
    schema = one_of(tools, "arguments", {})
    return Grammar.json_schema(schema, tokenizer, vocab_size, SPACING)


class TurnConstraint:
    """The state of one row in the grammar of a turn.

    Args:
        tokenizer: The model's tokenizer; it must have the special tokens above.
        vocab_size: The model's vocabulary size.
        calls: The grammar of a call; None forbids calls.
        tools: The offered tools.
        text_of: Returns the text that an argument must be copied from.
        inline: Whether in-stream Python blocks are allowed.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        vocab_size: int,
        calls: Grammar | None,
        tools: Sequence[OfferedTool] = (),
        text_of: TextOf | None = None,
        *,
        inline: bool = False,
    ) -> None:
        self._tokenizer = tokenizer
        self._calls = calls
        self._text_for: TextFor | None = None
        if text_of is not None and any(tool.text_of for tool in tools):
            self._text_for = text_for(tools, text_of)
        self._inline = inline
        self._ids = {
            name: tokenizer.special_id(name)
            for name in (CALL_START, CALL_END, PYTHON_START, PYTHON_END, END)
        }
        self._ordinary = torch.ones(vocab_size, dtype=torch.bool)
        self._ordinary[[i for i in tokenizer.special.values() if i < vocab_size]] = False
        self._ordinary[tokenizer.vocab_size :] = False
        self._eos = tokenizer.eos_id
        # text, python, call or after (a call); ``_begun``: the turn or block may end here.
        self._state, self._begun = "text", False
        self._call: Constraint | None = None

    def allowed(self) -> Tensor:
        ids = self._ids
        if self._state == "call":
            return self._within_call()
        allowed = self._ordinary.clone() if self._state != "after" else self._none()
        if self._state == "python":
            allowed[ids[PYTHON_END]] = self._begun
            return allowed
        allowed[ids[CALL_START]] = self._calls is not None
        allowed[ids[END]] = self._begun
        allowed[ids[PYTHON_START]] = self._inline and self._state == "text"
        return allowed

    def accept(self, token: int) -> None:
        if self._state == "call" and token != self._ids[CALL_END]:
            assert self._call is not None
            self._call.accept(token)
        elif token == self._ids[CALL_START]:
            self._state, self._call = "call", self._new_call()
        elif token == self._ids[CALL_END]:
            self._state, self._begun, self._call = "after", True, None
        elif token == self._ids[PYTHON_START]:
            self._state, self._begun = "python", False
        elif token == self._ids[PYTHON_END]:
            self._state, self._begun = "text", False
        else:
            self._begun = True

    def fork(self) -> TurnConstraint:
        other = copy.copy(self)
        other._call = self._call and self._call.fork()
        return other

    @property
    def finished(self) -> bool:
        return False  # only the end token ends a turn

    def _within_call(self) -> Tensor:
        assert self._call is not None
        close = self._ids[CALL_END]
        if self._call.finished:
            allowed = self._none()
            allowed[close] = True
            return allowed
        inner = self._call.allowed()
        assert inner is not None  # a grammar always returns a mask
        allowed = self._none()
        allowed[: len(inner)] = inner[: len(allowed)]
        # The grammar allows the end token where the JSON may end; the closing mark takes its place.
        if self._eos is not None:
            allowed[close] = bool(allowed[self._eos])
            allowed[self._eos] = False
        return allowed

    def _none(self) -> Tensor:
        return torch.zeros_like(self._ordinary)

    def _new_call(self) -> Constraint:
        assert self._calls is not None
        call: Constraint = self._calls.constraint()
        if self._text_for is not None:
            call = CopyConstraint(call, self._tokenizer, self._text_for)
        return call


def text_for(
    tools: Sequence[OfferedTool],
    text_of: TextOf,
    prefix: Path = ("arguments",),
    *,
    plain: bool = False,
) -> TextFor:
    """Return the ``TextFor`` callback of a ``CopyConstraint``.

    Args:
        tools: The offered tools.
        text_of: Returns the text that an argument must be copied from.
        prefix: The path that leads to a call's arguments.
        plain: Whether arguments are written unescaped rather than as JSON.
    """
    known = {tool.name: tool for tool in tools}
    texts: dict[tuple[str, tuple[tuple[str, str], ...]], str | None] = {}
    sources: dict[tuple[bool, str], UniqueSubstring] = {}

    def ask(path: Path, strings: Mapping[Path, str]) -> UniqueSubstring | None:
        tool = known.get(strings.get((), strings.get(("name",), "")))
        if tool is None or not path or path[:-1] != prefix or path[-1] not in tool.text_of:
            return None
        written = {key[-1]: value for key, value in strings.items() if key and key[:-1] == prefix}
        key = (tool.name, tuple(written.items()))
        if key not in texts:  # files do not change within a turn
            texts[key] = text_of(tool.name, written)
        text = texts[key]
        if not text or (plain and CLOSE in text):  # the closing tag would end the argument
            return None
        substring = bool(tool.text_of[path[-1]])
        if (substring, text) not in sources:
            kind = OneOf if not substring else PlainSubstring if plain else UniqueSubstring
            sources[substring, text] = kind(text)
        return sources[substring, text]

    return ask
