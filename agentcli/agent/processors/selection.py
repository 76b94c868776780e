"""Processors that leave items out: the oldest, or the least relevant to the task."""

from __future__ import annotations

from dataclasses import dataclass

from agentcli.agent.bm25 import Index
from agentcli.agent.processors.base import Conversation, Item, words


@dataclass(frozen=True)
class KeepLastN:
    """Leaves out all but the last ``n`` messages; an answer and its results count as one."""

    n: int = 10
    name: str = "keep_last_n"

    async def process(self, conversation: Conversation) -> tuple[Item, ...]:
        """See ``Processor``."""
        gone = {n for group in conversation.free_groups(self.n) for n in group}
        return conversation.without(gone - _markers(conversation))


@dataclass(frozen=True)
class KeepRelevant:
    """Leaves out the messages least relevant to the goal until the rest is short enough.

    Relevance is the BM25 score for the goal and for the last ``kept`` items, so that the current
    work counts. The last ``kept`` groups stay.
    """

    kept: int = 4
    name: str = "keep_relevant"

    async def process(self, conversation: Conversation) -> tuple[Item, ...]:
        """See ``Processor``."""
        groups = conversation.free_groups(self.kept)
        items, markers = conversation.items, _markers(conversation)
        texts = [" ".join(words(items[n].message) for n in group) for group in groups]
        recent = " ".join(words(item.message) for item in items[-self.kept :])
        index = Index(texts)
        goal, now = index.scores(conversation.goal), index.scores(recent)
        scores = [2 * one + other for one, other in zip(goal, now, strict=True)]
        for group, score in zip(groups, scores, strict=True):
            conversation.scores[items[group[0]].first] = round(score, 3)
        excess = conversation.tokens - conversation.target
        gone: set[int] = set()
        # Among equal scores, the oldest goes first.
        for place in sorted(range(len(groups)), key=lambda place: (scores[place], place)):
            if excess <= 0:
                break
            free = set(groups[place]) - markers
            gone |= free
            excess -= sum(items[n].tokens for n in free)
        return conversation.without(gone)


def _markers(conversation: Conversation) -> set[int]:
    """Indices of notes and summaries, which stand for what is already left out."""
    return {n for n, item in enumerate(conversation.items) if item.note or item.summary}
