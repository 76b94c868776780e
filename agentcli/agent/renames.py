"""Renames: edits that exchange one name for another, and nothing else."""

from __future__ import annotations

import re
from keyword import iskeyword

from agentcli.agent.edit_calls import arguments_of
from agentcli.messages import ToolCall

_WORD = re.compile(r"[^\W\d]\w+")


def words_of(text: str) -> dict[str, None]:
    """The different words of a text that can be names, in order."""
    return {word: None for word in _WORD.findall(text) if not iskeyword(word)}


def rename(text: str, name: str, other: str) -> str:
    """Exchange a name for another in a text."""
    return re.sub(rf"\b{re.escape(name)}\b", other, text)


def renamed(edit: ToolCall, old: str, new: str) -> tuple[str, str] | None:
    """The name in a line and the new one, if nothing else is changed by an edit.

    ``old`` and ``new`` are the arguments that have the line before and after it.
    """
    arguments = arguments_of(edit)
    before, after = str(arguments.get(old, "")), str(arguments.get(new, ""))
    added = [word for word in words_of(after) if word not in words_of(before)]
    if len(added) != 1 or "\n" in before:
        return None
    names = [name for name in words_of(before) if rename(before, name, added[0]) == after]
    return (names[0], added[0]) if names else None


def asked_for(edit: ToolCall, old: str, new: str, message: str) -> tuple[str, str] | None:
    """``renamed``, if both names are words of the message."""
    found = renamed(edit, old, new)
    return found if found and words_of(message).keys() >= {*found} else None
