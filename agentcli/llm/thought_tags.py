"""Takes a thought off the beginning of an answer's text, from servers that leave it there."""

from __future__ import annotations

from collections.abc import Iterator

from agentcli.inference.call_syntax import THINK
from agentcli.llm.client import TextDelta, ThinkingDelta

_BEGIN, _END = THINK


class ThoughtTags:
    """Splits one answer's text, whose pieces may end anywhere, also inside a tag.

    Only a tag at the very beginning counts: later ones may be what the answer is about. White space
    around the tags is dropped.
    """

    def __init__(self) -> None:
        self._state = "start"  # then text; or thinking, gap and text
        self._held = ""  # what may be a tag, or white space before one
        self._begun = False  # whether the thought has any text

    def feed(self, text: str) -> Iterator[TextDelta | ThinkingDelta]:
        """Yield what is certain with this piece."""
        self._held += text
        if self._state == "start":
            lead = self._held.lstrip()
            if len(lead) < len(_BEGIN) and _BEGIN.startswith(lead):
                return
            thinks = lead.startswith(_BEGIN)
            self._state = "thinking" if thinks else "text"
            self._held = lead.removeprefix(_BEGIN) if thinks else self._held
        if self._state == "thinking":
            yield from self._thought()
        if self._state == "gap" and (rest := self._held.lstrip()):
            self._state, self._held = "text", rest
        if self._state == "text" and self._held:
            yield TextDelta(self._held)
            self._held = ""

    def end(self) -> Iterator[TextDelta | ThinkingDelta]:
        """Yield what was held back: no more text follows, or a call does."""
        if self._held and self._state in ("start", "thinking"):
            kind = TextDelta if self._state == "start" else ThinkingDelta
            yield kind(self._held)
        self._state, self._held = "text", ""

    def _thought(self) -> Iterator[ThinkingDelta]:
        held = self._held if self._begun else self._held.lstrip()
        thought, tag, after = held.partition(_END)
        if not tag:
            begun = next((n for n in range(len(_END) - 1, 0, -1) if held.endswith(_END[:n])), 0)
            thought = held[: len(held) - begun]
        thought = thought.rstrip()
        self._held = after if tag else held[len(thought) :]
        if thought:
            self._begun = True
            yield ThinkingDelta(thought)
        if tag:
            self._state = "gap"
