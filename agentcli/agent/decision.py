"""The decisions of a step: act, end, wait, or choose one of several candidates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from agentcli.messages import ToolCall


@dataclass(frozen=True, slots=True)
class Act:
    """Run these calls; raises ValueError where there is none."""

    calls: tuple[ToolCall, ...]

    def __post_init__(self) -> None:
        if not self.calls:
            raise ValueError("to act takes at least one call")


@dataclass(frozen=True, slots=True)
class Final:
    """The work is done; raises ValueError for an empty answer."""

    answer: str

    def __post_init__(self) -> None:
        if not self.answer.strip():
            raise ValueError("a final answer cannot be empty")


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing in this step."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to go on, and how good it looks: the highest score is taken, of equals the first."""

    decision: Act | Final
    score: float


@dataclass(frozen=True, slots=True)
class Branch:
    """Several ways to go on, of which one is taken; raises ValueError where there is none."""

    candidates: tuple[Candidate, ...]

    def __post_init__(self) -> None:
        if not self.candidates:
            raise ValueError("a branch takes at least one candidate")

    @property
    def best(self) -> int:
        """The number of the candidate that is taken, from 0."""
        scores = [candidate.score for candidate in self.candidates]
        return scores.index(max(scores))


Decision: TypeAlias = Act | Final | Wait | Branch
