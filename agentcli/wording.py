"""Describes a run's events in words, for the terminal and for plain output.

These are pure functions; everything they return is safe to print (``agentcli.text.escape``).
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agentcli.agent.events import (
    CandidateTried,
    CheckFinished,
    Compacted,
    CompactionUndone,
    Event,
    ModelChanged,
    PrefixBroken,
    SessionStarted,
    SoftCapReached,
)
from agentcli.messages import Outcome, ToolCall, ToolResult, Usage
from agentcli.text import clip, counted, escape, one_line, plain_output
from agentcli.tools.base import MATCHES

MAX_DIFF_LINES = 40
MAX_OUTPUT_LINES = 6
MAX_ERROR_LINES = 4
MAX_CODE_LINES = 8
_MAX_WIDTH = 200

_SHOWN_BARE = ("path", "pattern", "command", "code", "expression", "query", "url")
_VERBATIM = ("command", "code")
_NOT_SHOWN = ("content", "old", "new")
_SHOWN_BY_RESULT = {"todo": "items", "plan": "steps"}
_READ_KINDS = ("read", "search", "plan")
_NETWORKS = {
    "none": "none",
    "loopback": "their own loopback",
    "allow": "listed domains",
    "full": "everything you can reach",
}
_LEVELS = {
    "full": "full (own namespaces, nothing outside the workspace can be written)",
    "reduced": "reduced (without bubblewrap; see: agentcli doctor)",
    "none": "none (tools run with your own rights)",
}


@dataclass(frozen=True, slots=True)
class Folded:
    """A shortened result: a headline, some of its lines, and how many lines are left out.

    ``tail``: the omitted lines come before the shown ones, otherwise after them.
    """

    headline: str
    lines: tuple[str, ...] = ()
    omitted: int = 0
    tail: bool = False


def describe_call(call: ToolCall, width: int = 100) -> str:
    """A call in one line: its name and its most informative arguments."""
    arguments = _arguments(call)
    if arguments is None:
        return one_line(escape(f"{call.name} {call.arguments[: width * 4]}"), width)
    return _described(call.name, arguments, width)


def call_lines(call: ToolCall, width: int = 100) -> list[str]:
    """A call with the first lines of its command or code, indented."""
    arguments = _arguments(call) or {}
    for name in _VERBATIM:
        text = arguments.get(name)
        if isinstance(text, str) and "\n" in text.strip("\n"):
            rest = {other: value for other, value in arguments.items() if other != name}
            lines = text.strip("\n").split("\n")
            shown = [escape(clip(line, width)) for line in lines[:MAX_CODE_LINES]]
            more = len(lines) - len(shown)
            return [
                _described(call.name, rest, width),
                *(f"    {line}" for line in shown),
                *([f"    … {counted(more, 'more line')}"] if more else []),
            ]
    return [describe_call(call, width)]


def _arguments(call: ToolCall) -> Mapping[str, Any] | None:
    try:
        arguments = json.loads(call.arguments or "{}")
    except (ValueError, RecursionError):
        return None
    return arguments if isinstance(arguments, Mapping) else None


def _described(name: str, arguments: Mapping[str, Any], width: int) -> str:
    words = [one_line(escape(name), width)]
    for key in _SHOWN_BARE:
        if (value := arguments.get(key)) not in (None, ""):
            words.append(_value(key, value, width))
    hidden = (*_SHOWN_BARE, *_NOT_SHOWN, _SHOWN_BY_RESULT.get(name))
    for key, value in arguments.items():
        if key not in hidden and value is not None:
            words.append(f"{_value('', key, width)}={_value(key, value, width)}")
    return clip(" ".join(word for word in words if word), width)


def _value(name: str, value: Any, width: int) -> str:
    try:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    except RecursionError:
        text = "…"
    if name in _VERBATIM:  # white space may matter here, or hide something
        return escape(text[: width * 4]).replace("\n", r"\n")
    return one_line(escape(text[: width * 4]), width)


def fold_result(result: ToolResult, kind: str) -> Folded:
    """Shorten a result to what is of interest: the end of a command's output, names of images."""
    folded = _folded(result, kind)
    shown = (folded.headline, *folded.lines)
    marks = [f"[image {escape(one_line(image.name or 'image'))}" for image in result.images]
    unnamed = [
        f"{mark}]"
        for mark in marks
        if not any(line.startswith((f"{mark}:", f"{mark}]")) for line in shown)
    ]
    return replace(folded, lines=(*folded.lines, *unnamed)) if unnamed else folded


def _folded(result: ToolResult, kind: str) -> Folded:
    lines = escape(plain_output(result.content)).rstrip("\n").split("\n")
    if result.outcome is Outcome.OK and result.name in _SHOWN_BY_RESULT:
        first, *others = (clip(line, _MAX_WIDTH) for line in lines)
        return Folded(first, tuple(others))
    if result.outcome is Outcome.OK and kind in _READ_KINDS:
        first = clip(lines[0].replace("\t", "  "), 100)
        return Folded(first if len(lines) == 1 else _count(result.data, len(lines)))
    headline = clip(lines[0], _MAX_WIDTH)
    rest = [clip(line, _MAX_WIDTH) for line in lines[1:] if line.strip()]
    if result.outcome not in (Outcome.OK, Outcome.FAILED):
        shown = rest[:MAX_ERROR_LINES]
        return Folded(headline, tuple(shown), len(rest) - len(shown))
    shown = rest[-MAX_OUTPUT_LINES:] if kind not in ("edit", *_READ_KINDS) else []
    # ``data`` also counts the lines that the tool removed from the middle.
    omitted = max(len(rest), _number(result.data, "lines") or 0) - len(shown)
    return Folded(headline, tuple(shown), omitted, tail=bool(shown))


def last_lines(output: bytes, count: int, width: int = _MAX_WIDTH) -> list[str]:
    """The last lines that a command has printed, without empty ones."""
    text = escape(plain_output(output.decode("utf-8", errors="replace"))).expandtabs(4)
    return [clip(line, width) for line in text.split("\n") if line.strip()][-count:]


def _count(data: Mapping[str, Any], lines: int) -> str:
    """How much was read or found, by the tool's own count if it gives one."""
    more = ", and there are more" if data.get("more") is True else ""
    if (matches := _number(data, MATCHES)) is not None:
        return counted(matches, "match", "matches") + more
    if (entries := _number(data, "entries")) is not None:
        return counted(entries, "entry", "entries") + more
    shown = _number(data, "lines")
    total = _number(data, "total_lines")
    if shown is not None and total is not None and shown < total:
        return f"{shown:,} of {counted(total, 'line')}"
    return counted(lines if shown is None else shown, "line")


def _number(data: Mapping[str, Any], key: str) -> int | None:
    value = data.get(key)
    return value if type(value) is int else None


def _is_head(lines: Sequence[str]) -> bool:
    """Whether a file's header starts here. A removed line ``-- x`` looks like half of one."""
    old, new, *hunk = lines
    is_pair = old.startswith("--- ") and new.startswith("+++ ")
    return is_pair and (not hunk or hunk[0].startswith("@@ "))


def diff_lines(diff: str) -> Folded:
    """A unified diff, shortened to fit a screen; files are named if there are several."""
    lines = [line.rstrip("\r") for line in diff.rstrip("\n").split("\n")]
    heads = [n for n in range(len(lines) - 1) if _is_head(lines[n : n + 3])]
    body: list[str] = []
    for place, end in itertools.pairwise([*sorted({0, *heads}), len(lines)]):
        headed = place in heads
        if headed and len(heads) > 1:
            gone = lines[place + 1] == "+++ /dev/null"
            body.append(lines[place if gone else place + 1][len("+++ b/") :])
        body += lines[place + 2 * headed : end]
    shown = [clip(escape(clip(line, _MAX_WIDTH)), _MAX_WIDTH) for line in body[:MAX_DIFF_LINES]]
    return Folded("", tuple(shown), max(0, len(body) - MAX_DIFF_LINES))


_REACH = (
    "this small model fixes single bugs that a test shows, and answers simple questions; "
    "for more, set ANTHROPIC_API_KEY or OPENAI_API_KEY, or choose another model"
)


def session_lines(session: SessionStarted) -> list[str]:
    """The lines shown at the start of a run."""
    return [
        escape(f"agentcli {session.version} · {session.model} · mode {session.mode}"),
        *([_REACH] if session.model == "embedded" else []),
        escape(f"workspace {session.workspace}"),
        f"sandbox {_LEVELS.get(session.sandbox, escape(session.sandbox))}",
        f"network of commands: {_NETWORKS.get(session.network, escape(session.network))}",
    ]


def usage_line(usage: Usage) -> str:
    """Tokens in and out, and how much of the input came from a cache, if the server tells."""
    if not usage.total_tokens:
        return "no tokens reported"
    cached = f" ({usage.cached_tokens:,} cached)" if usage.cached_tokens else ""
    return f"{usage.input_tokens:,} tokens in{cached}, {usage.output_tokens:,} out"


def step_line(step: int, usage: Usage, seconds: float) -> str:
    """The tokens of a step, cached and fresh, and its duration."""
    parts = f"{usage.cached_tokens:,} cached, {usage.fresh_tokens:,} fresh"
    tokens = f"{usage.input_tokens:,} tokens in ({parts}), {usage.output_tokens:,} out"
    tokens = tokens if usage.total_tokens else usage_line(usage)
    return f"step {step} · {tokens} · {duration(seconds)}"


_CAUSES = {
    "model": "another model answers",
    "tools": "the tools have changed",
    "prompt": "the prompt has changed",
    "compaction": "the conversation was compacted",
    "history": "the conversation has changed",
    "expired": "the provider no longer held them",
}


def context_note(event: Event) -> str | None:
    """Describe a change of the model's context or a soft cap; None for other events."""
    match event:
        case Compacted():
            return (
                f"conversation compacted ({event.cause}): about {event.tokens_before:,} tokens "
                f"are {event.tokens_after:,} now"
            )
        case CompactionUndone():
            return "the last compaction was undone"
        case PrefixBroken():
            why = _CAUSES.get(event.cause, event.cause)
            return f"about {counted(event.tokens_lost, 'token')} must be read again: {why}"
        case SoftCapReached():
            # A share of a whole number, such as 2.4 of 3 steps, is reached at the next one.
            cap = event.limit if event.cap in ("cost_usd", "time_s") else math.ceil(event.limit)
            return f"soft cap reached: {_used(event)} (cap {cap:g})"
    return None


_OF = {"cost_usd": "US dollars", "time_s": "seconds", "tool_calls_of_limit": "tool calls"}


def _used(reached: SoftCapReached) -> str:
    """``40 tool calls``, ``3 failed edits of a.py``."""
    cap, _, of = reached.cap.partition(" ")
    what = _OF.get(cap, cap.replace("_", " "))
    return f"{reached.used:g} {what}{f' of {escape(of)}' if of else ''}"


def duration(seconds: float) -> str:
    """``0.4 s``, ``12 s``, ``3 min 5 s``, ``2 h 4 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def dollars(cost: float | None) -> str:
    """``$0.0123``; ``unknown`` for None."""
    return "unknown" if cost is None else f"${cost:.4f}"


def check_line(check: CheckFinished) -> str:
    """A check and how it ended."""
    ended = "passed" if check.passed else "failed"
    code = "" if check.passed or check.exit_code is None else f" (exit code {check.exit_code})"
    return escape(f"check {ended}{code}: {check.command}")


def candidate_line(tried: CandidateTried) -> str:
    """An edit that was tried on a copy of the workspace, and its result."""
    match tried.failures:
        case None:
            came = "breaks more than tests"
        case 0:
            came = "all tests pass"
        case failures:
            came = f"{counted(failures, 'test')} {'fails' if failures == 1 else 'fail'}"
    return f"tried on a copy: {_edited(tried.call)}: {came}"


def _edited(call: ToolCall, width: int = 100) -> str:
    """An edit by its file and the lines that it makes, or takes away."""
    arguments = _arguments(call) or {}
    path, old, new = (arguments.get(name) for name in ("path", "old", "new"))
    if not (isinstance(path, str) and isinstance(old, str) and isinstance(new, str)):
        return describe_call(call, width)
    was, now = (text.split("\n") for text in (old, new))
    made = " / ".join(line.strip() for line in now if line not in was and line.strip())
    gone = " / ".join(line.strip() for line in was if line not in now and line.strip())
    lines = made or (f"without {gone}" if gone else " / ".join(map(str.strip, now)))
    return one_line(escape(f"{path}: {lines}"), width)


def check_output(check: CheckFinished) -> list[str]:
    """The end of what a failed check printed."""
    if check.passed:
        return []
    lines = [line for line in escape(plain_output(check.output)).split("\n") if line.strip()]
    return [f"  {clip(line, _MAX_WIDTH)}" for line in lines[-MAX_OUTPUT_LINES:]]


def model_changed(before: str, change: ModelChanged) -> str:
    """Which model failed, why, and which one replaces it."""
    reason = one_line(change.reason, _MAX_WIDTH)
    return escape(f"model {before} failed: {reason}; continuing with {change.model}")
