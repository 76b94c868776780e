"""Finds self-contained functions in a file: what they use is included with them or harmless."""

from __future__ import annotations

import ast
import builtins
import warnings
from collections.abc import Iterator

_SAFE_MODULES = """
__future__ abc base64 binascii bisect calendar cmath collections collections.abc colorsys copy
dataclasses datetime decimal difflib enum fnmatch fractions functools hashlib heapq html
itertools json keyword logging math numbers operator os os.path posixpath re statistics string
struct textwrap typing unicodedata urllib.parse warnings zlib
"""
SAFE_MODULES = frozenset(_SAFE_MODULES.split())


_BANNED = """
__import__ breakpoint compile eval exec exit globals hash help id input locals memoryview object
open print quit super vars
"""
BANNED = frozenset(_BANNED.split())


BUILTINS = frozenset(vars(builtins)) - BANNED


MAX_LINES = 60


class Candidate:
    """A function all of whose names resolve."""

    def __init__(
        self, name: str, source: str, imports: list[str], needs: list[str], node: ast.FunctionDef
    ):
        self.name, self.source, self.imports, self.needs = name, source, imports, needs
        self.node = node


def candidates(text: str) -> Iterator[Candidate]:
    """Yield the self-contained functions of a file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = ast.parse(text)
    imports = _imports(tree)
    definitions: dict[str, ast.stmt] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            definitions[node.name] = node
        elif isinstance(node, ast.Assign):
            match node.targets:
                case [ast.Name(id=name)]:
                    definitions[name] = node
    lines = text.split("\n")
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef) or not _is_plain(node):
            continue
        needed: dict[str, ast.stmt] = {}
        used: set[str] = set()
        if not _resolve(node, definitions, imports, needed, used, depth=2):
            continue
        needed.pop(node.name, None)
        ordered = sorted(needed.values(), key=lambda item: item.lineno)
        size = sum((item.end_lineno or 0) - item.lineno + 1 for item in ordered)
        if size > MAX_LINES:
            continue
        yield Candidate(
            node.name,
            _source(lines, node),
            sorted({imports[name] for name in used}),
            [_source(lines, item) for item in ordered],
            node,
        )


def _source(lines: list[str], node: ast.stmt) -> str:
    first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
    return "\n".join(lines[first - 1 : node.end_lineno])


def _is_plain(node: ast.FunctionDef) -> bool:
    size = (node.end_lineno or 0) - node.lineno + 1
    arguments = node.args
    if (
        any("cache" not in ast.dump(d) for d in node.decorator_list)
        or not 3 <= size <= MAX_LINES
        or node.name.startswith(("test", "__"))
    ):
        return False
    if not arguments.args or arguments.vararg or arguments.kwarg or len(arguments.args) > 4:
        return False
    found = list(ast.walk(node))
    if any(
        isinstance(n, ast.Yield | ast.YieldFrom | ast.Global | ast.Nonlocal | ast.Await)
        for n in found
    ):
        return False
    if any(isinstance(n, ast.Import | ast.ImportFrom) for n in found):
        return False
    return any(isinstance(n, ast.Return) and n.value is not None for n in found)


def _imports(tree: ast.Module) -> dict[str, str]:
    found: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in SAFE_MODULES:
                    name = alias.asname or alias.name.split(".")[0]
                    found[name] = f"import {alias.name}" + (
                        f" as {alias.asname}" if alias.asname else ""
                    )
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module in SAFE_MODULES:
            for alias in node.names:
                extra = f" as {alias.asname}" if alias.asname else ""
                found[alias.asname or alias.name] = f"from {node.module} import {alias.name}{extra}"
    return found


def _resolve(
    node: ast.stmt,
    definitions: dict[str, ast.stmt],
    imports: dict[str, str],
    needed: dict[str, ast.stmt],
    used: set[str],
    depth: int,
) -> bool:
    nodes = list(ast.walk(node))
    # Annotations are not evaluated, so what they name need not exist.
    annotations = [n.annotation for n in nodes if isinstance(n, ast.arg | ast.AnnAssign)]
    annotations += [n.returns for n in nodes if isinstance(n, ast.FunctionDef)]
    spoken = {id(n) for part in annotations if part is not None for n in ast.walk(part)}
    bound: set[str] = set()
    wanted: dict[str, bool] = {}  # name → is it needed to run
    for n in nodes:
        match n:
            case ast.Name(id=name, ctx=ast.Load()):
                wanted[name] = wanted.get(name, False) or id(n) not in spoken
            case ast.Name(id=name) | ast.arg(arg=name) | ast.ExceptHandler(name=str(name)):
                bound.add(name)
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                bound.add(name)
    paths = {
        id(n.value) for n in nodes if isinstance(n, ast.Attribute) and n.attr in ("path", "sep")
    }
    uses_os = any(isinstance(n, ast.Name) and n.id == "os" and id(n) not in paths for n in nodes)
    if uses_os and "os" in imports:
        return False
    for name in wanted.keys() - bound:
        if not wanted[name] and name not in imports:
            continue
        if name in imports:
            used.add(name)
        elif name in definitions and name not in needed:
            if depth == 0:
                return False
            needed[name] = definitions[name]
            if not _resolve(definitions[name], definitions, imports, needed, used, depth - 1):
                return False
        elif name not in needed and name not in BUILTINS:
            return False
    return True
