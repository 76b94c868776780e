"""Source code in calm colours."""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import PurePath

from pygments.lexers import LEXERS
from pygments.token import Token
from textual.content import Content
from textual.highlight import HighlightTheme, highlight


class CalmTheme(HighlightTheme):
    """Few colours, no underlines: code is read, not admired."""

    STYLES = {  # noqa: RUF012
        Token.Comment: "$muted italic",
        Token.Error: "",
        Token.Keyword: "$secondary",
        Token.Keyword.Constant: "$warning",
        Token.Literal.Number: "$warning",
        Token.Literal.String: "$success",
        Token.Literal.String.Doc: "$muted italic",
        Token.Literal.String.Escape: "$accent",
        Token.Name.Attribute: "$accent",
        Token.Name.Builtin: "$accent",
        Token.Name.Class: "$primary",
        Token.Name.Decorator: "$primary",
        Token.Name.Exception: "$primary",
        Token.Name.Function: "$primary",
        Token.Name.Tag: "$secondary",
        Token.Operator.Word: "$secondary",
        Token.Generic.Deleted: "$error",
        Token.Generic.Inserted: "$success",
        Token.Generic.Heading: "$primary bold",
        Token.Generic.Subheading: "$primary",
    }


_MAX_CHARS = 100_000


def coloured(code: str, *, language: str | None = None, path: str | None = None) -> Content:
    """Code with its colours; what is too long or of no known language stays plain.

    ``code`` must be safe to show already (``agentcli.text.escape``), with its tabs expanded.
    """
    known = _known(language) if language else _language_of(PurePath(path).name) if path else None
    if known is None or len(code) > _MAX_CHARS:
        return Content(code)
    found = highlight(code, language=known, theme=CalmTheme)
    if found.plain != code:  # a lexer may drop blank lines at an end: the text goes before colours
        return Content(code)
    # Without the base colour that Textual lays below all: the widget has one.
    return Content(found.plain, [span for span in found.spans if span.style != "$text"])


# Pygments itself would load every lexer there is to name the one for a file: half a second.


@lru_cache(maxsize=256)
def _known(language: str) -> str | None:
    """The name by which Pygments knows a language without looking for plugins."""
    name = language.lower()
    return name if any(name in aliases for _, _, aliases, _, _ in LEXERS.values()) else None


@lru_cache(maxsize=256)
def _language_of(name: str) -> str | None:
    """The language of a file by its name; of several that which is named like its suffix."""
    suffix = name.rpartition(".")[2].lower()
    found = [
        aliases
        for _, _, aliases, patterns, _ in LEXERS.values()
        if aliases and any(fnmatchcase(name, pattern) for pattern in patterns)
    ]
    found.sort(key=lambda aliases: suffix not in aliases)
    return found[0][0] if found else None
