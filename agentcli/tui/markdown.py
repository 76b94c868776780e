"""Renders Markdown as lines for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markdown_it.tree import SyntaxTreeNode
from textual.content import Content, Span
from textual.style import Style

from agentcli.text import escape
from agentcli.tui.code import coloured
from agentcli.tui.lines import BLANK, NOTHING, Line, Piece, behind, shortened
from agentcli.tui.table import Table

_BULLETS = "•◦▪‣"
_CODE = "$accent on $foreground 8%"
_CODE_BLOCK = "on $foreground 5%"
_STYLES = {"strong": "bold", "em": "italic", "s": "strike"}
_LINKS = ("http://", "https://", "mailto:")

Colour = Callable[[str, str], Content]
"""A function from code and its language to highlighted code with the same text."""

# HTML is off: a model that writes List<int> means it literally. So is automatic linking.
_PARSER = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"])


@dataclass(frozen=True, slots=True)
class TopBlock:
    """A paragraph, list or other top-level block; ``line`` is its first source line, from 0."""

    line: int
    pieces: list[Piece]


def colour(code: str, language: str) -> Content:
    """The default ``Colour``."""
    return coloured(code, language=language or None)


def parse(source: str, colour: Colour = colour) -> list[TopBlock]:
    """The top-level blocks of a source that is already escaped (``agentcli.text.escape``)."""
    source = "\n".join(map(shortened, source.split("\n")))
    tree = SyntaxTreeNode(_PARSER.parse(source))
    writer = _Writer(colour)
    return [
        TopBlock(node.map[0] if node.map else 0, list(writer.block(node))) for node in tree.children
    ]


def pieces(source: str) -> list[Piece]:
    """The lines of a whole source, with blank lines between its blocks."""
    return list(apart(block.pieces for block in parse(source)))


def apart(blocks: Iterable[Iterable[Piece]]) -> Iterator[Piece]:
    """Join blocks with a blank line between them."""
    for nth, block in enumerate(blocks):
        if nth:
            yield BLANK
        yield from block


class _Writer:
    def __init__(self, colour: Colour) -> None:
        self._colour = colour
        self._depth = 0

    def block(self, node: SyntaxTreeNode) -> Iterable[Piece]:
        match node.type:
            case "heading":
                style = "bold underline $primary" if node.tag == "h1" else "bold $primary"
                return _lines(self._inline(node).stylize_before(style))
            case "fence" | "code_block":
                return self._code(node)
            case "bullet_list" | "ordered_list":
                return self._list(node)
            case "blockquote":
                inner = apart(self.block(child) for child in node.children)
                return behind(Content.styled("▌ ", "$foreground 25%"), inner)
            case "table":
                return [self._table(node)]
            case "hr":
                return [lambda width: [Line(Content.styled("─" * width, "$foreground 15%"))]]
            case "paragraph":
                return _lines(self._inline(node))
        return _lines(Content(node.content))

    def _code(self, node: SyntaxTreeNode) -> list[Piece]:
        language = node.info.split(" ")[0].strip() if node.type == "fence" else ""
        code = self._colour(node.content.rstrip("\n").expandtabs(4), language)
        pad = Content(" ")
        return [
            Line(text, gutter=pad, style=_CODE_BLOCK, folded=True)
            for text in code.split("\n", allow_blank=True)
        ]

    def _list(self, node: SyntaxTreeNode) -> Iterator[Piece]:
        self._depth += 1
        bullet = _BULLETS[(self._depth - 1) % len(_BULLETS)]
        first = int(node.attrs.get("start", 1))
        last = first + len(node.children) - 1
        tight = _is_tight(node)
        for number, item in enumerate(node.children, first):
            sign = f"{number:>{len(str(last))}}. " if node.type == "ordered_list" else f"{bullet} "
            if number > first and not tight:
                yield BLANK
            yield from self._item(item, Content.styled(sign, "$muted"), tight)
        self._depth -= 1

    def _item(self, item: SyntaxTreeNode, marker: Content, tight: bool) -> Iterator[Piece]:
        blocks = [list(self.block(child)) for child in item.children]
        inner = [piece for block in blocks for piece in block] if tight else list(apart(blocks))
        head = inner[0] if inner else BLANK
        if isinstance(head, Line) and not head.gutter.plain and not head.marker.plain:
            yield Line(head.text, marker)
            inner = inner[1:]
        else:
            yield Line(NOTHING, marker)
        yield from behind(Content(" " * marker.cell_length), inner)

    def _table(self, node: SyntaxTreeNode) -> Table:
        rows = [
            [self._inline(cell) for cell in row.children]
            for part in node.children
            for row in part.children
        ]
        head = node.children[0].children[0]
        sides = [str(cell.attrs.get("style", "")).rpartition(":")[2] for cell in head.children]
        return Table(rows[0], rows[1:], sides)

    def _inline(self, node: SyntaxTreeNode) -> Content:
        text = _Inline()
        for child in node.children:
            if child.type == "inline" and child.token is not None:
                text.add(child.token.children or ())
        return Content(text.plain, text.spans)


class _Inline:
    """Builds styled text from inline tokens."""

    def __init__(self) -> None:
        self.plain = ""
        self.spans: list[Span] = []

    def add(self, tokens: Sequence[Token]) -> None:
        opened: list[tuple[int, Token]] = []
        for token in tokens:
            if token.nesting == 1:
                opened.append((len(self.plain), token))
            elif token.nesting == -1:
                self._close(*opened.pop())
            elif token.type == "code_inline":
                self._put(token.content, _CODE)
            elif token.type == "image":
                self._put(f"[image {token.content}]", "$muted")
            elif token.type in ("softbreak", "hardbreak"):
                self.plain += "\n" if token.type == "hardbreak" else " "
            else:
                self.plain += escape(token.content)  # an entity such as &#x202e; is decoded by now

    def _close(self, start: int, opened: Token) -> None:
        style = _style(opened)
        if style and start < len(self.plain):
            self.spans.append(Span(start, len(self.plain), style))
        # Show the address: not every terminal can follow links, and none shows where they lead.
        address = _address(opened)
        if address and address.removeprefix("mailto:") != self.plain[start:]:
            self._put(f" ({address})", "$muted")

    def _put(self, text: str, style: str) -> None:
        if text:
            self.spans.append(Span(len(self.plain), len(self.plain) + len(text), style))
            self.plain += text


def _style(token: Token) -> Style | str:
    if token.type == "link_open":
        return Style(underline=True, link=_address(token) or None)
    return _STYLES.get(token.type.removesuffix("_open"), "")


def _address(token: Token) -> str:
    """The address of a web or mail link, else an empty string."""
    address = str(token.attrs.get("href", "")) if token.type == "link_open" else ""
    return address if address.startswith(_LINKS) else ""


def _lines(content: Content) -> list[Piece]:
    return [Line(line) for line in content.split("\n", allow_blank=True)]


def _is_tight(node: SyntaxTreeNode) -> bool:
    """Whether the source has no blank lines between the list's items."""
    paragraphs = [
        child for item in node.children for child in item.children if child.type == "paragraph"
    ]
    return all(paragraph.hidden for paragraph in paragraphs)
