"""Reads the content blocks of an editor's prompt as the text and images of a task."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from acp import RequestError
from acp.schema import (
    BlobResourceContents,
    EmbeddedResourceContentBlock,
    ImageContentBlock,
    ResourceContentBlock,
    TextContentBlock,
    TextResourceContents,
)

from agentcli.image_formats import MAX_BYTES, media_type
from agentcli.messages import Image

_LINES = re.compile(r"L(\d+)(?:[-:]L?(\d+))?")


def read(prompt: Sequence[Any]) -> tuple[str, list[Image]]:
    """The text and images of a prompt; linked files appear as paths, embedded ones are quoted.

    Raises:
        RequestError: the prompt is empty, or a block is invalid or of an unsupported kind.
    """
    parts, images = [""], []
    for block in prompt:
        match block:
            case TextContentBlock(text=text):
                parts.append(_apart(parts[-1], text))
            case ImageContentBlock(data=data):
                images.append(_image(data, "image"))
            case ResourceContentBlock(uri=uri):
                parts.append(_apart(parts[-1], place(uri)))
            case EmbeddedResourceContentBlock(resource=TextResourceContents(uri=uri, text=text)):
                parts.append(f"\n{place(uri)}:\n{fenced(text)}\n")
            case EmbeddedResourceContentBlock(resource=BlobResourceContents(uri=uri, blob=data)):
                images.append(_image(data, uri))
            case _:
                raise RequestError.invalid_params({"block": type(block).__name__})
    text = "".join(parts).strip()
    if not text and not images:
        raise RequestError.invalid_params({"prompt": "is empty"})
    return text, images


def place(uri: str) -> str:
    """The path of a ``file:`` URI and the lines it names, if any; any other URI unchanged."""
    parts = urlsplit(uri)
    if parts.scheme != "file":
        return uri
    path = unquote(parts.path)
    lines = _LINES.fullmatch(parts.fragment)
    if lines is None:
        return path
    first, last = lines.groups()
    return f"{path} (lines {first}-{last})" if last else f"{path} (line {first})"


def _apart(before: str, text: str) -> str:
    """The next block, with a space if its first word would otherwise run into the last one."""
    runs_on = before and not before[-1].isspace() and (text[:1].isalnum() or text[:1] == "/")
    return f" {text}" if runs_on else text


def fenced(text: str) -> str:
    """Text as a fenced Markdown code block."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}\n{text.removesuffix(chr(10))}\n{fence}"


def _image(data: str, what: str) -> Image:
    """Decode an image. Its type is read from the content, as editors often state a wrong one."""
    try:
        content = base64.b64decode(data, validate=True)
    except binascii.Error:
        raise RequestError.invalid_params({what: "is not base64"}) from None
    kind = media_type(content)
    if kind is None:
        raise RequestError.invalid_params({what: "is not a PNG, JPEG, GIF or WebP image"})
    if len(content) > MAX_BYTES:
        size, most = f"{len(content) / 1e6:.1f} MB", f"{MAX_BYTES / 1e6:.1f} MB"
        raise RequestError.invalid_params({what: f"is too large: {size}; models take {most}"})
    return Image(content, kind)
