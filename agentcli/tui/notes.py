"""The small things between the words: notes, errors, checks and the end of a turn."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import VerticalGroup
from textual.content import Content
from textual.widgets import Static

from agentcli.text import escape
from agentcli.tui.answer import AnswerBlock
from agentcli.tui.diff import Diff
from agentcli.tui.entries import Answered, Checked, Level, Shown, Told, TurnEnded
from agentcli.wording import check_line, check_output

_MARKS = {Level.NOTE: "·", Level.WARNING: "!", Level.ERROR: "✗"}


class ToldBlock(Static):
    """A note, a warning or an error, with what to do about it below."""

    def __init__(self, entry: Told) -> None:
        lines = [Content(f"{_MARKS[entry.level]} {escape(entry.text)}")]
        if entry.hint:
            lines.append(Content.styled(f"  → {escape(entry.hint)}", "$foreground"))
        super().__init__(Content("\n").join(lines), classes=f"told -{entry.level}")


class CheckBlock(Static):
    """A check of the task."""

    def __init__(self, entry: Checked) -> None:
        super().__init__(classes="check")
        self.entry = entry

    def on_mount(self) -> None:
        """Show it as it stands."""
        self.show_entry()

    def show_entry(self) -> None:
        """Draw the entry."""
        result = self.entry.result
        if result is None:
            text = Content.assemble(("◐ ", "$primary"), f"check {escape(self.entry.command)}")
            self.update(text)
            return
        mark, style = ("✓", "$success") if result.passed else ("✗", "$error")
        lines = [Content.assemble((f"{mark} ", style), check_line(result))]
        lines += [Content.styled(line, "$foreground 55%") for line in check_output(result)]
        self.update(Content("\n").join(lines))


class TurnEndedBlock(Static):
    """The quiet line below a turn."""

    def __init__(self, entry: TurnEnded) -> None:
        facts = list(entry.facts)
        if entry.files:
            names = ", ".join(escape(path) for path in entry.files[:3])
            more = f" and {len(entry.files) - 3} more" if len(entry.files) > 3 else ""
            facts.append(f"changed {names}{more}")
        super().__init__(Content(" · ".join(facts)), classes="turn-ended")


class ShownBlock(VerticalGroup):
    """What the user asked to see."""

    def __init__(self, entry: Shown) -> None:
        super().__init__(classes="shown")
        self._entry = entry

    def compose(self) -> ComposeResult:
        """The text, and the diff if there is one."""
        yield AnswerBlock(Answered(self._entry.text))
        if self._entry.diff:
            yield Diff(self._entry.diff, expanded=True, titles=True)
