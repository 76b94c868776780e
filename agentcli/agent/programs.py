"""Tells without running it what an edit does to a program: it breaks it, changes it, or neither."""

from __future__ import annotations

import ast
import functools
import warnings
from collections.abc import Collection

from agentcli.agent.undefined import definitions, mentions, undefined_names

MAX_PARSED = 200_000
"""Longest text, in characters, that is parsed."""

_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def breaks(path: str, before: str, after: str, elsewhere: Collection[str] = ()) -> bool:
    """Whether an edit breaks a Python file.

    It does if the file no longer parses, uses new unbound names, or has lost a definition that is
    still mentioned, in the file or ``elsewhere``.
    """
    old = _parsed(path, before)
    if old is None or len(after) > MAX_PARSED:
        return False
    new = _parsed(path, after)
    if new is None or not _undefined(after) <= _undefined(before):
        return True
    lost = definitions(old) - definitions(new)
    return not lost.isdisjoint({*mentions(new), *elsewhere})


def mentioned(path: str, text: str) -> frozenset[str]:
    """``mentions`` of a Python file; none if it cannot be parsed."""
    tree = _parsed(path, text)
    return frozenset() if tree is None else mentions(tree)


@functools.lru_cache(maxsize=8)  # the file before an edit is asked about at every try
def _undefined(text: str) -> frozenset[str]:
    try:
        return undefined_names(text)
    except (SyntaxError, ValueError, RecursionError):  # such as the same parameter twice
        return frozenset({""})


@functools.lru_cache(maxsize=8)  # the program before an edit is asked for at every try
def program(path: str, text: str) -> str:
    """A text that is equal for files that run equally.

    For Python, that is the syntax tree without docstrings, unless that is nested too deeply;
    otherwise the text itself.
    """
    tree = _parsed(path, text)
    if tree is None:
        return text
    for node in ast.walk(tree):
        if isinstance(node, _Documented) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    try:
        return ast.dump(tree)
    except RecursionError:
        return text


def _parsed(path: str, text: str) -> ast.Module | None:
    if not path.endswith(".py") or len(text) > MAX_PARSED:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # SyntaxWarnings about the user's code
            return ast.parse(text)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None
