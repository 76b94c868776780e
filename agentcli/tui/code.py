"""Syntax highlighting with few colours."""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import PurePath

from pygments.lexers import LEXERS
from pygments.token import Token
from textual.content import Content
from textual.highlight import HighlightTheme, highlight


class CalmTheme(HighlightTheme):
    """Few colours and no underlines."""

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
    """Highlighted code; plain if it is too long or its language is unknown.

    ``code`` must already be escaped (``agentcli.text.escape``) and its tabs expanded.
    """
    known = _known(language) if language else _language_of(PurePath(path).name) if path else None
    if known is None or len(code) > _MAX_CHARS:
        return Content(code)
    found = highlight(code, language=known, theme=CalmTheme)
    if found.plain != code:  # a lexer may drop blank lines at either end; the text must be exact
        return Content(code)
    # Drop the base colour that Textual adds: the widget has its own.
    return Content(found.plain, [span for span in found.spans if span.style != "$text"])


# To find a file's lexer, Pygments itself imports all lexers, which takes half a second.


@lru_cache(maxsize=256)
def _known(language: str) -> str | None:
    """Pygments' name of a language, without searching for plugins; None if unknown."""
    name = language.lower()
    return name if any(name in aliases for _, _, aliases, _, _ in LEXERS.values()) else None


@lru_cache(maxsize=256)
def _language_of(name: str) -> str | None:
    """The language for a file name; of several candidates, the one named like the suffix."""
    suffix = name.rpartition(".")[2].lower()
    found = [
        aliases
        for _, _, aliases, patterns, _ in LEXERS.values()
        if aliases and any(fnmatchcase(name, pattern) for pattern in patterns)
    ]
    found.sort(key=lambda aliases: suffix not in aliases)
    return found[0][0] if found else None
