"""Source code in calm colours."""

from __future__ import annotations

from pygments.token import Token
from pygments.util import ClassNotFound
from textual.content import Content
from textual.highlight import HighlightTheme, highlight


class CalmTheme(HighlightTheme):
    """Few colours, no underlines: code is read, not admired."""

    STYLES = {  # noqa: RUF012
        Token.Comment: "$foreground 50% italic",
        Token.Error: "",
        Token.Keyword: "$secondary",
        Token.Keyword.Constant: "$warning",
        Token.Literal.Number: "$warning",
        Token.Literal.String: "$success",
        Token.Literal.String.Doc: "$foreground 60% italic",
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
    if len(code) > _MAX_CHARS or not (language or path):
        return Content(code)
    try:
        found = highlight(code, language=language, path=path, theme=CalmTheme)
    except ClassNotFound:
        return Content(code)
    # Without the base colour that Textual lays below all: the widget has one.
    return Content(found.plain, [span for span in found.spans if span.style != "$text"])
