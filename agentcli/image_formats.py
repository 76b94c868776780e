"""The image formats that all providers accept, recognized by their content."""

from __future__ import annotations

import struct

MAX_BYTES = 3_900_000
"""Per image. In base64 this is the limit of the strictest provider (5 MiB)."""
MAX_SIDE = 8000
"""The strictest provider's limit of an image's width and height, in pixels."""
MAX_IMAGES = 20

_NAMES = {"image/png": "PNG", "image/jpeg": "JPEG", "image/gif": "GIF", "image/webp": "WebP"}


def media_type(data: bytes) -> str | None:
    """The media type of an image by its first bytes; None if no provider accepts it."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "image/webp"
    return None


def pixels(data: bytes) -> tuple[int, int] | None:
    """The width and height of an image of one of these formats; None if it is damaged."""
    readers = {"image/png": _png, "image/jpeg": _jpeg, "image/gif": _gif, "image/webp": _webp}
    try:
        found = readers[media_type(data) or ""](data)
    except (LookupError, struct.error):
        return None
    return found if found and min(found) > 0 else None


def described(data: bytes) -> str:
    """Format, width x height and bytes of an image of one of these formats."""
    size = pixels(data)
    words = [_NAMES[media_type(data) or ""], "x".join(map(str, size)) if size else ""]
    return ", ".join(filter(None, [*words, f"{len(data):,} bytes"]))


def unfit(data: bytes) -> str:
    """Why no model could be shown an image of one of these formats; empty if one could."""
    if len(data) > MAX_BYTES:
        return (
            f"{len(data) / 1e6:.1f} MB is more than the {MAX_BYTES / 1e6:.1f} MB that models accept"
        )
    size = pixels(data)
    if size is None:
        return "it is damaged"
    return f"models accept at most {MAX_SIDE:,} pixels a side" if max(size) > MAX_SIDE else ""


def _png(data: bytes) -> tuple[int, int] | None:
    width, height = struct.unpack_from(">II", data, 16)
    return (width, height) if data[12:16] == b"IHDR" else None


def _gif(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height


def _jpeg(data: bytes) -> tuple[int, int] | None:
    """Read the first frame header; other segments before it are skipped by their lengths."""
    place = 2
    while data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:  # padding
            place += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, place + 5)
            return width, height
        else:
            (length,) = struct.unpack_from(">H", data, place + 2)
            place += 2 + length
    return None


def _webp(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        (width,) = struct.unpack("<I", data[24:27] + b"\0")
        (height,) = struct.unpack("<I", data[27:30] + b"\0")
        return width + 1, height + 1
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None
