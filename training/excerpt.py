"""Cuts a self-contained excerpt around given lines of a file: imports and whole definitions."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Sequence

from training.denoise import MAX_LINES
from training.edits import Text, same_effect

MIN_CHARS, MAX_CHARS = 300, 6500
MAX_IMPORTS = 8  # lines
MAX_INIT = 30  # lines of an __init__ that is shown beside another method
BLANK = -1
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
Span = tuple[int, int]


def parse(text: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def excerpt(
    lines: list[str], start: int, end: int, seed: int, others: Sequence[int] = ()
) -> list[int] | None:
    """The indices of the lines to show; ``lines[start:end]`` must be inside a function.

    It must be a function without ``others``, the lines of other changes.
    """
    tree = parse("\n".join(lines))
    if tree is None:
        return None
    spans = [_span(node) for node in tree.body]
    at = next((i for i, span in enumerate(spans) if span[0] <= start < span[1]), None)
    if at is None or end > spans[at][1]:
        return None
    main = _main(tree.body[at], start, end, others)
    if main is None:
        return None
    head: list[int] = []
    for node, span in zip(tree.body, spans, strict=True):
        if isinstance(node, ast.Import | ast.ImportFrom) and len(head) < MAX_IMPORTS:
            head += range(*span)
    target = (30, 60, 90, MAX_LINES)[seed % 4]
    above, below = at - 1, at + 1
    pieces = [main]
    for turn in range(12):
        down = (seed >> 2 >> turn) % 2 == 0
        near = below if down else above
        if not 0 <= near < len(spans) or not _shown(tree.body[near], spans[near]):
            continue
        piece = list(range(*spans[near]))
        if sum(map(len, pieces)) + len(piece) > target:
            continue
        pieces = [*pieces, piece] if down else [piece, *pieces]
        above, below = (above, below + 1) if down else (above - 1, below)
    body = [number for piece in pieces for number in (*piece, BLANK, BLANK)]
    return [*head, *([BLANK] if head else []), *body[:-2]]


def _span(node: ast.stmt) -> Span:
    first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
    return first - 1, node.end_lineno or node.lineno


def _shown(node: ast.stmt, span: Span) -> bool:
    if isinstance(node, Definition):
        return span[1] - span[0] <= MAX_LINES
    return isinstance(node, ast.Assign | ast.AnnAssign) and span[1] - span[0] <= 4


def _main(node: ast.stmt, start: int, end: int, others: Sequence[int]) -> list[int] | None:
    """The whole definition, or a long class without its other methods."""
    first, last = _span(node)
    if not isinstance(node, Definition):
        return None
    function = _function(node, start, end)
    if function is None or any(_within(other, _span(function)) for other in others):
        return None
    if last - first <= MAX_LINES:
        return list(range(first, last))
    if not isinstance(node, ast.ClassDef):
        return None
    shown = list(range(first, _span(node.body[0])[0]))
    for child in node.body:
        a, b = _span(child)
        inside = a <= start < b
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            wanted = inside or (child.name == "__init__" and b - a <= MAX_INIT)
        else:
            wanted = isinstance(child, ast.Assign | ast.AnnAssign) and b - a <= 2
        if inside and b - a > MAX_LINES:
            return None
        if wanted:
            apart = isinstance(child, Definition) and shown[-1] != first
            shown += [*([BLANK] if apart else []), *range(a, b)]
    return shown


def _within(line: int, span: Span) -> bool:
    return span[0] <= line < span[1]


def _function(node: Definition, start: int, end: int) -> ast.stmt | None:
    """The function whose body has these lines."""
    for child in ast.walk(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            body, last = child.body[0].lineno - 1, child.end_lineno or 0
            if body <= start and end <= last and start < last + (start == end):
                return child
    return None


def undone(
    lines: list[str], numbers: list[int], start: int, end: int, old: Text
) -> tuple[str, str] | None:
    """The excerpt with the old lines instead of ``lines[start:end]``, and as it is."""
    anchor = start if start < end else start - 1
    if anchor not in numbers:
        return None
    at = numbers.index(anchor) + (start == end)
    shown = ["" if number == BLANK else lines[number] for number in numbers]
    after = "\n".join(shown).strip("\n") + "\n"
    before = "\n".join([*shown[:at], *old, *shown[at + end - start :]]).strip("\n") + "\n"
    if not (MIN_CHARS <= len(before) < MAX_CHARS and MIN_CHARS <= len(after) < MAX_CHARS):
        return None
    was, now = parse(before), parse(after)
    if was is None or now is None or not _only_bodies(was, now):
        return None
    return None if same_effect(was, now) else (before, after)


def _only_bodies(was: ast.Module, now: ast.Module) -> bool:
    """Whether the difference is within the body of one function, not in its signature."""
    first, second = list(_signatures(was)), list(_signatures(now))
    return first == second and _emptied(was) == _emptied(now)


def _signatures(tree: ast.Module) -> list[str]:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    return [
        f"{getattr(node, 'name', '')}{ast.dump(node.args)}"
        + "".join(map(ast.dump, getattr(node, "decorator_list", [])))
        for node in ast.walk(tree)
        if isinstance(node, functions) and not isinstance(node, ast.Lambda)
    ]


def _emptied(tree: ast.AST) -> str:
    """The code outside functions."""
    if isinstance(tree, ast.FunctionDef | ast.AsyncFunctionDef):
        return tree.name
    if isinstance(tree, ast.Module | ast.ClassDef):
        outside = "".join(map(_emptied, tree.body))
        bases = "".join(map(ast.dump, tree.bases)) if isinstance(tree, ast.ClassDef) else ""
        return f"{getattr(tree, 'name', '')}({bases}){{{outside}}}"
    return ast.dump(tree)
