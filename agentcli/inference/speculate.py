"""Speculative decoding by prompt lookup (Saxena 2023): drafts are copied from the text so far.

Answers about code repeat code. The last few tokens are looked up in the text so far; those that
followed them there are the draft. One forward pass verifies the whole draft: a token is sampled at
each position as usual, and the draft is accepted up to the first difference. All tokens are thus
sampled from the model's own distribution, as without drafts; greedy output is identical.

A forward pass of many tokens costs more than one of a single token. So drafts start short, grow
while they are accepted, and become rare when they are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Lookup:
    """Settings of prompt lookup, in tokens.

    Attributes:
        first: The length of the first draft.
        draft: The maximum length of a draft.
        longest: The longest n-gram to look up.
        shortest: The shortest n-gram to look up.
    """

    first: int = 2
    draft: int = 8
    longest: int = 4
    shortest: int = 2


class PromptLookup:
    """Proposes drafts for one row, from all tokens passed to ``extend``."""

    def __init__(self, settings: Lookup, tokens: Sequence[int] = ()) -> None:
        self._settings = settings
        self._tokens: list[int] = []
        # n-gram -> the position after its latest occurrence, except at the end of the text
        self._after: dict[tuple[int, ...], int] = {}
        self._wait = 0  # steps until the next draft
        self._pause = 1  # steps to wait after the next rejected draft
        self._size = min(settings.first, settings.draft)  # length of the next draft
        self.drafted = 0
        self.accepted = 0
        self.extend(tokens)

    def extend(self, tokens: Sequence[int]) -> None:
        """Append tokens to the text."""
        for token in tokens:
            # An n-gram is indexed when a token follows it, so that it never finds itself.
            at = len(self._tokens)
            for size in range(self._settings.shortest, self._settings.longest + 1):
                if at >= size:
                    self._after[tuple(self._tokens[at - size :])] = at
            self._tokens.append(token)

    def propose(self) -> list[int]:
        """Return a draft, which may be empty."""
        if self._wait:
            self._wait -= 1
            return []
        at = len(self._tokens)
        for size in range(self._settings.longest, self._settings.shortest - 1, -1):
            if at >= size:
                place = self._after.get(tuple(self._tokens[at - size :]))
                if place is not None:
                    return self._copy(place)
        return []

    def _copy(self, place: int) -> list[int]:
        """Copy a draft from ``place`` on; if it reaches the end of the text, it repeats itself."""
        period = len(self._tokens) - place
        followed = self._tokens[place : place + self._size]
        return [followed[i % period] for i in range(self._size)]

    def feedback(self, drafted: int, accepted: int) -> None:
        """Adapt the next draft to the number of accepted tokens of this one.

        The next one is twice as long as the accepted part plus the token sampled after it. A draft
        that is rejected entirely doubles the pause before the next one, up to 32 steps.
        """
        self.drafted += drafted
        self.accepted += accepted
        if accepted:
            self._pause = 1
            self._size = min(2 * (accepted + 1), self._settings.draft)
        else:
            self._wait = self._pause
            self._pause = min(2 * self._pause, 32)
            self._size = min(self._settings.first, self._settings.draft)
