"""The approval question before a call runs: its text and its keys, for every front end.

Everything returned here is safe to print (``agentcli.text.escape``).
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from agentcli.text import clip, escape, one_line
from agentcli.tools.approval import Answer, Approval
from agentcli.tools.base import ToolKind
from agentcli.wording import call_lines

GUARD_S = 0.3
"""Earlier key presses are ignored: the user cannot have read the question yet."""
_RULE_WIDTH = 60
_WIDTH = 300


class Choice(NamedTuple):
    """A key, the answer it gives, and its label."""

    key: str
    answer: Answer
    words: str


def choices(approval: Approval) -> list[Choice]:
    """The possible answers."""
    if approval.effect is not None:
        return [Choice("y", Answer.ONCE, "apply"), Choice("n", Answer.NO, "discard")]
    found = [Choice("y", Answer.ONCE, "once"), Choice("a", Answer.SESSION, "for this session")]
    if approval.rule is not None:
        rule = clip(escape(str(approval.rule)), _RULE_WIDTH)
        found.append(Choice("p", Answer.PREFIX, f"always: {rule}"))
    found.append(Choice("n", Answer.NO, "no"))
    if approval.can_copy:
        found.append(Choice("c", Answer.COPY, "try it on a copy first"))
    return found


def answered_by(key: str, approval: Approval) -> Answer | None:
    """The answer that a key gives, or None."""
    return next((choice.answer for choice in choices(approval) if choice.key == key), None)


def asked(approval: Approval) -> str:
    """The question in one line."""
    if approval.effect is not None:
        return "It ran on a copy. Apply its changes?"
    match approval.spec.kind:
        case ToolKind.EDIT:
            return "Make this edit?"
        case ToolKind.CHECK:
            if approval.on_copy:
                return "Try edits on a copy of the workspace, with this check?"
            return "Run this check?"
        case _:
            return "Run this?"


def proposed(approval: Approval) -> list[str]:
    """The call, whole unless a diff shows what is approved.

    The parts of a command line that need approval follow it.
    """
    if diff_of(approval) or approval.effect is not None:
        return call_lines(approval.call, _WIDTH)
    arguments = dict(approval.arguments)
    lines = [escape(approval.call.name)]
    command = arguments.pop(approval.spec.command_argument, None)
    if isinstance(command, str):
        first, *more = _lines(command)
        lines = [f"$ {first}", *(f"  {line}" for line in more)]
    for name, value in arguments.items():
        lines += _argument(name, value)
    if approval.runs:
        lines += _argument("runs", approval.runs)
    if isinstance(command, str) and approval.segments not in ((), (command.strip(),)):
        lines.append("needs approval:")
        lines += [f"  · {one_line(escape(part), _WIDTH)}" for part in approval.segments]
    return lines


def _argument(name: str, value: Any) -> list[str]:
    """An argument in full; code speaks for itself, without its name."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    first, *more = _lines(text)
    if name == "code":
        return [f"    {line}" for line in (first, *more)]
    label = f"  {' '.join(_lines(name))}:"
    return [label, *(f"    {line}" for line in (first, *more))] if more else [f"{label} {first}"]


def _lines(text: str) -> list[str]:
    return escape(text).strip("\n").expandtabs(4).split("\n")


def diff_of(approval: Approval) -> str:
    """What the call changed on a copy, or would change; empty if nothing or not known."""
    return approval.diff if approval.effect is None else approval.effect
