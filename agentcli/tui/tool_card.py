"""A card for a tool call: what it does, its state, and its result, folded."""

from __future__ import annotations

from collections.abc import Iterator

from textual.content import Content

from agentcli.messages import Outcome
from agentcli.text import counted, escape, plain_output
from agentcli.tui.block import MUTED, Block
from agentcli.tui.diff import DiffLines, changed_lines
from agentcli.tui.entries import Used
from agentcli.tui.lines import Line, Piece, behind
from agentcli.wording import call_lines, duration, fold_result, last_lines

_LIVE_LINES = 3
_MAX_LINES = 2000
_WIDE = 400
_MARKS = {
    Outcome.OK: ("●", "$success"),
    Outcome.FAILED: ("●", "$error"),
    Outcome.ERROR: ("✗", "$error"),
    Outcome.DENIED: ("⊘", "$warning"),
    Outcome.CANCELLED: ("⊘", "$warning"),
    Outcome.SKIPPED: ("○", "$muted"),
}


class ToolCard(Block[Used]):
    """See the module docstring. A click or Ctrl+O unfolds it."""

    foldable = True

    def __init__(self, entry: Used) -> None:
        super().__init__(entry)
        self._diff: DiffLines | None = None

    def pieces(self) -> Iterator[Piece]:
        yield from self._head()
        yield from self._body()
        result = self.entry.result
        if result is not None and result.diff:
            if self._diff is None:
                self._diff = DiffLines(result.diff)
            self._diff.expanded = self.expanded
            yield from behind(Content("    "), [self._diff])

    def _head(self) -> Iterator[Line]:
        entry = self.entry
        first, *code = call_lines(entry.call, _WIDE)
        name, _, arguments = first.partition(" ")
        if entry.result is not None:
            mark, style = _MARKS[entry.result.outcome]
        else:
            mark, style = ("◐", "$primary") if entry.kind else ("○", "$muted")
        head = Content.assemble((name, "bold"), " ", arguments)
        yield Line(head, Content.styled(f"{mark} ", style))
        indent = Content("    ")
        for line in code:
            text = Content(line.removeprefix(indent.plain))
            yield Line(text, gutter=indent, style=MUTED, folded=True)

    def _body(self) -> list[Line]:
        entry, result = self.entry, self.entry.result
        if result is None:
            return _gutter(last_lines(entry.output, _LIVE_LINES)) if entry.kind else []
        took = f" · {duration(entry.duration_s)}" if entry.duration_s >= 0.05 else ""
        folded = fold_result(result, entry.kind)
        # The headline of a failed command says that it failed; most other headlines do, too.
        implied = result.outcome in (Outcome.OK, Outcome.FAILED)
        implied = implied or folded.headline.startswith(result.outcome)
        mark = "" if implied else f" · {result.outcome}"
        if result.diff and entry.kind == "edit":  # no duration: it includes the approval
            return _gutter([f"{changed_lines(result.diff)}{mark}"])
        headline = f"{folded.headline}{mark}{took}"
        if self.expanded:
            lines = escape(plain_output(result.content)).rstrip("\n").expandtabs(4).split("\n")
            rest = lines[1:] if lines[0] == folded.headline else lines
            if result.outcome is Outcome.CANCELLED:
                rest += last_lines(entry.output, _MAX_LINES)
            more = len(rest) - _MAX_LINES
            cut = [f"… {counted(more, 'more line')}: /export shows all"] if more > 0 else []
            return _gutter([headline, *rest[:_MAX_LINES], *cut])
        lines = [line.expandtabs(4) for line in folded.lines]
        if result.outcome is Outcome.CANCELLED:  # keep the output that was already visible
            lines += last_lines(entry.output, _LIVE_LINES)
        if folded.omitted and lines:
            note = f"… {counted(folded.omitted, 'more line')} (ctrl+o)"
            lines = [note, *lines] if folded.tail else [*lines, note]
        return _gutter([headline, *lines])


def _gutter(lines: list[str]) -> list[Line]:
    """Indent lines below the head, the first with a corner."""
    return [
        Line(Content(line), Content("    " if index else "  └ "), style=MUTED)
        for index, line in enumerate(lines)
    ]
