"""Reads files as text: detects encodings, line endings, and the kind of binary files.

A ``TextFile`` encodes back to exactly the bytes it was read from, so that an edit changes nothing
else.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

from agentcli.errors import ToolError

_BOMS = (
    # UTF-32 first: its little-endian mark starts with that of UTF-16.
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "PNG image"),
    (b"\xff\xd8\xff", "JPEG image"),
    (b"GIF8", "GIF image"),
    (b"BM", "BMP image"),
    (b"\x00\x00\x01\x00", "icon"),
    (b"II*\x00", "TIFF image"),
    (b"MM\x00*", "TIFF image"),
    (b"%PDF", "PDF document"),
    (b"PK\x03\x04", "ZIP archive"),
    (b"PK\x05\x06", "ZIP archive"),
    (b"\x1f\x8b", "gzip data"),
    (b"BZh", "bzip2 data"),
    (b"\xfd7zXZ\x00", "xz data"),
    (b"\x28\xb5\x2f\xfd", "zstd data"),
    (b"7z\xbc\xaf\x27\x1c", "7-Zip archive"),
    (b"Rar!\x1a\x07", "RAR archive"),
    (b"\x7fELF", "ELF executable or library"),
    (b"MZ", "Windows executable or library"),
    (b"\xcf\xfa\xed\xfe", "Mach-O executable or library"),
    (b"\xca\xfe\xba\xbe", "Java class or Mach-O file"),
    (b"\x00asm", "WebAssembly module"),
    (b"SQLite format 3\x00", "SQLite database"),
    (b"\x93NUMPY", "NumPy array"),
    (b"\x89HDF", "HDF5 data"),
    (b"wOFF", "web font"),
    (b"wOF2", "web font"),
    (b"\x00\x01\x00\x00\x00", "TrueType font"),
    (b"OTTO", "OpenType font"),
    (b"ID3", "MP3 audio"),
    (b"fLaC", "FLAC audio"),
    (b"OggS", "Ogg media"),
    (b"\x1aE\xdf\xa3", "Matroska media"),
)


class BinaryFileError(ToolError):
    """The file is not text; ``kind`` says what it seems to be, if anything."""

    def __init__(self, path: str, kind: str, size: int) -> None:
        detail = f"{kind}, {size:,} bytes" if kind else f"{size:,} bytes"
        super().__init__(f"{path} is a binary file ({detail})")
        self.kind = kind


@dataclass(frozen=True, slots=True)
class TextFile:
    """A decoded file. ``text`` has the file's line endings and no byte order mark.

    ``errors`` is ``surrogateescape`` for a file that is almost UTF-8: its stray bytes are lone
    surrogates in the text and are written back unchanged.
    """

    text: str
    encoding: str = "utf-8"
    bom: bytes = b""
    errors: str = "strict"

    @property
    def stray_bytes(self) -> int:
        """How many bytes could not be decoded."""
        if self.errors == "strict":
            return 0
        return sum(1 for char in self.text if "\udc80" <= char <= "\udcff")

    @property
    def shown(self) -> str:
        """The text with replacement characters for stray bytes."""
        if self.errors == "strict":
            return self.text
        return re.sub("[\udc80-\udcff]", "\ufffd", self.text)

    def encode(self, text: str, path: str = "the file") -> bytes:
        """Encode ``text`` in this file's encoding, with its byte order mark.

        Raises:
            ToolError: the encoding lacks one of the characters.
        """
        try:
            return self.bom + text.encode(self.encoding, self.errors)
        except UnicodeEncodeError as error:
            char = text[error.start]
            raise ToolError(
                f"{path} is encoded in {self.encoding}, which cannot hold {char!a} "
                f"(character {error.start + 1} of the text)"
            ) from error


def decode(data: bytes, path: str = "the file") -> TextFile:
    """Detect a file's encoding and decode it.

    A byte order mark decides. Without one, zero bytes indicate UTF-16, and text that is valid UTF-8
    is UTF-8. The rest is UTF-8 with stray bytes if it has more than half as many well-formed
    non-ASCII characters as stray bytes, and otherwise Windows-1252 (or its subset Latin-1).

    Raises:
        BinaryFileError: it is not text.
    """
    for bom, encoding in _BOMS:
        if data.startswith(bom):
            try:
                return TextFile(data[len(bom) :].decode(encoding), encoding, bom)
            except UnicodeDecodeError:
                break
    if b"\0" in data:
        return _utf16_without_mark(data, path)
    if data.startswith(b"%PDF"):
        raise BinaryFileError(path, "PDF document", len(data))
    try:
        return TextFile(data.decode("utf-8"))
    except UnicodeDecodeError:
        pass
    return _eight_bit(data, path)


def _utf16_without_mark(data: bytes, path: str) -> TextFile:
    # ASCII in UTF-16 has a zero in every other byte; no text has zeros in both positions.
    sample = data[:4096]
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    half = len(sample) // 2
    if len(data) % 2 == 0 and half and not magic(data):
        for zeros, others, encoding in ((odd, even, "utf-16-le"), (even, odd, "utf-16-be")):
            if zeros > half * 0.7 and not others:
                try:
                    text = data.decode(encoding)
                except UnicodeDecodeError:
                    continue
                if _reads_as_text(text):
                    return TextFile(text, encoding)
    raise BinaryFileError(path, magic(data), len(data))


def _eight_bit(data: bytes, path: str) -> TextFile:
    damaged = data.decode("utf-8", "surrogateescape")
    stray = len(re.findall("[\udc80-\udcff]", damaged))
    sound = sum(1 for char in damaged if char > "\x7f") - stray
    if not _reads_as_text(damaged):
        raise BinaryFileError(path, magic(data), len(data))
    # Bytes of another encoding are hardly ever well-formed UTF-8 by chance.
    if sound * 2 > stray:
        return TextFile(damaged, "utf-8", errors="surrogateescape")
    try:
        text = data.decode("cp1252")
    except UnicodeDecodeError:
        return TextFile(damaged, "utf-8", errors="surrogateescape")
    return TextFile(text, "cp1252" if re.search(rb"[\x80-\x9f]", data) else "latin-1")


def _reads_as_text(text: str) -> bool:
    controls = len(re.findall("[\x00-\x08\x0e-\x1a\x1c-\x1f]", text))
    return controls <= len(text) * 0.02


def magic(data: bytes) -> str:
    """The kind of a binary file by its first bytes; empty if not recognized."""
    if data[:4] == b"RIFF":
        return {b"WEBP": "WebP image", b"WAVE": "WAV audio", b"AVI ": "AVI video"}.get(
            data[8:12], ""
        )
    if data[4:8] == b"ftyp":
        return "MP4 media"
    if data[257:262] == b"ustar":
        return "tar archive"
    return next((kind for start, kind in _MAGIC if data.startswith(start)), "")


def split_lines(text: str) -> list[str]:
    """Split a text into lines without their endings, as compilers and grep count them.

    Lines end in ``\\n`` or ``\\r\\n``, or in ``\\r`` alone if the text has no ``\\n`` at all. Form
    feeds and Unicode separators do not end a line. A final line ending starts no further line.
    """
    end = "\r" if "\r" in text and "\n" not in text else "\n"
    lines = text.split(end)
    if lines[-1] == "":
        lines.pop()
    return [line[:-1] if line.endswith("\r") else line for line in lines]


def dominant_newline(text: str) -> str:
    r"""The most frequent line ending: ``\n``, ``\r\n`` or ``\r``; ``\n`` if there is none."""
    crlf = text.count("\r\n")
    lone = text.count("\n") - crlf
    if crlf > lone:
        return "\r\n"
    return "\r" if "\r" in text and "\n" not in text else "\n"
