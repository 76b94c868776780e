"""Turns plain Python functions into tool functions."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
from collections.abc import Callable
from typing import Any

from agentcli.tools.base import ToolContext, ToolFunction, ToolOutput
from agentcli.tools.schema import takes_context


def adapted(function: Callable[..., Any]) -> ToolFunction:
    """Make a function async and give it the context as its first argument, where it lacks that."""
    is_object = not inspect.isroutine(function) and callable(function)
    called = type(function).__call__ if is_object else function
    is_async = inspect.iscoroutinefunction(called)
    with_context = takes_context(function)
    if is_async and with_context:
        return function

    @functools.wraps(function)
    async def call(context: ToolContext, /, **arguments: Any) -> ToolOutput | str:
        given = (context,) if with_context else ()
        if is_async:
            output = await function(*given, **arguments)
        else:
            output = await asyncio.to_thread(function, *given, **arguments)
        if isinstance(output, str | ToolOutput):
            return output
        return json.dumps(output, ensure_ascii=False, default=str)

    # Argument checks read the wrapper's signature, so it must be that of the function.
    parameters = list(inspect.signature(function).parameters.values())
    context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_ONLY)
    named = parameters[1:] if with_context else parameters
    call.__signature__ = inspect.Signature([context, *named])  # type: ignore[attr-defined]
    return call
