"""File names in a tool's output: ambiguous ones and those with control characters are quoted."""

from __future__ import annotations

import json
import re

from agentcli.sandbox.nested import NAMES

# Controls, halves of surrogate pairs, what separates lines or turns the direction of text.
_UNCLEAR = re.compile(
    '["\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]'
)


def shown_name(name: str) -> str:
    r"""The name as it is, or as a JSON string (``"new\nline.txt"``) where it holds such letters.

    A double quote counts as one of them, so that nothing else looks like a quoted name.
    """
    return json.dumps(name) if _UNCLEAR.search(name) else name


def meant_name(given: str) -> str:
    """The name that ``shown_name`` has shown; anything else means itself."""
    if len(given) > 2 and given[0] == given[-1] == '"':
        try:
            name = json.loads(given)
        except ValueError:
            return given
        if isinstance(name, str) and shown_name(name) == given:
            return name
    return given


def obeyed_note(path: str) -> str:
    """A line for a file that a shell, an editor or git may run or obey; empty for others."""
    if NAMES.union({".git"}).isdisjoint(path.split("/")):
        return ""
    return "\n[note: the user's shell, editor or git may run or obey this file]"
