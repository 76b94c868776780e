"""Faults of whole statements, of indentation and of punctuation."""

from __future__ import annotations

import ast
import re
from collections.abc import Container, Iterator
from itertools import pairwise

from training.fault_kinds import Edit, FunctionNode, Places


def line_edits(source: str, tree: ast.Module) -> Iterator[Edit]:
    """Edits of statements, indentation and punctuation."""
    at = Places(source)
    for owner in ast.walk(tree):
        if not isinstance(owner, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        again = _again(owner)
        for parent in ast.walk(owner):
            for field in ("body", "orelse", "finalbody"):
                body = getattr(parent, field, None)
                if isinstance(body, list) and body and isinstance(body[0], ast.stmt):
                    yield from _block(at, parent, body, again)
    yield from _punctuation(at, tree)


def _block(
    at: Places, parent: ast.AST, body: list[ast.stmt], again: Container[ast.stmt]
) -> Iterator[Edit]:
    for index, node in enumerate(body):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        first, last = node.lineno, node.end_lineno or node.lineno
        span = at.starts[first - 1], at.starts[last]
        lines = last - first + 1
        indent = node.col_offset
        if at.lines[first - 1][:indent].strip():
            continue  # not alone on its line
        if len(body) > 1:
            if isinstance(node, ast.Return):
                yield Edit("deleted_return", *span, "")
            elif (
                (isinstance(node, ast.AugAssign | ast.Expr | ast.Raise) and lines <= 2)
                or (
                    isinstance(node, ast.Assign)
                    and lines == 1
                    and (_is_update(node) or node in again)
                )
                or isinstance(node, ast.Break | ast.Continue)
            ):
                yield Edit("deleted_line", *span, "")
            elif isinstance(node, ast.If) and lines <= 3 and _is_guard(node):
                yield Edit("deleted_guard", *span, "")
        if isinstance(node, ast.Break | ast.Continue):
            other = "continue" if isinstance(node, ast.Break) else "break"
            yield Edit("break_continue", at.start(node), at.end(node), other)
        if isinstance(node, ast.Return) and node.value is not None and lines == 1:
            yield Edit("missing_return", span[0] + indent, at.start(node.value), "")
        if lines == 1 and index and _is_step(node) and _is_step(before := body[index - 1]):
            low = at.starts[before.lineno - 1]
            if at.lines[first - 2].startswith(" " * indent) and before.lineno == first - 1:
                text = at.source[span[0] : span[1]] + at.source[low : span[0]]
                yield Edit("swapped_lines", low, span[1], text)
        if isinstance(node, ast.AugAssign | ast.Expr) and lines == 1:
            yield Edit("extra_line", span[0], span[0], at.source[span[0] : span[1]])
        if isinstance(node, ast.Raise) and lines == 1:
            yield Edit("raise_to_return", *span, " " * indent + "return None\n")
        # after a loop or an if: drawn into it; at its end: moved out of it
        if index and lines == 1 and isinstance(body[index - 1], ast.For | ast.While | ast.If):
            before = body[index - 1]
            inner = before.body[0].col_offset  # type: ignore[attr-defined]
            alone = not getattr(before, "orelse", None)
            joined = at.lines[(before.end_lineno or 0)] == at.lines[first - 1]
            if alone and joined and inner > indent:
                kind = "return_in_loop" if isinstance(node, ast.Return) else "wrong_indent"
                text = " " * inner + at.source[at.start(node) : span[1]]
                yield Edit(kind, *span, text)
        if (
            index == len(body) - 1 > 0
            and lines == 1
            and isinstance(parent, ast.For | ast.While | ast.If | ast.With)
            and not getattr(parent, "orelse", None)
            and indent > parent.col_offset
        ):
            text = " " * parent.col_offset + at.source[at.start(node) : span[1]]
            yield Edit("wrong_indent", *span, text)


def _again(function: FunctionNode) -> set[ast.stmt]:
    """The assignments to a name that is assigned before: a reset, a second value."""
    seen: set[str] = set()
    found: set[ast.stmt] = set()
    assigned = [node for node in ast.walk(function) if isinstance(node, ast.Assign)]
    for node in sorted(assigned, key=lambda node: node.lineno):
        if isinstance(target := node.targets[0], ast.Name):
            if target.id in seen:
                found.add(node)
            seen.add(target.id)
    return found


def _is_step(node: ast.stmt) -> bool:
    """Whether a statement's place among others of its kind is a matter of order."""
    return isinstance(node, ast.Assign | ast.AugAssign | ast.Expr)


def _is_guard(node: ast.If) -> bool:
    leaves = isinstance(node.body[-1], ast.Return | ast.Raise | ast.Continue | ast.Break)
    return leaves and not node.orelse


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _is_update(node: ast.Assign) -> bool:
    """An assignment without which the code still runs: to an attribute, an item, or again."""
    target = node.targets[0]
    if isinstance(target, ast.Attribute | ast.Subscript):
        return True
    names = {n.id for n in ast.walk(node.value) if isinstance(n, ast.Name)}
    return isinstance(target, ast.Name) and target.id in names


_HEAD = re.compile(r"\s*(def|class|if|elif|else|for|while|try|except|finally|with|async)\b.*:$")
_CLOSING = re.compile(r"[)\]}](?=:?$)")


def _punctuation(at: Places, tree: ast.Module) -> Iterator[Edit]:
    strings: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if node.end_lineno and node.end_lineno > node.lineno:
                strings.update(range(node.lineno, node.end_lineno + 1))
            elif at.text(node)[-1:] in ("'", '"') and at.text(node)[-3:] not in ('"""', "'''"):
                end = at.end(node)
                yield Edit("missing_quote", end - 1, end, "")
        elif isinstance(node, ast.List | ast.Tuple | ast.Set) and len(node.elts) > 1:
            for first, second in pairwise(node.elts):
                comma = at.source.find(",", at.end(first), at.start(second))
                if _is_text(first) and _is_text(second) and comma > 0:
                    yield Edit("missing_comma", comma, comma + 1, "")
    for number, line in enumerate(at.lines, start=1):
        if number in strings or line.lstrip().startswith("#"):
            continue
        start = at.starts[number - 1]
        if _HEAD.match(line):
            yield Edit("missing_colon", start + len(line) - 1, start + len(line), "")
        found = _CLOSING.search(line)
        if found and not line.strip().startswith((")", "]", "}")):
            yield Edit("missing_bracket", start + found.start(), start + found.end(), "")
