"""What a step can decide: act, finish, wait, or choose among candidates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from agentcli.messages import ToolCall


@dataclass(frozen=True, slots=True)
class Act:
    """Run these calls; raises ``ValueError`` if there are none."""

    calls: tuple[ToolCall, ...]

    def __post_init__(self) -> None:
        if not self.calls:
            raise ValueError("Act needs at least one call")


@dataclass(frozen=True, slots=True)
class Final:
    """The work is done; raises ``ValueError`` if the answer is empty."""

    answer: str

    def __post_init__(self) -> None:
        if not self.answer.strip():
            raise ValueError("a final answer cannot be empty")


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing in this step."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to continue and its score; the highest wins, and the first among equals."""

    decision: Act | Final
    score: float


@dataclass(frozen=True, slots=True)
class Branch:
    """Several ways to continue, of which one is taken; raises ``ValueError`` if there are none."""

    candidates: tuple[Candidate, ...]

    def __post_init__(self) -> None:
        if not self.candidates:
            raise ValueError("Branch needs at least one candidate")

    @property
    def best(self) -> int:
        """The index of the candidate that is taken."""
        scores = [candidate.score for candidate in self.candidates]
        return scores.index(max(scores))


Decision: TypeAlias = Act | Final | Wait | Branch
