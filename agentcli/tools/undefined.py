"""Names that a Python file uses and nothing in it binds: running into one raises NameError."""

from __future__ import annotations

import ast
import builtins

_MODULE = {"__file__", "__name__", "__doc__", "__path__", "__spec__", "__builtins__", "__class__"}


def undefined_names(tree: ast.Module) -> frozenset[str]:
    """Names that are read but bound in no scope of the file; none where all may come by ``*``."""
    read: set[str] = set()
    bound: set[str] = {*dir(builtins), *_MODULE}
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Load()):
                read.add(name)
            case ast.Name(id=name) | ast.arg(arg=name):
                bound.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                bound.add(name)
            case ast.ClassDef(name=name):
                bound.add(name)
            case ast.alias(name="*"):
                return frozenset()
            case ast.alias(name=name, asname=asname):
                bound.add(asname or name.split(".")[0])
            case ast.Global(names=names) | ast.Nonlocal(names=names):
                bound.update(names)
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
                bound.add(name)
            case ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
                bound.add(name)
            case _ if name := getattr(node, "name", ""):  # type parameters, since 3.12
                bound.add(str(name))
    return frozenset(read - bound)
