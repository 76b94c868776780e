"""File names in a tool's output; ambiguous names and control characters are quoted."""

from __future__ import annotations

import json
import re

from agentcli.sandbox.nested import NAMES

# Control characters, surrogates, line separators, and characters that change text direction.
_UNCLEAR = re.compile(
    '["\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]'
)


def shown_name(name: str) -> str:
    r"""The name itself, or a JSON string (``"new\nline.txt"``) if it has unclear characters.

    A double quote counts as one, so that no other name looks like a quoted one.
    """
    return json.dumps(name) if _UNCLEAR.search(name) else name


def meant_name(given: str) -> str:
    """Inverse of ``shown_name``; anything else stands for itself."""
    if len(given) > 2 and given[0] == given[-1] == '"':
        try:
            name = json.loads(given)
        except ValueError:
            return given
        if isinstance(name, str) and shown_name(name) == given:
            return name
    return given


def obeyed_note(path: str) -> str:
    """A warning if a shell, an editor or git may run or obey the file; empty otherwise."""
    if NAMES.union({".git"}).isdisjoint(path.split("/")):
        return ""
    return "\n[note: the user's shell, editor or git may run or obey this file]"
