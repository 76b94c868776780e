"""Finds names that a Python file uses but nothing binds, and what it defines and mentions.

Using an unbound name raises ``NameError`` for a plain name, or ``AttributeError`` for ``self.name``
in a class without base classes.
"""

from __future__ import annotations

import ast
import builtins
import symtable
from collections.abc import Iterator

_MODULE = {"__file__", "__name__", "__doc__", "__path__", "__spec__", "__builtins__", "__class__"}
_METHODS = frozenset(name for kind in (str, bytes, list, dict, set, object) for name in dir(kind))
_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def undefined_names(text: str) -> frozenset[str]:
    """Names that are read but not bound where they are read; attributes appear as ``self.name``.

    Empty if the file has a ``*`` import, which could bind any of them.

    Raises:
        SyntaxError, ValueError: it cannot be parsed, or breaks a rule of scopes.
    """
    tree = ast.parse(text)
    own: set[str] = set()  # attributes of self that are read
    attributes: set[str] = {*dir(object), *definitions(tree)}
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr=name, ctx=ast.Store()):
                attributes.add(name)
            case ast.Constant(value=str(name)):  # e.g. for setattr or in __slots__
                attributes.add(name)
            case ast.ClassDef():
                own |= _own_reads(node)
            case ast.alias(name="*"):
                return frozenset()
    read: set[str] = set()
    bound: set[str] = {*dir(builtins), *_MODULE}  # for the whole module
    top = symtable.symtable(text, "<text>", "exec")
    for table in _tables(top):
        for symbol in table.get_symbols():
            name, outside = symbol.get_name(), table is top or symbol.is_global()
            if symbol.is_assigned() or symbol.is_imported() or symbol.is_parameter():
                attributes.add(name)
                if outside:
                    bound.add(name)
            if outside and symbol.is_referenced():
                read.add(name)
    return frozenset((read - bound) | {f"self.{name}" for name in own - attributes})


def definitions(tree: ast.Module) -> frozenset[str]:
    """Names of the functions, methods and classes of a file."""
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, _Definition))


def mentions(tree: ast.Module) -> frozenset[str]:
    """Names and attributes that a file uses or imports.

    Without the methods of built-in types: ``.get`` says little about a function of that name.
    """
    found: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.alias(name=name):
                found.add(name)
    return frozenset(found - _METHODS)


def _tables(top: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    yield top
    for child in top.get_children():
        yield from _tables(child)


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
