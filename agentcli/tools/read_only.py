"""Commands that only read: in a sandbox they need no approval.

What is listed here can neither write nor run anything, except for options that are refused. When in
doubt, a command is not listed: then the user is asked. See ``purpose.py`` for a guess.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from agentcli.tools.command_line import Segment

_ALWAYS = frozenset(
    (
        *("ls", "cat", "head", "tail", "wc", "nl", "stat", "du", "df", "grep"),
        *("cut", "tr", "cmp", "diff", "basename", "dirname", "realpath", "readlink", "which"),
        *("whoami", "uname"),
    )
)
"""These have no option that writes or runs anything, so their words need not even be known."""

# GNU programs and git accept the beginning of a long option, hence a few more are refused.
_OUTPUT = r"--(?!oneline$)o.*|--e(?!xit-code$).*"  # --output, --ext-diff
_REFUSED: Mapping[str, str] = {
    "find": r"-(exec|ok|delete|fls|fprint).*",
    # Decompression starts programs such as xz. A letter after others may be an option's value.
    "rg": r"--(pre|pre-glob|hostname-bin|search-zip)(=.*)?|-(?!-).*z.*",
    "sort": r"-\w*[oT].*|--[oct].*",  # --output, --compress-program, --temporary-directory
    "uniq": r"(?!-[cdDiuz]+$).*",  # its second file is written
    "git status": r"(?!)",
    "git ls-files": r"(?!)",
    "git rev-parse": r"(?!)",
    "git diff": _OUTPUT,
    "git log": _OUTPUT,
    "git show": _OUTPUT,
    "git blame": _OUTPUT,
    "git branch": r"(?!(-a|-r|-vv?|--show-current)$).*",
}
"""For each command, the words that it must not have."""

_PRINTED_LINES = re.compile(r"\d+(,(\d+|\$))?p")


def is_read_only(segment: Segment, *, git: bool) -> bool:
    """Whether a command only reads, whatever its arguments mean.

    ``git``: git's configuration is that of a repository that commands cannot change.
    """
    if segment.writes or not segment.words:
        return False
    program, *rest = segment.words
    if program in _ALWAYS:
        return True
    words = [word for word in rest if word is not None]
    if program is None or len(words) < len(rest):
        return False
    if program == "sed":
        prints = len(words) > 1 and words[0] == "-n" and _PRINTED_LINES.fullmatch(words[1])
        return bool(prints) and not any(word.startswith("-") for word in words[2:])
    if program == "git":
        # In another folder, git may obey a configuration that came with the project's files.
        if not git or segment.after_cd or not words:
            return False
        if words[0] == "--no-pager":
            words.pop(0)
        program = f"git {words.pop(0)}" if words else program
    elif " " in program:
        return False  # a program of that name, not git's command
    refused = _REFUSED.get(program)
    return refused is not None and not any(re.fullmatch(refused, w, re.S) for w in words)
