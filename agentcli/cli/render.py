"""Renderers of a run: plain lines and JSON (the live view of a terminal is ``live.py``).

Progress goes to stderr and answers to stdout, so that ``agentcli run ... > answer.md`` writes the
answer and nothing else.
"""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any, Protocol, TextIO

from agentcli.agent.events import (
    AnswerRejected,
    CandidateTried,
    CheckFinished,
    CheckStarted,
    Delta,
    Event,
    ModelAnswered,
    ModelChanged,
    PhaseChanged,
    RetryScheduled,
    Reviewed,
    RunFinished,
    SessionStarted,
    Status,
    StepFinished,
    StepStarted,
    StreamReset,
    ToolFinished,
    ToolStarted,
    Warned,
    usage_of,
)
from agentcli.agent.records import to_record
from agentcli.agent.state import AgentState, ending_words
from agentcli.errors import Place
from agentcli.llm.client import TextDelta
from agentcli.messages import Outcome, ToolCall, Usage
from agentcli.text import counted, encodable, escape, one_line
from agentcli.wording import (
    call_lines,
    candidate_line,
    check_line,
    check_output,
    context_note,
    diff_lines,
    dollars,
    duration,
    fold_result,
    model_changed,
    session_lines,
    step_line,
    usage_line,
)


class Output(StrEnum):
    """Values of ``--output``."""

    TEXT = "text"
    JSON = "json"
    STREAM_JSON = "stream-json"


@dataclass(frozen=True, slots=True)
class Summary:
    """A finished run; with ``goes_on``, this process waits for what is to be done next."""

    state: AgentState
    exit_code: int
    duration_s: float
    goes_on: bool = False


class Renderer(Protocol):
    """Shows a run."""

    def event(self, event: Event) -> None:
        """Show an event."""
        ...

    def finish(self, summary: Summary) -> None:
        """Show the result."""
        ...

    def close(self) -> None:
        """Restore the terminal; called however the run ended."""
        ...

    def paused(self) -> AbstractContextManager[None]:
        """A context during which nothing is drawn, for questions to the user."""
        ...


class PlainRenderer:
    """Plain lines: progress to one stream, the answer to the other.

    If both are a terminal, the model's text appears as it is written.
    """

    def __init__(self, log: TextIO, answer: TextIO) -> None:
        self._log = log
        self._answer = answer
        self._calls: dict[str, tuple[ToolCall, str]] = {}
        self._model = ""
        self._head: list[str] = []
        self._usage = Usage()
        self._streams = log.isatty() and answer.isatty()
        self._streamed = ""  # text of the current answer
        self._held = ""
        self._in_line = False  # whether the last line of it is not finished yet

    def event(self, event: Event) -> None:
        """Write the lines of one event; progress has none."""
        self._usage += usage_of(event)
        match event:
            case SessionStarted(model=model):
                self._model = model
                if (lines := session_lines(event)) != self._head:  # a chat has many runs
                    self._head = lines
                    self._lines(*lines)
            case ModelChanged(model=model):
                self._lines(model_changed(self._model, event))
                self._model = model
            case PhaseChanged():
                self._lines(f"phase {event.phase}")
            case Delta(delta=TextDelta(text)) if self._streams:
                self._stream(text)
            case StreamReset():
                self._streamed = ""
                self._lines()
            case ModelAnswered(message=message):
                for call in message.calls:
                    self._calls[call.id] = (call, "")
                if message.calls and message.text.strip() and not self._is_shown(message.text):
                    self._lines(*escape(message.text.strip()).split("\n"))
            case ToolStarted(call=call, tool_kind=kind):
                self._calls[call.id] = (call, kind)
            case ToolFinished():
                self._tool(event)
            case CandidateTried():
                self._lines(candidate_line(event))
            case AnswerRejected(reason=reason):
                self._streamed = ""
                self._lines(f"answer not used: {escape(reason)}")
            case Reviewed(reason=reason):
                self._lines(f"objection: {one_line(escape(reason), 200)}")
            case RetryScheduled():
                self._lines(
                    f"attempt {event.attempt} failed, the next in {duration(event.delay_s)}: "
                    f"{one_line(escape(event.error), 200)}"
                )
            case CheckStarted(command=command):
                self._lines(f"> check: {one_line(escape(command), 200)}")
            case CheckFinished():
                self._lines(check_line(event), *check_output(event))
            case Warned(text):
                self._lines(f"warning: {escape(text)}")
            case StepStarted():
                self._usage, self._streamed = Usage(), ""
                self._lines()
            case StepFinished(step=step, duration_s=took):
                self._lines(step_line(step, self._usage, took))
            case _ if note := context_note(event):
                self._lines(note)

    def finish(self, summary: Summary) -> None:
        """Write the answer and the result."""
        if summary.state.answer and not self._is_shown(summary.state.answer):
            self._lines()
            write_answer(self._answer, summary.state.answer)
        self._lines(*summary_lines(summary))

    def paused(self) -> AbstractContextManager[None]:
        """Do nothing: lines are never redrawn."""
        return nullcontext()

    def close(self) -> None:
        """Do nothing."""

    def _stream(self, text: str) -> None:
        if not self._streamed:
            text = text.lstrip("\n")
        self._streamed += text
        text = self._held + text
        self._held = "\r" if text.endswith("\r") else ""  # the beginning of a line's end, perhaps
        if text := text.removesuffix("\r"):
            self._answer.write(escape(text))
            self._answer.flush()
            self._in_line = not text.endswith("\n")

    def _is_shown(self, answer: str) -> bool:
        return self._streamed.strip() == answer.strip()

    def _tool(self, event: ToolFinished) -> None:
        result = event.result
        call, kind = self._calls.pop(result.call_id, (ToolCall("", result.name), ""))
        folded = fold_result(result, kind)
        mark = "" if result.outcome is Outcome.OK else f" [{result.outcome}]"
        first, *code = call_lines(call)
        took = duration(event.command_s)
        self._lines(f"> {first}", *code, f"  {folded.headline}{mark} ({took})")
        omitted = folded.omitted if folded.lines else 0
        if folded.tail:
            self._omitted(omitted, "earlier line")
        self._lines(*(f"  {line}" for line in folded.lines))
        if not folded.tail:
            self._omitted(omitted)
        if result.diff:
            diff = diff_lines(result.diff)
            self._lines(*(f"  {line}" for line in diff.lines))
            self._omitted(diff.omitted)

    def _omitted(self, count: int, noun: str = "more line") -> None:
        if count:
            self._lines(f"  ... {counted(count, noun)}")

    def _lines(self, *lines: str) -> None:
        if self._in_line or self._held:
            self._in_line, self._held = False, ""
            self._answer.write("\n")
            self._answer.flush()
        self._log.write("".join(f"{line}\n" for line in lines))
        self._log.flush()


class JsonRenderer:
    """Writes one JSON object at the end."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def event(self, event: Event) -> None:
        """Do nothing: only the result is written."""

    def finish(self, summary: Summary) -> None:
        """Write the result."""
        _write_json(self._out, result_object(summary))

    def paused(self) -> AbstractContextManager[None]:
        """Do nothing: lines are never redrawn."""
        return nullcontext()

    def close(self) -> None:
        """Do nothing."""


class StreamRenderer:
    """Writes one JSON object per line for each event: ``session`` first, ``result`` last."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def event(self, event: Event) -> None:
        """Write the event; ``finish`` writes the line for the end of the run."""
        if isinstance(event, RunFinished):
            return
        record = to_record(event)
        name = record.pop("kind")
        _write_json(
            self._out, {"type": "session" if isinstance(event, SessionStarted) else name, **record}
        )

    def finish(self, summary: Summary) -> None:
        """Write the result."""
        _write_json(self._out, {"type": "result", **result_object(summary)})

    def paused(self) -> AbstractContextManager[None]:
        """Do nothing: lines are never redrawn."""
        return nullcontext()

    def close(self) -> None:
        """Do nothing."""


def result_object(summary: Summary) -> dict[str, Any]:
    """The object that ``--output json`` prints; steps, usage and cost are of this run only."""
    state = summary.state
    used = state.used
    unknown = not used.usage.total_tokens and steps_of(state) > 0  # the server reports none
    tokens = {each.name: getattr(used.usage, each.name) for each in fields(used.usage)}
    return {
        "status": str(state.status or Status.FAILED),
        "stop_reason": str(state.stop or ""),
        "final_answer": state.answer,
        "detail": state.detail,
        "error": _error(state),
        "session_id": state.session_id,
        "steps": steps_of(state),
        "usage": dict.fromkeys(tokens) if unknown else tokens,
        "cost_usd": used.cost_usd,
        "files_changed": list(state.files_changed),
        "checks": [
            {"command": check.command, "passed": check.passed, "exit_code": check.exit_code}
            for check in state.check_results
        ],
        "duration_s": round(summary.duration_s, 3),
    }


def _error(state: AgentState) -> dict[str, Any] | None:
    """The class of the error that ended the run, and where it arose; None if there was none."""
    if not state.error:
        return None
    place = state.place or Place()
    return {"type": state.error, **asdict(place)}


def steps_of(state: AgentState) -> int:
    """The number of this run's steps, including one that was cut short."""
    return state.used.steps + (state.running_step > state.step)


def summary_lines(summary: Summary) -> list[str]:
    """The result of a run in lines for people, without what has already been shown."""
    state = summary.state
    used = state.used
    facts = [ending_words(state.status, state.stop)] if state.status and state.stop else []
    facts += [counted(steps_of(state), "step"), usage_line(used.usage)]
    if used.cost_usd:
        facts.append(dollars(used.cost_usd))
    facts.append(duration(summary.duration_s))
    lines = [" · ".join(facts)]
    # The caller prints a failure as an error line.
    if state.detail and state.status is not Status.FAILED:
        lines.append(escape(state.detail))
    if state.files_changed:
        lines.append(escape(f"changed {', '.join(state.files_changed)}"))
    if state.session_id:
        lines.append(f"session {state.session_id}: agentcli sessions show {state.session_id}")
        resumable = state.status in (Status.CANCELLED, Status.STOPPED, Status.FAILED)
        if resumable and not summary.goes_on:
            lines.append(f"go on with: agentcli run --session {state.session_id}")
    return lines


def write_answer(out: TextIO, answer: str) -> None:
    """Write the answer unchanged, except that control characters are escaped on a terminal."""
    text = escape(answer) if out.isatty() else encodable(answer)
    out.write(text if text.endswith("\n") else f"{text}\n")
    out.flush()


def _write_json(out: TextIO, value: dict[str, Any]) -> None:
    out.write(json.dumps(value) + "\n")
    out.flush()
