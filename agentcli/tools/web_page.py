"""Converts a web page to Markdown."""

from __future__ import annotations

import re
from urllib.parse import urljoin

_UNREAD = ("script", "style", "noscript", "template", "svg", "iframe", "object", "form", "button")
_LINKS = (("a", "href"), ("img", "src"))


def markdown_of(html: bytes, charset: str | None, url: str) -> str:
    """The main part of a page under its title, with absolute links.

    ``charset`` is the encoding given by the server; without it, the page's own declaration counts.
    A page that is nested too deeply becomes plain text.
    """
    from bs4 import BeautifulSoup  # takes 0.7 s with markdownify; most sessions never need it
    from markdownify import MarkdownConverter

    soup = BeautifulSoup(html, "html.parser", from_encoding=charset)
    title = soup.title.get_text(" ", strip=True) if soup.title else ""
    base = soup.find("base", href=True)
    origin = urljoin(url, str(base["href"])) if base else url
    for tag in soup.find_all(_UNREAD):
        tag.decompose()
    mains = soup.select("main, [role=main], article")
    main = mains[0] if len(mains) == 1 else soup.body or soup
    for name, attribute in _LINKS:
        for tag in main.find_all(name, attrs={attribute: True}):
            tag[attribute] = _whole(origin, str(tag[attribute]))
    try:
        text = MarkdownConverter(heading_style="ATX", bullets="-").convert_soup(main)
    except RecursionError:
        text = main.get_text("\n", strip=True)
    text = re.sub(r"[ \t]+\n", "\n", text)
    text = re.sub(r"\n{3,}", "\n\n", text).strip()
    return f"# {title}\n\n{text}" if title and not text.startswith("# ") else text


def _whole(origin: str, link: str) -> str:
    if link.startswith("data:"):
        return ""  # an embedded image
    try:
        return urljoin(origin, link)
    except ValueError:
        return link
