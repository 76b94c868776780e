"""Selects and cleans the files of a package that are worth training on.

It drops vendored, generated, tabular and minified code, files that Python 3 cannot parse, and near
duplicates. Near duplicates are found by shingles: the hashes of every five consecutive non-blank
lines. A file counts as a copy if more than a given share of its shingles was seen before.
"""

from __future__ import annotations

import ast
import re
import warnings
import zlib
from collections.abc import Iterator

MIN_BYTES, MAX_BYTES = 200, 150_000
MAX_LINE, MAX_MEAN_LINE = 300, 60  # characters
SHINGLE = 5  # lines
SKIPPED_PARTS = re.compile(
    r"(^|/)(_?vendor(ed|ed_packages)?|_?third_?party|_?extern(als?)?|site-packages|node_modules"
    r"|lib2to3|bundled?|_?bundled_?libs|migrations|locales?|unicodedata|pycparser|api_versions"
    r"|typeshed|pythonwin|gapic|generated|_?gen|test_data|testdata|fixtures|encodings)/",
    re.IGNORECASE,
)
SKIPPED_NAMES = re.compile(
    r"(_pb2(_grpc)?|_version|versioneer|parsetab|lextab|yacctab|_tables?|_lexicon|entities"
    r"|_mapping|unistring|_builtins|bad\w*|get-pip|ez_setup)\.py$"
)
GENERATED = re.compile(
    r"auto-?\s?generated|generated (by|from|with)|do not (edit|modify)", re.IGNORECASE
)
LICENCE_NOTE = re.compile(r"copyright|licen[cs]e|all rights reserved|spdx", re.IGNORECASE)


def clean(path: str, data: bytes) -> str | None:
    """The text to train on, or None."""
    if not MIN_BYTES <= len(data) <= MAX_BYTES or b"\t" in data or b"\0" in data:
        return None
    if SKIPPED_PARTS.search(path) or SKIPPED_NAMES.search(path):
        return None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    if GENERATED.search(text[:1500]):
        return None
    lines = [line.rstrip() for line in text.splitlines()]
    if max(map(len, lines), default=0) > MAX_LINE:
        return None
    lines = _without_licence_note(lines)
    text = "\n".join(lines).strip("\n") + "\n"
    if len(text) < MIN_BYTES or len(text) > MAX_MEAN_LINE * len(lines) or _is_table(text):
        return None
    return text if _parses(text) else None


def _without_licence_note(lines: list[str]) -> list[str]:
    """Remove licence headers, which repeat word for word and would only be memorized."""
    start = 0
    while start < len(lines) and (not lines[start] or lines[start].startswith("#")):
        start += 1
    head = "\n".join(lines[:start])
    return lines[start:] if LICENCE_NOTE.search(head) else lines


def _is_table(text: str) -> bool:
    """Whether a text is data rather than code: many digits, or much that is not ASCII."""
    letters = sum(map(str.isalpha, text))
    digits = sum(map(str.isdigit, text))
    foreign = 0 if text.isascii() else sum(char > "\x7f" for char in text)
    return digits > 0.35 * letters or foreign > 0.02 * len(text)


def _parses(text: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def shingles(text: str) -> set[int]:
    return set(_shingles([line.strip() for line in text.splitlines() if line.strip()]))


def _shingles(lines: list[str]) -> Iterator[int]:
    hashes = [zlib.crc32(line.encode()) for line in lines]
    for i in range(max(1, len(hashes) - SHINGLE + 1)):
        yield hash(tuple(hashes[i : i + SHINGLE]))


class Seen:
    """The shingles of the files kept so far."""

    def __init__(self) -> None:
        self._shingles: set[int] = set()

    def share(self, marks: set[int]) -> float:
        """The share of a file that was seen before, 0 to 1."""
        return len(marks & self._shingles) / max(1, len(marks))

    def add(self, marks: set[int]) -> None:
        self._shingles |= marks
