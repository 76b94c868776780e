"""A live view of a run in a terminal: finished work scrolls up, current work stays at the bottom.

The bottom shows the end of the streaming text, the running tools with the end of their output, and
a line with phase, step, tokens and time.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TextIO

from markdown_it import MarkdownIt
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markdown import Markdown
from rich.padding import Padding
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from agentcli.agent.events import (
    AnswerRejected,
    CandidateTried,
    CheckFinished,
    CheckStarted,
    Delta,
    Event,
    ModelAnswered,
    ModelChanged,
    Phase,
    PhaseChanged,
    RetryScheduled,
    Reviewed,
    RunFinished,
    SessionStarted,
    Stage,
    StageStarted,
    Status,
    StepFinished,
    StepStarted,
    StreamReset,
    ToolFinished,
    ToolProgress,
    ToolStarted,
    Warned,
    usage_of,
)
from agentcli.cli.render import Summary, summary_lines, write_answer
from agentcli.llm.client import TextDelta, ThinkingDelta, ToolCallStart
from agentcli.messages import Outcome, ToolCall, Usage
from agentcli.text import counted, escape, one_line
from agentcli.wording import (
    call_lines,
    candidate_line,
    check_line,
    check_output,
    context_note,
    describe_call,
    diff_lines,
    duration,
    fold_result,
    last_lines,
    model_changed,
    session_lines,
    step_line,
)

_STYLES = {
    Outcome.OK: "green",
    Outcome.FAILED: "red",
    Outcome.ERROR: "red",
    Outcome.DENIED: "yellow",
    Outcome.CANCELLED: "yellow",
    Outcome.SKIPPED: "yellow",
}
_STATUS_STYLES = {Status.SOLVED: "bold green", Status.CANCELLED: "bold yellow"}
_TAIL_BYTES = 4096
_TAIL_LINES = 3
_REFRESH_S = 0.1


@dataclass
class _Running:
    call: ToolCall
    kind: str
    since: float
    output: bytes = b""


@dataclass
class _Now:
    """The current work, shown at the bottom."""

    text: list[str] = field(default_factory=list)
    activity: str = "starting"
    check: tuple[str, float] | None = None
    running: dict[str, _Running] = field(default_factory=dict)
    phase: Phase = Phase.EXPLORE
    step: int = 0
    usage: Usage = field(default_factory=Usage)
    step_usage: Usage = field(default_factory=Usage)


class LiveRenderer:
    """See the module. ``answer`` receives the final answer if stdout is not the terminal."""

    def __init__(self, terminal: TextIO, *, answer: TextIO | None) -> None:
        self._console = Console(file=terminal, highlight=False, emoji=False, markup=False)
        self._answer = answer
        self._now = _Now()
        self._calls: dict[str, ToolCall] = {}
        self._model = ""
        self._started = time.monotonic()
        self._spinner = Spinner("line" if self._console.options.ascii_only else "dots")
        # The event loop refreshes, not Rich's thread, which could print in the middle of output
        # from another thread.
        self._live = Live(
            console=self._console,
            get_renderable=self._below,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._tick: asyncio.TimerHandle | None = None
        self._held = False

    def event(self, event: Event) -> None:
        """Show one event; in an event loop the bottom refreshes by itself."""
        if not self._live.is_started and not self._held:
            self._begin()
        self._show(event)

    def _begin(self) -> None:
        self._live.start()
        with contextlib.suppress(RuntimeError):
            self._go_on(asyncio.get_running_loop())

    def _go_on(self, loop: asyncio.AbstractEventLoop) -> None:
        self._live.refresh()
        self._tick = loop.call_later(_REFRESH_S, self._go_on, loop)

    def finish(self, summary: Summary) -> None:
        """Show the result of the run."""
        self.close()
        if partial := "".join(self._now.text).strip():  # of an answer that was interrupted
            self._console.print(Padding(rendered_markdown(partial), (1, 0)))
        if self._answer is not None and summary.state.answer:
            write_answer(self._answer, summary.state.answer)
        first, *rest = summary_lines(summary)
        style = _STATUS_STYLES.get(summary.state.status or Status.FAILED, "bold red")
        self._console.print()
        self._console.print(Text(first, style=style))
        for line in rest:
            self._console.print(Text(line, style="dim" if line.startswith("session ") else ""))

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Hide the bottom while the user is being asked."""
        self._held, started = True, self._live.is_started
        self.close()
        try:
            yield
        finally:
            self._held = False
            if started:
                self._begin()

    def close(self) -> None:
        """Remove the bottom and show the cursor again."""
        if self._tick is not None:
            self._tick.cancel()
        self._live.stop()

    # -- finished work -----------------------------------------------------------------------

    def _show(self, event: Event) -> None:
        now = self._now
        used = usage_of(event)
        now.usage += used
        now.step_usage += used
        match event:
            case SessionStarted(model=model):
                self._model = model
                for line in session_lines(event):
                    self._console.print(Text(line, style="dim"))
            case ModelChanged(model=model):
                self._note(model_changed(self._model, event))
                self._model = model
            case StepStarted(step):
                now.step, now.step_usage = step, Usage()
            case StageStarted(stage=stage):
                now.activity = "thinking" if stage is Stage.DECIDE else "working"
            case PhaseChanged(phase=phase):
                now.phase = phase
            case Delta():
                self._delta(event)
            case StreamReset():
                now.text.clear()
            case ModelAnswered():
                self._answered(event)
            case AnswerRejected(reason=reason):
                now.text.clear()
                self._note(f"answer not used: {reason}")
            case Reviewed(reason=reason):
                self._note(f"objection: {one_line(reason, 200)}")
            case RetryScheduled():
                now.activity = f"waiting {duration(event.delay_s)} after an error"
                self._note(f"attempt {event.attempt} failed: {one_line(event.error, 200)}")
            case CandidateTried():
                self._note(candidate_line(event))
            case ToolStarted(call=call, tool_kind=kind):
                now.running[call.id] = _Running(call, kind, time.monotonic())
            case ToolProgress(call_id=call_id, data=data):
                if running := now.running.get(call_id):
                    running.output = (running.output + data)[-_TAIL_BYTES:]
            case ToolFinished():
                self._tool(event)
            case CheckStarted(command=command):
                now.check = (command, time.monotonic())
            case CheckFinished(passed=passed):
                now.check = None
                self._console.print(Text(check_line(event), style="green" if passed else "red"))
                for line in check_output(event):
                    self._dim(line)
            case Warned(text):
                self._note(f"warning: {text}")
            case StepFinished(step=step, duration_s=took):
                self._dim(step_line(step, now.step_usage, took))
            case _ if note := context_note(event):
                self._note(note)
            case RunFinished():
                now.activity = "finishing"

    def _delta(self, event: Delta) -> None:
        match event.delta:
            case TextDelta(text):
                self._now.text.append(text)
                self._now.activity = "writing"
            case ThinkingDelta():
                self._now.activity = "thinking"
            case ToolCallStart(name=name):
                self._now.activity = f"calling {escape(name)}"

    def _answered(self, event: ModelAnswered) -> None:
        self._now.text.clear()
        for call in event.message.calls:
            self._calls[call.id] = call
        if text := event.message.text.strip():
            self._live.refresh()  # removes the text from the bottom before it is printed
            self._console.print(Padding(rendered_markdown(text), (1, 0)))

    def _tool(self, event: ToolFinished) -> None:
        result = event.result
        running = self._now.running.pop(result.call_id, None)
        call = self._calls.get(result.call_id, ToolCall("", result.name))
        folded = fold_result(result, running.kind if running else "")
        style = _STYLES[result.outcome]
        first, *code = call_lines(call, self._console.width - 4)
        name, _, arguments = first.partition(" ")
        line = Text.assemble((f"{self._mark()} ", style), (name, "bold"), " ", arguments)
        self._console.print(line)
        for shown in code:
            self._console.print(Text(shown))
        mark = "" if result.outcome is Outcome.OK else f" [{result.outcome}]"
        took = event.command_s
        printed: list[str] = []
        if result.outcome is Outcome.CANCELLED and running is not None:
            took = time.monotonic() - running.since
            printed = last_lines(
                running.output, _TAIL_LINES, self._console.width - 4
            )  # it was already visible
        self._dim(f"  {folded.headline}{mark} ({duration(took)})", style)
        for shown in printed:
            self._dim(f"  {shown}")
        omitted = folded.omitted if folded.lines else 0
        if folded.tail:
            self._omitted(omitted, "earlier line")
        for shown in folded.lines:
            self._dim(f"  {shown}")
        if not folded.tail:
            self._omitted(omitted)
        if result.diff:
            self._diff(result.diff)

    def _diff(self, diff: str) -> None:
        folded = diff_lines(diff)
        for line in folded.lines:
            style = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "dim")
            self._console.print(Text(f"  {line}", style=style))
        self._omitted(folded.omitted)

    def _omitted(self, count: int, noun: str = "more line") -> None:
        if count:
            self._dim(f"  … {counted(count, noun)}")

    def _dim(self, text: str, style: str = "dim") -> None:
        self._console.print(Text(text, style=style))

    def _note(self, text: str) -> None:
        self._console.print(Text(escape(text), style="yellow"))

    def _mark(self) -> str:
        return "*" if self._console.options.ascii_only else "●"

    # -- current work ------------------------------------------------------------------------

    def _below(self) -> RenderableType:
        now = self._now
        parts: list[RenderableType] = []
        if now.text:
            # Only the end of a long text, to keep refreshes cheap.
            lines = escape("".join(now.text))[-8000:].split("\n")
            parts.append(Text("\n".join(lines[-max(4, self._console.height - 8) :])))
        for running in list(now.running.values())[:4]:
            since = duration(time.monotonic() - running.since)
            what = describe_call(running.call, self._console.width - 20)
            parts.append(Text(f"{self._mark()} {what} ({since})", style="cyan"))
            shown = last_lines(running.output, _TAIL_LINES, self._console.width - 4)
            parts += [Text(f"  {line}", "dim") for line in shown]
        parts.append(self._bar())
        return Group(*parts)

    def _bar(self) -> RenderableType:
        now = self._now
        activity = now.activity
        if now.check is not None:
            command, since = now.check
            took = duration(time.monotonic() - since)
            activity = f"checking: {one_line(escape(command), 60)} ({took})"
        facts = [activity, str(now.phase), f"step {now.step}"]
        if now.usage.total_tokens:
            facts.append(f"{now.usage.input_tokens:,} in, {now.usage.output_tokens:,} out")
        facts.append(duration(time.monotonic() - self._started))
        bar = Table.grid(padding=(0, 1))
        bar.add_row(self._spinner, Text(" · ".join(facts), style="dim", overflow="ellipsis"))
        return bar


def rendered_markdown(text: str) -> Markdown:
    """Markdown that keeps angle brackets as text and shows the targets of links."""
    escaped = escape(text)
    markdown = Markdown(escaped, hyperlinks=False)
    # Rich would drop what looks like HTML, such as List<int>.
    parser = MarkdownIt("commonmark", {"html": False}).enable("strikethrough").enable("table")
    markdown.parsed = parser.parse(escaped)
    for token in markdown.parsed:
        for inner in token.children or ():
            inner.content = escape(inner.content)  # an entity such as &#x202e; is decoded by now
    return markdown
