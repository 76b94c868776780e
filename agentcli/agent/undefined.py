"""Finds names that a Python file uses but nothing in it binds.

Using one raises ``NameError`` for a plain name, or ``AttributeError`` for ``self.name`` in a class
without base classes.
"""

from __future__ import annotations

import ast
import builtins

_MODULE = {"__file__", "__name__", "__doc__", "__path__", "__spec__", "__builtins__", "__class__"}


def undefined_names(tree: ast.Module) -> frozenset[str]:
    """Names that are read but bound in no scope of the file; attributes appear as ``self.name``.

    Empty if the file has a ``*`` import, which could bind any of them.
    """
    read: set[str] = set()
    own: set[str] = set()  # attributes of self that are read
    bound: set[str] = {*dir(builtins), *_MODULE}
    attributes: set[str] = set(dir(object))
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr=name, ctx=ast.Store()):
                attributes.add(name)
            case ast.Constant(value=str(name)):  # e.g. for setattr or in __slots__
                attributes.add(name)
            case ast.Name(id=name, ctx=ast.Load()):
                read.add(name)
            case ast.Name(id=name) | ast.arg(arg=name):
                bound.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                bound.add(name)
            case ast.ClassDef(name=name):
                bound.add(name)
                own |= _own_reads(node)
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
    unset = own - attributes - bound
    return frozenset((read - bound) | {f"self.{name}" for name in unset})


def _own_reads(node: ast.ClassDef) -> set[str]:
    """Attributes of ``self`` that a class reads; empty if they may come from elsewhere."""
    members = {member.name for member in node.body if isinstance(member, ast.FunctionDef)}
    if node.bases or node.keywords or node.decorator_list or "__getattr__" in members:
        return set()
    return {
        inner.attr
        for inner in ast.walk(node)
        if isinstance(inner, ast.Attribute)
        and isinstance(inner.ctx, ast.Load)
        and isinstance(inner.value, ast.Name)
        and inner.value.id == "self"
    }
