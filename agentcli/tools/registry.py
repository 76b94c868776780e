"""All tools of a session, and the one path on which a call becomes a result.

    parse → validate → permit → execute → truncate

Every tool takes it, wherever its code comes from, and every call gets a ``ToolResult``: whatever
goes wrong with a tool is told to the model, never raised. Only cancellation passes through.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from agentcli.errors import AgentCLIError, ConfigError, ToolInputError
from agentcli.messages import Outcome, ToolCall, ToolDefinition, ToolResult
from agentcli.text import encodable, one_line, truncate
from agentcli.tools.base import Tool, ToolContext, ToolFunction, ToolKind, ToolOutput, ToolSpec
from agentcli.tools.files import load
from agentcli.tools.permissions import AllowAll, Permissions
from agentcli.tools.purpose import purpose_of
from agentcli.tools.schema import Validator, parse_arguments, schema_of
from agentcli.tools.textfile import decode
from agentcli.tools.trial import CopyTrial

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")  # what all providers accept


def tool(
    function: ToolFunction,
    kind: ToolKind,
    *,
    name: str = "",
    description: str = "",
    **details: Any,
) -> Tool:
    """A tool from an async function whose first parameter is the ``ToolContext``.

    Its schema comes from the signature, its description from the docstring's first paragraph
    unless one is given; ``details`` are further fields of ``ToolSpec``.

    Raises:
        ConfigError: the signature cannot be expressed in JSON Schema.
    """
    spec = ToolSpec(
        name=name or getattr(function, "__name__", ""),
        description=description or one_line((inspect.getdoc(function) or "").split("\n\n")[0], 500),
        parameters=schema_of(function),
        kind=kind,
        **details,
    )
    return Tool(spec, function)


class Registry:
    """Tools by name, and the dispatch path that they share."""

    def __init__(self, tools: Iterable[Tool] = (), permissions: Permissions | None = None) -> None:
        """Registers ``tools`` in an order that satisfies their dependencies.

        Raises:
            ConfigError: a tool is not sound, or depends on one that is not there.
        """
        self.permissions: Permissions = permissions or AllowAll()
        self._tools: dict[str, Tool] = {}
        self._validators: dict[str, Validator] = {}
        waiting = list(tools)
        names = {tool.spec.name for tool in waiting}
        while waiting:
            ready = [tool for tool in waiting if not self._lacks(tool, names)]
            for tool in ready or waiting[:1]:
                self.register(tool)
                names.discard(tool.spec.name)
                waiting.remove(tool)

    def _lacks(self, tool: Tool, still_to_come: set[str]) -> bool:
        return any(name in still_to_come for name in tool.spec.depends_on)

    def register(self, tool: Tool) -> None:
        """Add a tool. Another version of a tool that is there takes its place.

        Raises:
            ConfigError: name, schema or function are not sound, the same name and version is
                there already, or a tool it depends on is not.
        """
        spec = tool.spec
        if not _NAME.fullmatch(spec.name):
            raise ConfigError(f"{spec.name!r} cannot be the name of a tool")
        if not spec.description.strip():
            raise ConfigError(f"tool {spec.name}: a description is missing")
        known = self._tools.get(spec.name)
        if known is not None and known.spec.version == spec.version:
            raise ConfigError(f"tool {spec.name}@{spec.version} is registered twice")
        missing = [name for name in spec.depends_on if name not in self._tools]
        if missing:
            raise ConfigError(f"tool {spec.name} depends on {', '.join(missing)}, not registered")
        properties = spec.parameters.get("properties", {})
        named = [*spec.path_arguments, *spec.text_of, *spec.text_of.values()]
        named += [spec.command_argument] if spec.command_argument else []
        unknown = sorted({name for name in named if name not in properties})
        if unknown:
            raise ConfigError(f"tool {spec.name} has no argument {', '.join(unknown)}")
        if spec.timeout_s <= 0:
            raise ConfigError(f"tool {spec.name}: timeout_s must be more than 0")
        _check_function(spec, tool.function)
        try:
            validator = Validator(spec.parameters)
        except ConfigError as error:
            raise ConfigError(f"tool {spec.name}: {error.message}") from error
        self._tools[spec.name] = tool
        self._validators[spec.name] = validator

    def get(self, name: str) -> Tool | None:
        """The tool of that name, or None."""
        return self._tools.get(name)

    def spec(self, name: str) -> ToolSpec | None:
        """What is known of the tool of that name, or None."""
        found = self._tools.get(name)
        return found.spec if found else None

    def purpose(self, call: ToolCall) -> ToolKind | None:
        """What a call is for: its tool's kind, or what the command line says that it runs."""
        spec = self.spec(call.name)
        if spec is None or not spec.command_argument:
            return spec.kind if spec else None
        try:
            line = parse_arguments(call.arguments).get(spec.command_argument)
        except ToolInputError:
            return spec.kind
        return purpose_of(line) if isinstance(line, str) else spec.kind

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        """All specifications, sorted by name, so that a prompt's prefix stays the same."""
        return tuple(self._tools[name].spec for name in sorted(self._tools))

    def definitions(self) -> tuple[ToolDefinition, ...]:
        """All tools as a model sees them, sorted by name."""
        return tuple(spec.definition() for spec in self.specs)

    async def text_of(
        self, name: str, arguments: Mapping[str, Any], context: ToolContext
    ) -> str | None:
        """The file that arguments of this tool are pieces of, as far as ``arguments`` name it.

        With plain line ends; None where any text may be written. See ``ToolSpec.text_of``.
        """
        spec = self.spec(name)
        paths = {arguments.get(argument) for argument in spec.text_of.values()} if spec else set()
        path = paths.pop() if len(paths) == 1 else None
        if not isinstance(path, str):
            return None
        try:
            file = decode(await load(context, path), path)
        except AgentCLIError:
            return None  # the call itself will say what is wrong
        return None if file.stray_bytes else file.text.replace("\r\n", "\n")

    def arguments(self, call: ToolCall) -> dict[str, Any]:
        """The checked arguments of a call.

        Raises:
            ToolInputError: the tool is not known, or its arguments are not what it takes.
        """
        if call.name not in self._tools:
            there = ", ".join(sorted(self._tools)) or "none"
            raise ToolInputError(f'unknown tool "{call.name}"; there are: {there}')
        return self._validators[call.name].check(parse_arguments(call.arguments))

    async def dispatch(self, call: ToolCall, context: ToolContext) -> ToolResult:
        """Carry out one call and say what came of it.

        Raises:
            asyncio.CancelledError: the caller was cancelled; nothing else is raised.
        """
        try:
            output = await self._carry_out(call, context)
        except AgentCLIError as error:
            output = _failure(error.line(), error)
        except Exception as error:
            # A tool's own bug. The model can do nothing with a traceback, but must know that the
            # call came to nothing.
            output = _failure(f"{call.name} broke: {type(error).__name__}: {error}", error)
        content = str(truncate(encodable(output.content), context.output_chars))
        diff = encodable(output.diff)
        root = context.environment.root
        paths = tuple(dict.fromkeys(_in_workspace(path, root) for path in output.paths))
        return ToolResult(call.id, call.name, content, output.outcome, diff, paths, output.data)

    async def _carry_out(self, call: ToolCall, context: ToolContext) -> ToolOutput:
        arguments = self.arguments(call)
        tool = self._tools[call.name]
        lacking = tool.spec.requires - context.environment.operations
        if lacking:
            raise ToolInputError(f"{call.name} needs {', '.join(sorted(lacking))}, not to be had")
        context = replace(context, call_id=call.id)
        if context.copies is None or not tool.spec.kind.changes_files or not tool.spec.requires:
            refusal = await self.permissions.permit(tool.spec, call, arguments)
        else:
            work = functools.partial(_execute, tool, arguments=arguments)
            async with CopyTrial(work, context) as trial:
                refusal = await self.permissions.permit(tool.spec, call, arguments, trial)
            if trial.answer is not None and refusal is None:
                return trial.answer
        if refusal is not None:
            return ToolOutput(f"denied: {refusal}", Outcome.DENIED)
        return await _execute(tool, context, arguments)


async def _execute(tool: Tool, context: ToolContext, arguments: Mapping[str, Any]) -> ToolOutput:
    limit = asyncio.timeout(tool.spec.timeout_s)
    try:
        async with limit:
            output = await tool.function(context, **arguments)
    except TimeoutError as error:
        if not limit.expired():
            raise
        seconds = f"{tool.spec.timeout_s:g}"
        return _failure(f"{tool.spec.name} did not finish within {seconds} s", error)
    if isinstance(output, str):
        return ToolOutput(output)
    if isinstance(output, ToolOutput):
        return output
    raise TypeError(f"a tool gives text or a ToolOutput, not {type(output).__name__}")


def _in_workspace(path: str, root: str) -> str:
    """One name for one file, however the model spelt it: relative, if it is in the workspace."""
    full = os.path.normpath(os.path.join(root, path))
    inside = full == root or full.startswith(root.rstrip("/") + "/")
    return os.path.relpath(full, root) if inside else full


def _failure(message: str, error: Exception) -> ToolOutput:
    # ``data`` lets critics and the trace tell faults apart without reading prose.
    data = {"error": type(error).__name__}
    if code := getattr(error, "code", None):
        data["code"] = str(code)
    return ToolOutput(f"error: {message}", Outcome.ERROR, data=data)


def _check_function(spec: ToolSpec, function: Callable[..., Any]) -> None:
    is_object = not inspect.isroutine(function) and callable(function)
    called = type(function).__call__ if is_object else function
    if not inspect.iscoroutinefunction(called):
        raise ConfigError(f"tool {spec.name}: its function must be async")
    names = spec.parameters.get("properties", {})
    try:
        inspect.signature(function).bind(None, **dict.fromkeys(names))
    except TypeError as error:
        raise ConfigError(f"tool {spec.name}: function and schema differ: {error}") from error
