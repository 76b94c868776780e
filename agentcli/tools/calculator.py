"""calculator: evaluates plain arithmetic and counting on a syntax tree, and nothing else."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

from agentcli.errors import ToolInputError
from agentcli.tools.base import Tool, ToolContext, ToolKind
from agentcli.tools.registry import tool

_LONGEST = 200
_LARGEST = 10**100
_EXACT = 2**53  # up to here, a float holds every whole number
_BINARY: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_UNARY: Mapping[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}


def calculate(expression: str) -> str:
    """Evaluate numbers with + - * / and brackets, or count.

    Counts are ``"text".count("t")``, ``len("text")`` and ``len("two words".split())``. Results are
    written as people write them: 13 for 26 / 2, and 0.3 for 0.1 + 0.2 (fractions have 15 digits).

    Raises:
        ToolInputError: the expression is anything else, or divides by zero.
    """
    text = expression.strip()
    if len(text) > _LONGEST:
        raise ToolInputError("the expression is too long")
    try:
        tree = ast.parse(text, mode="eval").body
        value = _count(tree) if isinstance(tree, ast.Call) else _number(tree)
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise ToolInputError(f"no plain arithmetic: {text}") from error
    except (ZeroDivisionError, OverflowError) as error:
        raise ToolInputError(str(error)) from error
    return _shown(value) if isinstance(value, float) else str(value)


def _shown(value: float) -> str:
    if value.is_integer() and abs(value) <= _EXACT:
        return str(int(value))
    return format(value, ".15g")


def _number(node: ast.expr) -> float:
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return value
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            result: float = _UNARY[type(op)](_number(operand))
            return result
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            result = _BINARY[type(op)](_number(left), _number(right))
            if abs(result) > _LARGEST:
                raise OverflowError("the number is too large")
            return result
    raise ValueError("unknown term")


def _count(node: ast.Call) -> int:
    match node:
        case ast.Call(
            func=ast.Attribute(value=ast.Constant(value=str() as text), attr="count"),
            args=[ast.Constant(value=str() as wanted)],
            keywords=[],
        ):
            return text.count(wanted)
        case ast.Call(
            func=ast.Name(id="len"), args=[ast.Constant(value=str() as text)], keywords=[]
        ):
            return len(text)
        case ast.Call(
            func=ast.Name(id="len"),
            args=[
                ast.Call(
                    func=ast.Attribute(value=ast.Constant(value=str() as text), attr="split"),
                    args=[],
                    keywords=[],
                )
            ],
            keywords=[],
        ):
            return len(text.split())
    raise ValueError("unknown call")


async def calculator(context: ToolContext, expression: str) -> str:
    """Work out an expression.

    Args:
        expression: Numbers with + - * / and brackets, a count such as "banana".count("a"), a
            length such as len("banana") or a number of words such as len("two words".split()).
    """
    return calculate(expression)


def calculator_tool() -> Tool:
    """Make the tool, for models that calculate within their answers."""
    return tool(calculator, ToolKind.PLAN)
