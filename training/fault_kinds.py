"""Finds the places in a file where faults of each kind can be put: spans and replacements.

``Finder`` walks the syntax tree (expressions and names), ``line_edits`` works on whole statements,
indentation and punctuation.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from training import fault_words as words

SYNTAX_KINDS = frozenset({"missing_colon", "missing_bracket", "missing_quote", "missing_comma_def"})
FSTRING_PLACES = sys.version_info >= (3, 12)  # before, positions inside f-strings are wrong

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


class Edit(NamedTuple):
    """Replace ``source[start:end]`` by ``text``."""

    kind: str
    start: int
    end: int
    text: str


class Places:
    """Positions of syntax nodes as offsets into the text."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.lines = source.split("\n")
        self.starts = [0]
        for line in self.lines:
            self.starts.append(self.starts[-1] + len(line) + 1)
        self._ascii = source.isascii()

    def offset(self, line: int, column: int) -> int:
        if not self._ascii:
            column = len(self.lines[line - 1].encode()[:column].decode(errors="ignore"))
        return self.starts[line - 1] + column

    def start(self, node: ast.AST) -> int:
        return self.offset(node.lineno, node.col_offset)  # type: ignore[attr-defined]

    def end(self, node: ast.AST) -> int:
        return self.offset(node.end_lineno, node.end_col_offset)  # type: ignore[attr-defined]

    def text(self, node: ast.AST) -> str:
        return self.source[self.start(node) : self.end(node)]


class Scope:
    """The names of one function, with where each is first bound, and the attributes of ``self``."""

    def __init__(self, function: FunctionNode | None, owner: ast.ClassDef | None) -> None:
        self.bound: dict[str, int] = {}
        self.attributes: dict[str, bool] = {}  # name → is it called
        if function is not None:
            arguments = function.args
            for arg in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]:
                self.bound[arg.arg] = function.lineno
            for node in ast.walk(function):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    self.bound.setdefault(node.id, node.lineno)
        if owner is not None:
            for node in ast.walk(owner):
                if isinstance(node, ast.Attribute) and _is_self(node.value):
                    self.attributes.setdefault(node.attr, False)
                elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    self.attributes[node.name] = True

    def others(self, name: str, line: int) -> list[str]:
        """Names that could be here by mistake, the likely ones first."""
        near = [n for n, at in self.bound.items() if n not in (name, "self", "cls") and at <= line]
        alike = [n for n in near if n[:1] == name[:1] or n in name or name in n]
        return (alike + [n for n in near if n not in alike])[:4]


def _is_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def _is_one_plain(call: ast.Call) -> bool:
    if len(call.args) != 1 or call.keywords:
        return False
    return not isinstance(call.args[0], ast.GeneratorExp | ast.Starred)


class Finder:
    """Finds edits of expressions."""

    def __init__(self, source: str, tree: ast.Module) -> None:
        self.at = Places(source)
        self.source = source
        self.tree = tree
        self.strings = sorted(
            {
                node.value
                for node in ast.walk(tree)
                if isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and 0 < len(node.value) < 24
                and "\n" not in node.value
            }
        )
        self.functions = [
            node.name
            for node in tree.body
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("test")
        ]

    def edits(self) -> Iterator[Edit]:
        yield from self._body(self.tree.body, Scope(None, None), None)

    def _body(
        self, body: list[ast.stmt], scope: Scope, owner: ast.ClassDef | None
    ) -> Iterator[Edit]:
        for node in body:
            yield from self._node(node, scope, owner)

    def _node(self, node: ast.AST, scope: Scope, owner: ast.ClassDef | None) -> Iterator[Edit]:
        if isinstance(node, ast.ClassDef):
            yield from self._body(node.body, scope, node)
            return
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inner = Scope(node, owner)
            yield from self._defaults(node)
            yield from self._body(node.body, inner, owner)
            return
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return  # a docstring
        if isinstance(node, ast.AnnAssign):
            if node.value is not None:
                yield from self._node(node.value, scope, owner)
            return
        method = getattr(self, f"_{type(node).__name__}", None)
        if method is not None:
            yield from method(node, scope)
        if isinstance(node, ast.JoinedStr):
            if node.values and self.at.text(node)[:1] in "fF":
                start = self.at.start(node)
                if any(isinstance(value, ast.FormattedValue) for value in node.values):
                    yield Edit("missing_fprefix", start, start + 1, "")
            if not FSTRING_PLACES:
                return
            for value in node.values:
                if isinstance(value, ast.FormattedValue):
                    yield from self._node(value.value, scope, owner)
            return
        for child in ast.iter_child_nodes(node):
            yield from self._node(child, scope, owner)

    def _replace(self, kind: str, node: ast.AST, text: str) -> Edit:
        return Edit(kind, self.at.start(node), self.at.end(node), text)

    def _between(
        self, kind: str, left: ast.AST, right: ast.AST, pattern: str, text: str
    ) -> Iterator[Edit]:
        """Replace an operator between two nodes."""
        low, high = self.at.end(left), self.at.start(right)
        found = re.search(pattern, self.source[low:high])
        if found:
            yield Edit(kind, low + found.start(), low + found.end(), text)

    # expressions, by the name of their class

    def _Compare(self, node: ast.Compare, scope: Scope) -> Iterator[Edit]:
        left = node.left
        for operator, right in zip(node.ops, node.comparators, strict=True):
            symbol = words.COMPARE[type(operator)]
            pattern = re.escape(symbol).replace(r"\ ", r"\s+")
            for other in words.COMPARE_FAULTS[symbol]:
                yield from self._between("compare_op", left, right, pattern, other)
            if symbol in ("<", ">", "<=", ">=") and len(node.ops) == 1:
                low, high = self.at.text(left), self.at.text(right)
                middle = self.source[self.at.end(left) : self.at.start(right)]
                yield self._replace("swapped_operands", node, f"{high}{middle}{low}")
            left = right

    def _BinOp(self, node: ast.BinOp, scope: Scope) -> Iterator[Edit]:
        symbol = words.BINARY[type(node.op)]
        kind = "bit_op" if symbol in ("&", "|", "^", "<<", ">>") else "arith_op"
        if symbol == "%" and isinstance(node.left, ast.Constant | ast.JoinedStr):
            return  # string formatting
        for other in words.BINARY_FAULTS[symbol]:
            yield from self._between(kind, node.left, node.right, re.escape(symbol), other)
        middle = self.source[self.at.end(node.left) : self.at.start(node.right)]
        left, right = self.at.text(node.left), self.at.text(node.right)
        if "(" in middle or ")" in middle:
            return
        if symbol in ("-", "/", "//", "%", "+"):
            yield self._replace("swapped_operands", node, f"{right}{middle}{left}")
        yield self._replace("dropped_term", node, left)
        if symbol in ("+", "*", "-"):
            yield self._replace("dropped_term", node, right)

    def _BoolOp(self, node: ast.BoolOp, scope: Scope) -> Iterator[Edit]:
        symbol, other = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        first, second = node.values[0], node.values[1]
        yield from self._between("bool_op", first, second, rf"\b{symbol}\b", other)
        if len(node.values) == 2:
            yield self._replace("dropped_condition", node, self.at.text(first))
            yield self._replace("dropped_condition", node, self.at.text(second))

    def _UnaryOp(self, node: ast.UnaryOp, scope: Scope) -> Iterator[Edit]:
        if isinstance(node.op, ast.Not):
            yield self._replace("missing_not", node, self.at.text(node.operand))
        elif isinstance(node.op, ast.USub):
            yield self._replace("missing_minus", node, self.at.text(node.operand))

    def _AugAssign(self, node: ast.AugAssign, scope: Scope) -> Iterator[Edit]:
        symbol = words.BINARY[type(node.op)] + "="
        for other in words.AUGMENTED_FAULTS.get(symbol, ()):
            yield from self._between("aug_op", node.target, node.value, re.escape(symbol), other)

    def _test(self, test: ast.expr) -> Iterator[Edit]:
        text = self.at.text(test)
        if isinstance(test, ast.Name | ast.Call | ast.Attribute | ast.Subscript):
            yield self._replace("extra_not", test, f"not {text}")
        elif isinstance(test, ast.BoolOp | ast.Compare) and "\n" not in text:
            yield self._replace("extra_not", test, f"not ({text})")

    def _If(self, node: ast.If, scope: Scope) -> Iterator[Edit]:
        yield from self._test(node.test)
        start = self.at.start(node)
        if self.source.startswith("elif", start):
            yield Edit("elif_to_if", start, start + 4, "if")

    def _While(self, node: ast.While, scope: Scope) -> Iterator[Edit]:
        yield from self._test(node.test)

    def _IfExp(self, node: ast.IfExp, scope: Scope) -> Iterator[Edit]:
        yield from self._test(node.test)
        body, test, other = (self.at.text(part) for part in (node.body, node.test, node.orelse))
        if self.source[self.at.end(node.body) : self.at.start(node.test)].strip() == "if":
            yield self._replace("swapped_branches", node, f"{other} if {test} else {body}")

    def _comprehension(self, node: ast.comprehension, scope: Scope) -> Iterator[Edit]:
        for test in node.ifs:
            yield from self._test(test)
            low = self.source.rfind(" if", 0, self.at.start(test))
            if low > 0 and not self.source[low + 3 : self.at.start(test)].strip():
                yield Edit("missing_filter", low, self.at.end(test), "")
        yield from self._unpack(node.target)

    def _For(self, node: ast.For, scope: Scope) -> Iterator[Edit]:
        yield from self._unpack(node.target)

    def _unpack(self, target: ast.expr) -> Iterator[Edit]:
        if isinstance(target, ast.Tuple) and len(target.elts) == 2:
            first, second = target.elts
            if isinstance(first, ast.Name) and isinstance(second, ast.Name):
                middle = self.source[self.at.end(first) : self.at.start(second)]
                text = f"{second.id}{middle}{first.id}"
                yield Edit("wrong_unpack", self.at.start(first), self.at.end(second), text)

    def _Assign(self, node: ast.Assign, scope: Scope) -> Iterator[Edit]:
        yield from self._unpack(node.targets[0])
        value = node.value
        if isinstance(value, ast.Constant) and isinstance(node.targets[0], ast.Name):
            for text in words.INITIAL_FAULTS.get(self.at.text(value), ()):
                yield self._replace("wrong_initial", value, text)
        elif isinstance(value, ast.List) and not value.elts:
            yield self._replace("wrong_initial", value, "{}")
            yield self._replace("wrong_initial", value, "None")
        elif isinstance(value, ast.Dict) and not value.keys:
            yield self._replace("wrong_initial", value, "[]")
            yield self._replace("wrong_initial", value, "None")

    def _Constant(self, node: ast.Constant, scope: Scope) -> Iterator[Edit]:
        value = node.value
        if value is True or value is False or value is None:
            if value is not None:
                yield self._replace("wrong_bool", node, str(not value))
        elif isinstance(value, int) and self.at.text(node).isdigit():
            yield self._replace("off_by_one", node, str(value + 1))
            if value > 0:
                yield self._replace("off_by_one", node, str(value - 1))
            for other in words.number_faults(value):
                yield self._replace("wrong_number", node, other)
        elif isinstance(value, float):
            text = self.at.text(node)
            for other in words.float_faults(text):
                yield self._replace("wrong_number", node, other)
        elif isinstance(value, str) and len(value) < 40:
            for text in self._string_faults(node, value):
                yield self._replace("wrong_string", node, text)

    def _string_faults(self, node: ast.Constant, value: str) -> Iterator[str]:
        text = self.at.text(node)
        if (
            len(text) < 2
            or text[0] not in "\"'"
            or text[-1] != text[0]
            or text[:3] in ('"""', "'''")
        ):
            return
        for other in words.string_faults(text[1:-1], self.strings):
            if text[0] not in other and "\\" not in other:
                yield f"{text[0]}{other}{text[0]}"

    def _Name(self, node: ast.Name, scope: Scope) -> Iterator[Edit]:
        if not isinstance(node.ctx, ast.Load):
            return
        if node.id in scope.bound and node.id not in ("self", "cls"):
            for other in scope.others(node.id, node.lineno):
                yield self._replace("wrong_var", node, other)
            if len(node.id) > 3:
                yield self._replace("typo_name", node, words.typo(node.id, node.lineno))
        elif len(node.id) > 3 and node.id[:1].islower():
            yield self._replace("typo_name", node, words.typo(node.id, node.lineno))
        if node.id in words.EXCEPTIONS:
            for other in words.EXCEPTIONS[node.id]:
                yield self._replace("wrong_exception", node, other)
        for other in words.TYPES.get(node.id, ()):
            if not self.source.startswith("(", self.at.end(node)):
                yield self._replace("wrong_type", node, other)

    def _Attribute(self, node: ast.Attribute, scope: Scope) -> Iterator[Edit]:
        end = self.at.end(node)
        start = end - len(node.attr)
        if self.source[start:end] != node.attr:
            return
        if _is_self(node.value):
            called = scope.attributes.get(node.attr)
            others = [n for n, c in scope.attributes.items() if c == called and n != node.attr]
            for other in others[:6]:
                if not other.startswith("__"):
                    yield Edit("wrong_attr", start, end, other)
            if isinstance(node.ctx, ast.Load) and self.at.text(node.value) == "self":
                yield self._replace("missing_self", node, node.attr)
        if len(node.attr) > 3 and isinstance(node.ctx, ast.Load):
            yield Edit("typo_attr", start, end, words.typo(node.attr, node.lineno))
        for other in words.METHODS.get(node.attr, ()):
            yield Edit("wrong_method", start, end, other)

    def _Call(self, node: ast.Call, scope: Scope) -> Iterator[Edit]:
        function, arguments = node.func, node.args
        if isinstance(function, ast.Name):
            for other in words.FUNCTIONS.get(function.id, ()):
                yield self._replace("wrong_function", function, other)
            if function.id in self.functions:
                for other in [n for n in self.functions if n != function.id][:4]:
                    yield self._replace("wrong_function", function, other)
            if function.id in words.WRAPPERS and _is_one_plain(node):
                yield self._replace("missing_wrap", node, self.at.text(arguments[0]))
            if function.id == "range":
                yield from self._range(node)
        if isinstance(function, ast.Attribute) and not arguments and not node.keywords:
            if function.attr in words.WRAPPER_METHODS:
                yield self._replace("missing_wrap", node, self.at.text(function.value))
            yield self._replace("missing_call", node, self.at.text(function))
        plain = [a for a in arguments if not isinstance(a, ast.Starred | ast.GeneratorExp)]
        if len(plain) == len(arguments) >= 2:
            for first, second in pairwise(arguments):
                middle = self.source[self.at.end(first) : self.at.start(second)]
                text = f"{self.at.text(second)}{middle}{self.at.text(first)}"
                yield Edit("swapped_args", self.at.start(first), self.at.end(second), text)
            low = self.at.end(arguments[-2])
            yield Edit("missing_arg", low, self.at.end(arguments[-1]), "")
            low, high = self.at.start(arguments[0]), self.at.start(arguments[1])
            yield Edit("missing_arg", low, high, "")
        for keyword in node.keywords:
            if keyword.arg is None:
                continue
            start = self.at.start(keyword)
            if len(keyword.arg) > 3:
                text = words.typo(keyword.arg, node.lineno)
                yield Edit("typo_keyword", start, start + len(keyword.arg), text)
            if arguments or len(node.keywords) > 1:
                low = self.source.rfind(",", 0, start)
                if low > self.at.end(function) and not self.source[low + 1 : start].strip():
                    yield Edit("missing_arg", low, self.at.end(keyword), "")

    def _range(self, node: ast.Call) -> Iterator[Edit]:
        texts = [self.at.text(argument) for argument in node.args]
        for other in words.range_faults(texts):
            yield self._replace("range_bounds", node, f"range({', '.join(other)})")

    def _Subscript(self, node: ast.Subscript, scope: Scope) -> Iterator[Edit]:
        inner = node.slice
        if isinstance(inner, ast.Slice):
            lower = self.at.text(inner.lower) if inner.lower else ""
            upper = self.at.text(inner.upper) if inner.upper else ""
            step = f":{self.at.text(inner.step)}" if inner.step else ""
            for low, high in words.slice_faults(lower, upper):
                yield self._replace("slice_bounds", inner, f"{low}:{high}{step}")
            if inner.step:
                yield self._replace("slice_bounds", inner, f"{lower}:{upper}")
        elif isinstance(inner, ast.Constant) and isinstance(inner.value, str):
            for text in self._string_faults(inner, inner.value):
                yield self._replace("wrong_key", inner, text)
        elif not isinstance(inner, ast.Tuple) and isinstance(node.ctx, ast.Load):
            for text in words.index_faults(self.at.text(inner)):
                yield self._replace("slice_bounds", inner, text)

    def _Dict(self, node: ast.Dict, scope: Scope) -> Iterator[Edit]:
        for key in node.keys:
            if isinstance(key, ast.Constant) and isinstance(key.value, str):
                for text in self._string_faults(key, key.value):
                    yield self._replace("wrong_key", key, text)

    def _Return(self, node: ast.Return, scope: Scope) -> Iterator[Edit]:
        if node.value is None:
            return
        text = self.at.text(node.value)
        for other in scope.others(text, node.lineno)[:3]:
            yield self._replace("return_wrong", node.value, other)
        if text in words.RETURNS:
            yield self._replace("return_wrong", node.value, words.RETURNS[text])
        elif isinstance(node.value, ast.Tuple) and len(node.value.elts) == 2:
            first, second = (self.at.text(part) for part in node.value.elts)
            yield self._replace("return_wrong", node.value, f"{second}, {first}")
        else:
            yield self._replace("return_wrong", node.value, "None")

    def _Await(self, node: ast.Await, scope: Scope) -> Iterator[Edit]:
        yield self._replace("missing_await", node, self.at.text(node.value))

    def _ImportFrom(self, node: ast.ImportFrom, scope: Scope) -> Iterator[Edit]:
        for alias in node.names:
            if alias.name != "*" and len(alias.name) > 3:
                start = self.at.start(alias)
                text = words.typo(alias.name, node.lineno)
                yield Edit("wrong_import", start, start + len(alias.name), text)

    def _Import(self, node: ast.Import, scope: Scope) -> Iterator[Edit]:
        for alias in node.names:
            if len(alias.name) > 3:
                start = self.at.start(alias)
                text = words.typo(alias.name, node.lineno)
                yield Edit("wrong_import", start, start + len(alias.name), text)

    def _defaults(self, node: FunctionNode) -> Iterator[Edit]:
        for default in [*node.args.defaults, *node.args.kw_defaults]:
            if default is None:
                continue
            text = self.at.text(default)
            for other in words.default_faults(text):
                yield self._replace("wrong_default", default, other)
        if node.decorator_list:
            first = node.decorator_list[0]
            start = self.at.starts[first.lineno - 1]
            end = self.at.starts[first.lineno]
            if first.lineno == first.end_lineno and self.at.text(first) in words.DECORATORS:
                yield Edit("missing_decorator", start, end, "")
