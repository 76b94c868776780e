"""Constrained decoding: a grammar decides which tokens may come next.

A constraint belongs to one row and advances with its tokens. Grammars are written as JSON Schema,
regular expressions or Lark, and compiled by llguidance, which returns each mask as packed bits.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import llguidance
import llguidance.numpy as llnumpy
import numpy as np
import torch
from torch import Tensor

from agentcli.errors import ModelError
from agentcli.model.tokenizer import Tokenizer

# Between JSON tokens: nothing, a space, or a newline with indentation. If more were allowed, a weak
# model would emit white space for ever.
WHITESPACE = r"( |\n {0,16})?"


class Constraint(Protocol):
    """The interface between the engine and a constraint."""

    def allowed(self) -> Tensor | None:
        """Return the mask of allowed tokens, (V,) bool on the CPU; None if all are allowed."""

    def accept(self, token: int) -> None:
        """Advance by one token.

        Raises:
            ModelError: the token is not allowed.
        """

    def fork(self) -> Constraint:
        """Return an independent copy in the same state, for another row."""

    @property
    def finished(self) -> bool:
        """Whether only a stop token may follow."""


class GrammarConstraint:
    """The state of one row in a grammar."""

    def __init__(self, grammar: Grammar, matcher: Any = None) -> None:
        self._grammar = grammar
        self._matcher = matcher or grammar.new_matcher()
        self._bits = llnumpy.allocate_token_bitmask(1, grammar.vocab_size)

    def allowed(self) -> Tensor | None:
        llnumpy.fill_next_token_bitmask(self._matcher, self._bits)
        self._check()
        # int32 words, lowest bit first -> one bool per token
        bits = np.unpackbits(self._bits.view(np.uint8), bitorder="little")
        return torch.from_numpy(bits[: self._grammar.vocab_size].view(np.bool_))

    def accept(self, token: int) -> None:
        if self._matcher.is_stopped():
            return  # the stop token that ends the row
        if not self._matcher.consume_token(token):
            raise ModelError(
                f"token {token} breaks the grammar: {_brief(self._matcher.get_error())}"
            )

    def fork(self) -> GrammarConstraint:
        return GrammarConstraint(self._grammar, self._matcher.deep_copy())

    @property
    def finished(self) -> bool:
        return bool(self._matcher.is_stopped())

    def forced(self) -> list[int]:
        """Return the tokens that must come next: the only continuation the grammar allows."""
        tokens: list[int] = self._matcher.compute_ff_tokens()
        return tokens

    def _check(self) -> None:
        if self._matcher.is_error():
            raise ModelError(f"grammar: {_brief(self._matcher.get_error())}")


class Ended:
    """Allows every token of ``stop_ids`` wherever ``base`` allows the tokenizer's end token."""

    def __init__(self, base: Constraint, tokenizer: Tokenizer, stop_ids: Collection[int]) -> None:
        self._base = base
        self._eos = end_token(tokenizer)
        self._stops = sorted(stop_ids)

    def allowed(self) -> Tensor | None:
        allowed = self._base.allowed()
        if allowed is None:
            return None
        allowed = allowed.clone()
        allowed[[token for token in self._stops if token < len(allowed)]] = bool(allowed[self._eos])
        return allowed

    def accept(self, token: int) -> None:
        if token not in self._stops:
            self._base.accept(token)

    def fork(self) -> Ended:
        other = copy.copy(self)
        other._base = self._base.fork()
        return other

    @property
    def finished(self) -> bool:
        return self._base.finished


class Grammar:
    """A grammar compiled for one tokenizer; ``constraint()`` starts a row on it.

    ``vocab_size`` is the model's, which may be larger than the tokenizer's.

    Raises:
        ModelError: the grammar does not compile; the message has llguidance's reason.
    """

    def __init__(self, source: str, tokenizer: Tokenizer, vocab_size: int | None = None) -> None:
        self.vocab_size = vocab_size or tokenizer.vocab_size
        self._source = source
        self._tokens = _ll_tokenizer(tokenizer, self.vocab_size)
        reason = llguidance.LLMatcher.validate_grammar(source, self._tokens)
        if reason and not reason.startswith("WARNING"):
            raise ModelError(f"grammar: {_brief(reason)}")
        # Creating a matcher compiles the grammar; copying one is cheap.
        self._first = llguidance.LLMatcher(self._tokens, source)
        if self._first.is_error():
            raise ModelError(f"grammar: {_brief(self._first.get_error())}")

    @classmethod
    def json_schema(
        cls,
        schema: Mapping[str, Any],
        tokenizer: Tokenizer,
        vocab_size: int | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Grammar:
        """Compile a JSON Schema.

        ``options`` are llguidance's; by default, the JSON may be on one line or indented.
        """
        overrides: Any = dict(options or {"whitespace_pattern": WHITESPACE})
        try:
            source = llguidance.LLMatcher.grammar_from_json_schema(
                json.dumps(schema), overrides=overrides
            )
        except ValueError as error:
            raise ModelError(f"JSON Schema: {error}") from None
        return cls(source, tokenizer, vocab_size)

    @classmethod
    def regex(cls, pattern: str, tokenizer: Tokenizer, vocab_size: int | None = None) -> Grammar:
        source = llguidance.LLMatcher.grammar_from_regex(pattern)
        try:
            return cls(source, tokenizer, vocab_size)
        except ModelError as error:
            # The rest is about places in a grammar that the user has not written.
            if fault := re.search(r"^error: (.+)", str(error), re.MULTILINE):
                raise ModelError(f'regular expression "{pattern}": {fault[1]}') from None
            raise

    @classmethod
    def lark(cls, grammar: str, tokenizer: Tokenizer, vocab_size: int | None = None) -> Grammar:
        return cls(llguidance.LLMatcher.grammar_from_lark(grammar), tokenizer, vocab_size)

    def constraint(self) -> GrammarConstraint:
        return GrammarConstraint(self)

    def new_matcher(self) -> Any:
        return self._first.deep_copy()


def _brief(reason: str) -> str:
    """An error of llguidance without the state of its parser."""
    said = reason.partition("<state>")[0].strip()
    return "it can never be complete" if said == "NoExtensionBias" else said


def end_token(tokenizer: Tokenizer) -> int:
    """Return the token that llguidance allows at the end of a grammar.

    Raises:
        ModelError: the tokenizer has neither an end nor a start token.
    """
    end = tokenizer.eos_id if tokenizer.eos_id is not None else tokenizer.bos_id
    if end is None:
        raise ModelError("grammars need a tokenizer with an end token")
    return end


class _Vocabulary:
    """Adapts a tokenizer to the interface that llguidance expects."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        special = set(tokenizer.special.values())
        self.tokens: Sequence[bytes] = [tokenizer.token_bytes(i) for i in range(vocab_size)]
        self.special_token_ids = sorted(token for token in special if token < vocab_size)
        self.bos_token_id = tokenizer.bos_id
        self.eos_token_id = end_token(tokenizer)
        self._encode = tokenizer.encode_inner

    def __call__(self, text: str) -> list[int]:
        return self._encode(text)


_known: WeakKeyDictionary[Tokenizer, dict[int, Any]] = WeakKeyDictionary()


def _ll_tokenizer(tokenizer: Tokenizer, vocab_size: int) -> Any:
    """Return llguidance's tokenizer, cached: building it takes a second for a large vocabulary."""
    sizes = _known.setdefault(tokenizer, {})
    if vocab_size not in sizes:
        wrapper = llguidance.TokenizerWrapper(_Vocabulary(tokenizer, vocab_size))
        sizes[vocab_size] = llguidance.LLTokenizer(
            wrapper, n_vocab=vocab_size, eos_token=wrapper.eos_token_id
        )
    return sizes[vocab_size]
