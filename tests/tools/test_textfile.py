"""Encodings, binary files and line endings; text is written back byte for byte."""

from __future__ import annotations

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcli.errors import ToolError
from agentcli.tools.textfile import BinaryFileError, decode, dominant_newline, split_lines


@pytest.mark.parametrize(
    ("data", "text", "encoding", "errors"),
    [
        (b"", "", "utf-8", "strict"),
        (b"plain", "plain", "utf-8", "strict"),
        ("日本語".encode(), "日本語", "utf-8", "strict"),
        (codecs.BOM_UTF8 + b"x", "x", "utf-8", "strict"),
        (codecs.BOM_UTF16_BE + "é".encode("utf-16-be"), "é", "utf-16-be", "strict"),
        (codecs.BOM_UTF32_LE + "é".encode("utf-32-le"), "é", "utf-32-le", "strict"),
        ("no mark\n".encode("utf-16-le"), "no mark\n", "utf-16-le", "strict"),
        (b"na\xefve", "naïve", "latin-1", "strict"),
        (b"\x93quoted\x94 \x80", "“quoted” €", "cp1252", "strict"),
        ("日本".encode() + b"\xff", "日本\udcff", "utf-8", "surrogateescape"),
        (b"\x81 undefined", "\udc81 undefined", "utf-8", "surrogateescape"),
    ],
)
def test_encodings(data: bytes, text: str, encoding: str, errors: str) -> None:
    file = decode(data)
    assert (file.text, file.encoding, file.errors) == (text, encoding, errors)
    assert file.encode(file.text) == data


@pytest.mark.parametrize(
    ("data", "description"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0", "a is a binary file (PNG image, 10 bytes)"),
        (
            b"\x7fELF\x02\0" + bytes(2000),
            "a is a binary file (ELF executable or library, 2,006 bytes)",
        ),
        (b"%PDF-1.7\n", "a is a binary file (PDF document, 9 bytes)"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "a is a binary file (WebP image, 16 bytes)"),
        (b"text with \0 inside", "a is a binary file (18 bytes)"),
        (bytes(range(1, 256)) * 4, "a is a binary file (1,020 bytes)"),
        (b"\x1f\x8b\x08\0rest", "a is a binary file (gzip data, 8 bytes)"),
        (bytes(257) + b"ustar" + bytes(10), "a is a binary file (tar archive, 272 bytes)"),
    ],
)
def test_binary_files_are_described(data: bytes, description: str) -> None:
    with pytest.raises(BinaryFileError) as caught:
        decode(data, "a")
    assert caught.value.message == description


def test_a_mark_that_lies_does_not_decide() -> None:
    assert decode(codecs.BOM_UTF16_LE + b"odd").encode("x") == b"x"


def test_what_an_encoding_lacks_is_an_error() -> None:
    with pytest.raises(ToolError, match=r"a is encoded in latin-1, which cannot hold '\\u20ac'"):
        decode(b"caf\xe9").encode("5 €", "a")


def test_stray_bytes_are_counted_and_shown() -> None:
    file = decode("日本".encode() + b"\xff\xfe")
    assert (file.stray_bytes, file.shown) == (2, "日本\ufffd\ufffd")


@given(st.binary(max_size=200))
def test_whatever_is_decoded_is_given_back(data: bytes) -> None:
    try:
        file = decode(data)
    except BinaryFileError:
        return
    assert file.encode(file.text) == data
    file.shown.encode("utf-8")


@pytest.mark.parametrize(
    ("text", "lines", "newline"),
    [
        ("", [], "\n"),
        ("a", ["a"], "\n"),
        ("a\nb\n", ["a", "b"], "\n"),
        ("a\r\nb\r\n", ["a", "b"], "\r\n"),
        ("a\rb", ["a", "b"], "\r"),
        ("a\r\nb\nc\r\n", ["a", "b", "c"], "\r\n"),
        ("\n\n", ["", ""], "\n"),
        ("a\x0b\x0c\x1c\u2028b\n", ["a\x0b\x0c\x1c\u2028b"], "\n"),
        ("a\rb\nc", ["a\rb", "c"], "\n"),
    ],
)
def test_lines(text: str, lines: list[str], newline: str) -> None:
    assert (split_lines(text), dominant_newline(text)) == (lines, newline)
