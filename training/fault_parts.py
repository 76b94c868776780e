"""Faults made from the parts of expressions, without a list of what people confuse.

Anything around a part may be missing (``x`` for ``x.strip()``, ``max(0, x)`` or ``x[1:]``),
something may be around it that does not belong there (``x + 1``, ``sorted(x)``), and one thing may
stand where another of the same function belongs (``amount`` for ``self.balance``).
"""

from __future__ import annotations

import ast
import random
import zlib
from collections.abc import Iterator

from training.fault_kinds import FSTRING_PLACES, Edit, FunctionNode, Places

AROUND_NUMBERS = (
    "{} + 1",
    "{} - 1",
    "{} * 2",
    "{} // 2",
    "{} % 10",
    "-{}",
    "abs({})",
    "int({})",
    "round({})",
    "max(0, {})",
    "max({}, 1)",
)
AROUND_TEXTS = (
    "{}.strip()",
    "{}.lower()",
    "{}.upper()",
    "{}.title()",
    "{}[1:]",
    "{}[:-1]",
    "repr({})",
    "{} + ' '",
)
AROUND_LISTS = (
    "{}[1:]",
    "{}[:-1]",
    "{}[::-1]",
    "sorted({})",
    "set({})",
    "reversed({})",
    "list({})",
    "{}[:]",
)
_TEXT_METHODS = frozenset(
    ["join", "format", "strip", "lower", "upper", "title", "replace", "lstrip", "rstrip", "zfill"]
)
_LIST_CALLS = frozenset(
    ["sum", "len", "sorted", "list", "set", "tuple", "max", "min", "any", "all", "enumerate", "zip"]
)
_NUMBER_CALLS = frozenset(["len", "int", "sum", "abs", "round", "float", "ord", "min", "max"])
_SIMPLE = (ast.Name, ast.Attribute, ast.Call, ast.Subscript)


def part_edits(source: str, tree: ast.Module) -> Iterator[Edit]:
    """Edits of expressions in functions."""
    at = Places(source)
    members = _members(tree)
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            things = _things(at, function)
            for node, parent in _expressions(function):
                yield from _dropped(at, node, parent)
                yield from _added(at, node, parent)
                yield from _confused(at, node, parent, things, members)
                yield from _absent(at, node)
            yield from _targets(at, function)


def _expressions(function: FunctionNode) -> Iterator[tuple[ast.expr, ast.AST]]:
    """The expressions that are evaluated in a function's body, each with its parent node."""
    waiting: list[tuple[ast.AST, ast.AST]] = [(node, function) for node in reversed(function.body)]
    while waiting:
        node, parent = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue  # visited as functions themselves
        if isinstance(node, ast.expr) and isinstance(getattr(node, "ctx", ast.Load()), ast.Load):
            yield node, parent
        if isinstance(node, ast.JoinedStr) and not FSTRING_PLACES:
            continue
        children: list[ast.AST] = list(ast.iter_child_nodes(node))
        if isinstance(node, ast.AnnAssign):
            children = [node.value] if node.value else []
        waiting += [(child, node) for child in reversed(children)]


def _is_called(node: ast.AST, parent: ast.AST) -> bool:
    return isinstance(parent, ast.Call) and parent.func is node


def _replace(at: Places, kind: str, node: ast.AST, text: str) -> Edit:
    return Edit(kind, at.start(node), at.end(node), text)


def _dropped(at: Places, node: ast.expr, parent: ast.AST) -> Iterator[Edit]:
    """Replace an expression by one of its parts."""
    if _is_called(node, parent) or isinstance(parent, ast.Expr) or "\n" in at.text(node):
        return
    parts: list[ast.expr] = []
    match node:
        case ast.Call(func=ast.Attribute(value=owner), args=arguments):
            # Without the call alone (``x.pop`` for ``x.pop()``): that kind is held out.
            parts = [owner, *arguments[:2]]
        case ast.Call(func=ast.Name(), args=arguments):
            parts = arguments[:3]
        case ast.Subscript(value=owner) | ast.Attribute(value=owner):
            parts = [owner]
        case ast.IfExp(body=body, orelse=other):
            parts = [body, other]
        case ast.BoolOp(values=values) if len(values) > 2:
            parts = [values[0], values[-1]]
        case ast.ListComp(generators=[ast.comprehension(iter=items)]):
            parts = [items]
        case ast.Starred(value=value):
            parts = [value]
        case ast.List(elts=elements) | ast.Tuple(elts=elements) | ast.Set(elts=elements):
            if len(elements) > 2:
                low, high = at.end(elements[-2]), at.end(elements[-1])
                yield Edit("dropped_part", low, high, "")
                low, high = at.start(elements[0]), at.start(elements[1])
                yield Edit("dropped_part", low, high, "")
        case ast.BinOp(left=left, right=right):
            for side in (left, right):
                low, high = at.start(side) - 1, at.end(side) + 1
                around = at.source[low:high]
                if isinstance(side, ast.BinOp) and around[:1] == "(" and around[-1:] == ")":
                    yield Edit("missing_parens", low, high, around[1:-1])
    for part in parts:
        own = isinstance(node, ast.Attribute) and at.text(part) in ("self", "cls")
        if not own and not isinstance(part, ast.GeneratorExp | ast.Starred | ast.Lambda):
            yield _replace(at, "dropped_part", node, at.text(part))


def _added(at: Places, node: ast.expr, parent: ast.AST) -> Iterator[Edit]:
    """Put something around an expression."""
    text = at.text(node)
    if "\n" in text or len(text) > 40 or text in ("self", "cls"):
        return
    if _is_called(node, parent) or isinstance(node, ast.Constant | ast.Starred | ast.Lambda):
        return
    if isinstance(parent, ast.Expr | ast.Attribute | ast.Await | ast.ExceptHandler | ast.Raise):
        return
    called = isinstance(parent, ast.Call) and isinstance(parent.func, ast.Name) and parent.func.id
    forms: tuple[str, ...]
    if _is_number(node, parent):
        forms = AROUND_NUMBERS
    elif isinstance(node, ast.JoinedStr) or _method(node) in _TEXT_METHODS:
        forms = AROUND_TEXTS
    elif (isinstance(parent, ast.For | ast.comprehension) and parent.iter is node) or (
        called in _LIST_CALLS or isinstance(node, ast.ListComp | ast.List)
    ):
        forms = AROUND_LISTS
    elif isinstance(node, _SIMPLE) and not isinstance(parent, ast.Subscript | ast.withitem):
        forms = AROUND_NUMBERS[:4] + AROUND_TEXTS[:3] + AROUND_LISTS[:4]
    else:
        return
    if not isinstance(node, _SIMPLE):
        forms = tuple(form for form in forms if "({})" in form or isinstance(node, ast.ListComp))
    rng = random.Random(zlib.crc32(f"{text}{node.lineno}".encode()))
    for form in rng.sample(forms, min(2, len(forms))):
        yield _replace(at, "added_part", node, form.format(text))


def _method(node: ast.AST) -> str:
    """The name of the function or method that an expression calls, or nothing."""
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute):
            return node.func.attr
        if isinstance(node.func, ast.Name):
            return node.func.id
    return ""


def _is_number(node: ast.expr, parent: ast.AST) -> bool:
    if _method(node) in _NUMBER_CALLS:
        return True
    arithmetic = (ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Pow)
    if any(isinstance(n, ast.BinOp) and isinstance(n.op, arithmetic) for n in (node, parent)):
        return True
    if isinstance(parent, ast.Compare):
        sides = [parent.left, *parent.comparators]
        ordered = isinstance(parent.ops[0], ast.Lt | ast.LtE | ast.Gt | ast.GtE)
        return ordered or any(
            isinstance(side, ast.Constant) and type(side.value) in (int, float) for side in sides
        )
    return isinstance(parent, ast.AugAssign) and isinstance(parent.op, arithmetic)


def _members(tree: ast.Module) -> dict[str, list[str]]:
    """What is read from each name in the file: ``order.total`` and ``order.items``.

    Without ``self``, for which there is wrong_attr.
    """
    found: dict[str, list[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            names = found.setdefault(node.value.id, [])
            if node.value.id not in ("self", "cls") and node.attr not in names:
                names.append(node.attr)
    return found


def _things(at: Places, function: FunctionNode) -> list[str]:
    """Short expressions that the function reads: names, attributes, items."""
    local = {
        *(arg.arg for arg in [*function.args.args, *function.args.kwonlyargs]),
        *(
            node.id
            for node in ast.walk(function)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        ),
    } - {"self", "cls"}
    found: dict[str, None] = dict.fromkeys(sorted(local))
    for node, parent in _expressions(function):
        if isinstance(node, ast.Attribute | ast.Subscript) and not _is_called(node, parent):
            text = at.text(node)
            if len(text) < 24 and "\n" not in text:
                found.setdefault(text)
    return list(found)


def _confused(
    at: Places, node: ast.expr, parent: ast.AST, things: list[str], members: dict[str, list[str]]
) -> Iterator[Edit]:
    """Another thing of the function in an expression's place."""
    if _is_called(node, parent):
        return
    text = at.text(node)
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        end = at.end(node)
        others = [name for name in members.get(node.value.id, ()) if name != node.attr]
        for other in others[:4]:
            yield Edit("wrong_member", end - len(node.attr), end, other)
    if text in things:
        rng = random.Random(zlib.crc32(f"{text}{node.lineno}".encode()))
        others = [thing for thing in things if thing != text]
        # A name for a name is wrong_var.
        others = [o for o in others if not (o.isidentifier() and isinstance(node, ast.Name))]
        for other in rng.sample(others, min(2, len(others))):
            yield _replace(at, "wrong_value", node, other)


def _absent(at: Places, node: ast.expr) -> Iterator[Edit]:
    """Confusions of None, of what is false, and of what a mapping lacks."""
    match node:
        case ast.Compare(left=left, ops=[ast.Is()], comparators=[ast.Constant(value=None)]):
            yield _replace(at, "none_check", node, f"not {at.text(left)}")
        case ast.Compare(left=left, ops=[ast.IsNot()], comparators=[ast.Constant(value=None)]):
            yield _replace(at, "none_check", node, at.text(left))
        case ast.IfExp(test=ast.Compare(left=left), body=body, orelse=other):
            if at.text(left) == at.text(body):
                yield _replace(at, "none_check", node, f"{at.text(body)} or {at.text(other)}")
        case ast.BoolOp(op=ast.Or(), values=[first, second]):
            yield _replace(at, "none_check", node, f"{at.text(second)} or {at.text(first)}")
        case ast.Call(func=ast.Attribute(value=owner, attr="get"), args=[key, *_]):
            yield _replace(at, "wrong_lookup", node, f"{at.text(owner)}[{at.text(key)}]")
        case ast.Subscript(value=owner, slice=ast.Name() | ast.Constant(value=str()) as key):
            yield _replace(at, "wrong_lookup", node, f"{at.text(owner)}.get({at.text(key)})")


def _targets(at: Places, function: FunctionNode) -> Iterator[Edit]:
    """Assign to another thing of those that the function assigns to."""
    targets = [
        node.targets[0] if isinstance(node, ast.Assign) else node.target
        for node in ast.walk(function)
        if isinstance(node, ast.Assign | ast.AugAssign)
    ]
    simple = [node for node in targets if isinstance(node, ast.Name | ast.Attribute)]
    texts = list(dict.fromkeys(at.text(node) for node in simple))
    for node in simple:
        for other in [text for text in texts if text != at.text(node)][:2]:
            yield _replace(at, "wrong_target", node, other)
