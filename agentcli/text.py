"""Prepares text for a model or a terminal: truncation, cleaning and escaping.

Nothing here depends on what the text means. Lengths are in characters.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

HEAD_SHARE = 0.6
"""How much of a cut text is its beginning: the rest, its end, is where errors tend to stand."""


@dataclass(frozen=True, slots=True)
class Truncated:
    """A text of which the middle may be missing. ``omitted`` characters were left out."""

    head: str
    tail: str = ""
    omitted: int = 0

    def __str__(self) -> str:
        """Head, one line that says how much is missing, and tail."""
        if not self.omitted:
            return self.head
        before = "" if self.head.endswith("\n") or not self.head else "\n"
        return f"{self.head}{before}{_notice(self.omitted)}\n{self.tail}"


def _notice(omitted: int) -> str:
    return f"[... {omitted} characters left out ...]"


def truncate(text: str, limit: int) -> Truncated:
    """Keep the head and the tail of a text, cut at line ends where one is near.

    ``str()`` of the result is no longer than ``limit``, as long as the limit leaves room for the
    notice itself (about 50 characters).
    """
    if len(text) <= limit:
        return Truncated(text)
    room = max(0, limit - len(_notice(len(text))) - 2)
    head = int(room * HEAD_SHARE)
    tail = len(text) - (room - head)
    # A line cut in two helps nobody; but one long line must not push everything out.
    line_end = text.rfind("\n", head - head // 4, head)
    if line_end != -1:
        head = line_end + 1
    line_start = text.find("\n", tail - 1, tail + (len(text) - tail) // 4)
    if line_start != -1:
        tail = line_start + 1
    return Truncated(text[:head], text[tail:], tail - head)


def clip(text: str, limit: int, mark: str = "…") -> str:
    """The beginning of a text, with a mark at the end where something is missing."""
    if len(text) <= limit:
        return text
    return text[: max(0, limit - len(mark))] + mark


def clip_line(line: str, limit: int) -> str:
    """A line of at most ``limit`` characters; a longer one says how much is missing."""
    if len(line) <= limit:
        return line
    return f"{line[:limit]} {_notice(len(line) - limit)}"


def one_line(text: str, limit: int = 80) -> str:
    """The text with every run of white space made one space, clipped: for titles and logs."""
    # Four times the limit is plenty for one line, and keeps long texts cheap.
    return clip(" ".join(text[: limit * 4].split()), limit)


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """``1 line``, ``1,200 lines``, ``2 matches``."""
    word = noun if number == 1 else plural or f"{noun}s"
    return f"{number:,} {word}"


# ESC (or its C1 twin) and what belongs to it: CSI, then the strings that end in ST or BEL (none of
# them crosses a line here, so that a sequence without an end cannot swallow the rest), then
# charset and two-character forms. Every branch is linear.
_ANSI = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b\]|\x9d)[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)?"
    r"|(?:\x1b[PX^_]|[\x90\x98\x9e\x9f])[^\x1b\x9c\n]*(?:\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]"
)

_UNSAFE = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls but tab and newline
    "\u00ad\u061c\u180e\u200b\u200e\u200f"  # soft hyphen, marks without width or that turn text
    "\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # separators, bidi embeddings and isolates
    "\ud800-\udfff"  # halves of surrogate pairs: no terminal encodes them
    "\U000e0000-\U000e007f"  # tags: text that nobody sees
    "]"
)


def strip_ansi(text: str) -> str:
    """The text without colours, cursor movements, titles and hyperlinks."""
    return _ANSI.sub("", text) if "\x1b" in text or re.search("[\x80-\x9f]", text) else text


def escape(text: str) -> str:
    r"""Make visible what could act on a terminal or deceive its reader.

    Control characters, ANSI sequences, bidirectional overrides and invisible characters become
    ``\x1b``, ``\u202e`` and so on; tabs and newlines stay, CRLF becomes a newline. The result can
    be printed anywhere, and two texts that differ look different.
    """
    return _UNSAFE.sub(_escaped, text.replace("\r\n", "\n"))


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code == 0x0D:
        return r"\r"
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def plain_output(text: str) -> str:
    """What a command printed, as a reader would see it in the end.

    ANSI sequences are gone, CRLF is a newline, and of a line that was drawn over and over with
    carriage returns (a progress bar) the last state stays.
    """
    text = strip_ansi(text).replace("\r\n", "\n")
    if "\r" not in text:
        return text
    return "\n".join(_last_state(line) for line in text.split("\n"))


def _last_state(line: str) -> str:
    return line.rstrip("\r").rpartition("\r")[2]


def encodable(text: str) -> str:
    """The text with every half of a surrogate pair replaced, so that UTF-8 can hold it."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return re.sub("[\ud800-\udfff]", "\ufffd", text)
    return text
