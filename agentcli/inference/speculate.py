"""Prompt lookup: guess the next tokens from what was said before (Saxena 2023).

An answer about code repeats code. The last few tokens are looked up in the text so far; what
followed them there is the draft. One forward checks the whole draft: each position samples its
token as always, and the draft holds as far as it agrees. With the sample taken from the model's
own distribution, agreement or not, the output is distributed exactly as without drafts; greedy
output is equal token by token.

A forward of many tokens costs more than one of a single token, so drafts for a text that does not
repeat itself must be short and rare: they begin short and grow as they hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Lookup:
    """``first`` tokens, later ``draft`` at most, found by the last ``longest`` .. ``shortest``."""

    first: int = 2
    draft: int = 8
    longest: int = 4
    shortest: int = 2


class PromptLookup:
    """Drafts for one row. Feed it every token; ``feedback`` keeps useless drafts rare and short."""

    def __init__(self, settings: Lookup, tokens: Sequence[int] = ()) -> None:
        self._settings = settings
        self._tokens: list[int] = []
        # n-gram -> the position after its latest occurrence but the current one
        self._after: dict[tuple[int, ...], int] = {}
        self._wait = 0  # steps without drafts left
        self._pause = 1  # how many the next failure costs
        self._size = min(settings.first, settings.draft)  # of the next draft
        self.drafted = 0
        self.accepted = 0
        self.extend(tokens)

    def extend(self, tokens: Sequence[int]) -> None:
        for token in tokens:
            # Indexed only when a token follows, so that an n-gram never finds itself.
            at = len(self._tokens)
            for size in range(self._settings.shortest, self._settings.longest + 1):
                if at >= size:
                    self._after[tuple(self._tokens[at - size :])] = at
            self._tokens.append(token)

    def propose(self) -> list[int]:
        """A draft, perhaps empty."""
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
        """What followed there; where that reaches the present, the draft repeats itself."""
        period = len(self._tokens) - place
        followed = self._tokens[place : place + self._size]
        return [followed[i % period] for i in range(self._size)]

    def feedback(self, drafted: int, accepted: int) -> None:
        """The next draft is twice as long as what held of this one and what the forward gave.

        One that failed entirely doubles the pause before the next, up to 32 steps.
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
