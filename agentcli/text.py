"""Prepares text for a model or a terminal: truncation, cleaning and escaping.

All lengths are in characters.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

HEAD_SHARE = 0.6
"""The share of a truncated text that its head gets; the tail is kept as errors tend to be there."""

BETWEEN_OPTIONS = "\0"
"""Parts the texts of which an argument must be one; paths and code do not contain it."""


@dataclass(frozen=True, slots=True)
class Truncated:
    """A text whose middle may be missing. ``omitted`` characters were left out."""

    head: str
    tail: str = ""
    omitted: int = 0

    def __str__(self) -> str:
        """The head, a line that says how much is missing, and the tail."""
        if not self.omitted:
            return self.head
        before = "" if self.head.endswith("\n") or not self.head else "\n"
        return f"{self.head}{before}{_notice(self.omitted)}\n{self.tail}"


def _notice(omitted: int) -> str:
    return f"[... {omitted} characters left out ...]"


def truncate(text: str, limit: int) -> Truncated:
    """Keep the head and the tail of a text, cut at line ends if these are near.

    ``str()`` of the result is no longer than ``limit``, unless the limit is too small for the
    notice itself (about 50 characters).
    """
    if len(text) <= limit:
        return Truncated(text)
    room = max(0, limit - len(_notice(len(text))) - 2)
    head = int(room * HEAD_SHARE)
    tail = len(text) - (room - head)
    # Avoid cutting a line in two, but do not let one long line displace everything else.
    line_end = text.rfind("\n", head - head // 4, head)
    if line_end != -1:
        head = line_end + 1
    line_start = text.find("\n", tail - 1, tail + (len(text) - tail) // 4)
    if line_start != -1:
        tail = line_start + 1
    return Truncated(text[:head], text[tail:], tail - head)


def clip(text: str, limit: int, mark: str = "…") -> str:
    """Shorten a text to ``limit`` characters; ``mark`` shows that something is missing."""
    if len(text) <= limit:
        return text
    return text[: max(0, limit - len(mark))] + mark


def clip_line(line: str, limit: int) -> str:
    """Cut a line to ``limit`` characters and say how much is missing."""
    if len(line) <= limit:
        return line
    return f"{line[:limit]} {_notice(len(line) - limit)}"


def one_line(text: str, limit: int = 80) -> str:
    """Collapse white space into single spaces and clip the text; for titles and logs."""
    # Looking at four times the limit is enough, and keeps long texts cheap.
    return clip(" ".join(text[: limit * 4].split()), limit)


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """``1 line``, ``1,200 lines``, ``2 matches``."""
    word = noun if number == 1 else plural or f"{noun}s"
    return f"{number:,} {word}"


# ESC (or its C1 equivalent) and what belongs to it: CSI sequences; strings that end in ST or BEL
# (limited to one line here, so that an unterminated sequence cannot swallow the rest); charset and
# two-character forms. Every branch is linear.
_ANSI = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b\]|\x9d)[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)?"
    r"|(?:\x1b[PX^_]|[\x90\x98\x9e\x9f])[^\x1b\x9c\n]*(?:\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]"
)

_UNSAFE = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters except tab and newline
    "\u00ad\u061c\u180e\u200b\u200e\u200f"  # soft hyphen, zero-width and directional marks
    "\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # separators, bidi embeddings and isolates
    "\ud800-\udfff"  # surrogates: terminals cannot encode them
    "\U000e0000-\U000e007f"  # tags: invisible text
    "]"
)


def strip_ansi(text: str) -> str:
    """Remove colours, cursor movements, titles and hyperlinks."""
    return _ANSI.sub("", text) if "\x1b" in text or re.search("[\x80-\x9f]", text) else text


def escape(text: str) -> str:
    r"""Make characters visible that could control a terminal or deceive its reader.

    Control characters, ANSI sequences, bidirectional overrides and invisible characters become
    ``\x1b``, ``\u202e`` and so on; tabs and newlines stay, and CRLF becomes a newline. The result
    can be printed anywhere, and different texts look different.
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
    """The output of a command as it finally looks on a screen.

    ANSI sequences are removed, CRLF becomes a newline, and a line that was redrawn with carriage
    returns (a progress bar) keeps only its last state.
    """
    text = strip_ansi(text).replace("\r\n", "\n")
    if "\r" not in text:
        return text
    return "\n".join(_last_state(line) for line in text.split("\n"))


def _last_state(line: str) -> str:
    return line.rstrip("\r").rpartition("\r")[2]


def encodable(text: str) -> str:
    """Replace lone surrogates, so that the text can be encoded in UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return re.sub("[\ud800-\udfff]", "\ufffd", text)
    return text
