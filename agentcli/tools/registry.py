"""All tools of a session, and the dispatch path from a call to its result.

    parse → validate → permit → middleware (cache, rate limit, ...) → execute → truncate

Every tool takes this path, wherever its code comes from, and every call gets a ``ToolResult``: a
failing tool is reported to the model, never raised. Only cancellation passes through.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

from agentcli.errors import AgentCLIError, ConfigError, ToolInputError
from agentcli.messages import IMAGE_TYPES, Outcome, ToolCall, ToolDefinition, ToolResult
from agentcli.text import BETWEEN_OPTIONS, encodable, one_line, truncate
from agentcli.tools.adapt import adapted
from agentcli.tools.approval import OnWait
from agentcli.tools.base import ASKED, Tool, ToolContext, ToolKind, ToolOutput, ToolSpec
from agentcli.tools.files import load
from agentcli.tools.middleware import CarryOut, Execution, Middleware
from agentcli.tools.permissions import AllowAll, Permissions
from agentcli.tools.preview import CallFails, preview
from agentcli.tools.purpose import purpose_of
from agentcli.tools.schema import Validator, parse_arguments, schema_of
from agentcli.tools.soundness import check_sound
from agentcli.tools.textfile import decode
from agentcli.tools.trial import CopyTrial
from agentcli.tools.versions import Rollout, split_version, waves


@overload
def tool(
    function: Callable[..., Any],
    kind: ToolKind = ToolKind.RUN,
    *,
    name: str = "",
    description: str = "",
    **details: Any,
) -> Tool: ...


@overload
def tool(
    function: None = None,
    kind: ToolKind = ToolKind.RUN,
    *,
    name: str = "",
    description: str = "",
    **details: Any,
) -> Callable[[Callable[..., Any]], Tool]: ...


def tool(
    function: Callable[..., Any] | None = None,
    kind: ToolKind = ToolKind.RUN,
    *,
    name: str = "",
    description: str = "",
    **details: Any,
) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Make a tool from a typed function: ``tool(f)``, ``@tool`` or ``@tool(kind=ToolKind.READ)``.

    The schema comes from the signature, and the description from the docstring's first paragraph
    unless one is given; ``details`` are further fields of ``ToolSpec``. If the first parameter is
    annotated as ``ToolContext``, it receives the context. A function that is not async runs in a
    thread. Return values other than text are converted to JSON.

    Raises:
        ConfigError: the signature cannot be expressed in JSON Schema.
    """
    if function is None:
        return functools.partial(tool, kind=kind, name=name, description=description, **details)
    spec = ToolSpec(
        name=name or getattr(function, "__name__", ""),
        description=description or one_line((inspect.getdoc(function) or "").split("\n\n")[0], 500),
        parameters=schema_of(function),
        kind=kind,
        **details,
    )
    return Tool(spec, adapted(function))


@dataclass(frozen=True, slots=True)
class _Entry:
    tool: Tool
    validator: Validator


class Registry:
    """Tools by name, with the dispatch path that they share."""

    def __init__(
        self,
        tools: Iterable[Tool] = (),
        permissions: Permissions | None = None,
        *,
        middleware: Sequence[Middleware] = (),
        rollouts: Iterable[Rollout] = (),
        seed: str = "",
    ) -> None:
        """Register ``tools`` in an order that satisfies their dependencies.

        ``middleware`` wraps every execution, the first outermost. ``rollouts`` choose among
        versions by ``seed``, such as a session's id.

        Raises:
            ConfigError: a tool is invalid, depends on a missing one, or dependencies are circular.
        """
        self.permissions: Permissions = permissions or AllowAll()
        self.middleware = tuple(middleware)
        self._shelf: dict[str, dict[str, _Entry]] = {}
        self._current: dict[str, str] = {}
        self._wave: dict[str, int] = {}
        self._definitions: tuple[ToolDefinition, ...] | None = None
        given = list(tools)
        order = waves(tool.spec for tool in given)
        place = {name: number for number, wave in enumerate(order) for name in wave}
        for tool in sorted(given, key=lambda tool: place[tool.spec.name]):
            self._put(tool)
        for tool in given:
            self._check_replacement(tool.spec)
        for rollout in rollouts:
            self._roll_out(rollout, seed)

    def register(self, tool: Tool) -> None:
        """Add a tool. A new version of a tool becomes the one meant by its plain name.

        Raises:
            ConfigError: its name, schema or function is invalid, the same name and version is
                already registered, or a tool that it depends on or is replaced by is not.
        """
        self._check_replacement(tool.spec)
        self._put(tool)

    def _put(self, tool: Tool) -> None:
        spec = tool.spec
        versions = self._shelf.get(spec.name, {})
        if spec.version in versions:
            raise ConfigError(f"tool {spec.name}@{spec.version} is registered twice")
        missing = [name for name in spec.depends_on if name not in self._shelf]
        if missing:
            raise ConfigError(f"tool {spec.name} depends on {', '.join(missing)}, not registered")
        entry = _Entry(tool, check_sound(tool))
        self._shelf.setdefault(spec.name, {})[spec.version] = entry
        self._current[spec.name] = spec.version
        self._definitions = None
        before = (self._wave[name] for name in spec.depends_on)
        self._wave[spec.name] = 1 + max(before, default=-1)

    def _check_replacement(self, spec: ToolSpec) -> None:
        if spec.replaced_by and self._find(spec.replaced_by) is None:
            raise ConfigError(f"tool {spec.name} is replaced by {spec.replaced_by}, not registered")

    def _roll_out(self, rollout: Rollout, seed: str) -> None:
        version = rollout.version(seed)
        unknown = sorted(set(rollout.shares) - self._shelf.get(rollout.name, {}).keys())
        if unknown:
            raise ConfigError(f"rollout of {rollout.name}: there is no version {unknown[0]}")
        self._current[rollout.name] = version
        self._definitions = None

    def _find(self, name: str) -> _Entry | None:
        """Look up a ``name`` or ``name@version``."""
        plain, version = split_version(name)
        versions = self._shelf.get(plain)
        return versions.get(version or self._current[plain]) if versions else None

    def get(self, name: str) -> Tool | None:
        """The tool with this ``name`` or ``name@version``, or None."""
        found = self._find(name)
        return found.tool if found else None

    def spec(self, name: str) -> ToolSpec | None:
        """The specification of a tool, or None; names as in ``get``."""
        found = self._find(name)
        return found.tool.spec if found else None

    def wave(self, name: str) -> int:
        """The number of tools before this one in its longest chain of dependencies."""
        return self._wave.get(split_version(name)[0], 0)

    def purpose(self, call: ToolCall) -> ToolKind | None:
        """The purpose of a call: its tool's kind, or for a command line what its programs do."""
        spec = self.spec(call.name)
        if spec is None or not spec.command_argument:
            return spec.kind if spec else None
        try:
            arguments = parse_arguments(call.arguments)
        except ToolInputError:
            return spec.kind
        line = arguments.get(spec.command_argument)
        if arguments.get("background"):  # its start says nothing about its result
            return spec.kind
        return purpose_of(line) if isinstance(line, str) else spec.kind

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        """All specifications, sorted by name, which keeps the prompt's prefix stable."""
        return tuple(
            self._shelf[name][self._current[name]].tool.spec for name in sorted(self._shelf)
        )

    def definitions(self) -> tuple[ToolDefinition, ...]:
        """The tools offered to the model, sorted by name; the same object until they change."""
        if self._definitions is None:
            specs = self.specs
            self._definitions = tuple(one.definition() for one in specs if not one.replaced_by)
        return self._definitions

    async def text_of(
        self, name: str, arguments: Mapping[str, Any], context: ToolContext
    ) -> str | None:
        """The text that the next argument of this tool must be an excerpt of.

        It is the file named by ``arguments``, with ``\\n`` line endings, or before a path is named,
        the paths of all files, parted by ``BETWEEN_OPTIONS``. None if any text is allowed. See
        ``ToolSpec.text_of``.
        """
        spec = self.spec(name)
        text_of = spec.text_of if spec else {}
        if any(not path and argument not in arguments for argument, path in text_of.items()):
            return await _files(context)
        paths = {arguments.get(argument) for argument in text_of.values() if argument}
        path = paths.pop() if len(paths) == 1 else None
        if not isinstance(path, str):
            return None
        try:
            file = decode(await load(context, path), path)
        except AgentCLIError:
            return None  # the call itself will report the error
        return None if file.stray_bytes else file.text.replace("\r\n", "\n")

    def arguments(self, call: ToolCall) -> dict[str, Any]:
        """Parse and validate the arguments of a call.

        Raises:
            ToolInputError: the tool is not known, or the arguments do not fit its schema.
        """
        return self._entry(call).validator.check(parse_arguments(call.arguments))

    def _entry(self, call: ToolCall) -> _Entry:
        found = self._find(call.name)
        if found is None:
            there = ", ".join(tool.name for tool in self.definitions()) or "none"
            raise ToolInputError(f'unknown tool "{call.name}"; there are: {there}')
        return found

    async def dispatch(self, call: ToolCall, context: ToolContext) -> ToolResult:
        """Execute one call and return its result.

        Raises:
            asyncio.CancelledError: the caller was cancelled. Nothing else is raised.
        """
        asked: list[float] = []
        try:
            output = await self._carry_out(call, context, asked.append)
        except CallFails as error:
            output = error.output
        except AgentCLIError as error:
            output = _failure(error.line(), error)
        except Exception as error:
            # A bug in the tool. A traceback is of no use to the model, but it must know that the
            # call failed.
            output = _failure(f"{call.name} broke: {type(error).__name__}: {error}", error)
        content = str(truncate(encodable(output.content), context.output_chars))
        diff = encodable(output.diff)
        paths = tuple(dict.fromkeys(map(context.place, output.paths)))
        data = {**output.data, ASKED: round(sum(asked), 3)} if asked else output.data
        images = output.images
        return ToolResult(call.id, call.name, content, output.outcome, diff, paths, data, images)

    async def _carry_out(self, call: ToolCall, context: ToolContext, on_wait: OnWait) -> ToolOutput:
        arguments = self.arguments(call)
        tool = self._entry(call).tool
        lacking = tool.spec.requires - context.environment.operations
        if lacking:
            raise ToolInputError(
                f"{call.name} needs {', '.join(sorted(lacking))}, not available here"
            )
        hides = functools.partial(self.permissions.hides, tool.spec)
        context = replace(context, call_id=call.id, hides=hides)
        permit = functools.partial(
            self.permissions.permit,
            tool.spec,
            call,
            arguments,
            preview=functools.partial(preview, tool, context, arguments),
            on_wait=on_wait,
            on_copy=context.on_copy,
        )
        refusal: str | None = None
        edits = tool.spec.kind is ToolKind.EDIT
        if context.on_copy and (edits or call.name in context.approved):
            pass
        elif context.copies is None or not tool.spec.kind.changes_files or not tool.spec.requires:
            refusal = await permit()
        else:
            work = functools.partial(_execute, tool, arguments=arguments)
            async with CopyTrial(work, context) as trial:
                refusal = await permit(trial=trial)
            if trial.answer is not None and refusal is None:
                return trial.answer
        if refusal is not None:
            return ToolOutput(f"denied: {refusal}", Outcome.DENIED)
        execution = Execution(tool.spec, call, arguments, context)
        carry_out: CarryOut = functools.partial(_execute, tool, context, arguments)
        for middleware in reversed(self.middleware):
            carry_out = functools.partial(middleware.around, execution, carry_out)
        output = await carry_out()
        if (instead := tool.spec.replaced_by) and output.outcome is Outcome.OK:
            note = f"\n[note: {call.name} is replaced by {instead}; use that]"
            output = replace(output, content=output.content + note)
        return output


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
        if foreign := {image.media_type for image in output.images} - IMAGE_TYPES:
            raise TypeError(f"models do not accept {', '.join(sorted(foreign))}")
        return output
    raise TypeError(f"a tool must return text or a ToolOutput, not {type(output).__name__}")


def _failure(message: str, error: Exception) -> ToolOutput:
    # ``data`` lets critics and the trace tell errors apart without parsing messages.
    data = {"error": type(error).__name__}
    if code := getattr(error, "code", None):
        data["code"] = str(code)
    return ToolOutput(f"error: {message}", Outcome.ERROR, data=data)


MOST_LISTED = 5000
"""In workspaces with fewer files, a path argument is limited to the existing paths."""


async def _files(context: ToolContext) -> str | None:
    """The paths of the workspace's files; None if there are too many to list."""
    try:
        paths = await context.environment.glob("**/*", limit=MOST_LISTED)
    except AgentCLIError:
        return None
    return BETWEEN_OPTIONS.join(paths) if 0 < len(paths) < MOST_LISTED else None
