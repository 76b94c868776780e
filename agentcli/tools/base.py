"""The definition of a tool: a specification for the model and the kernel, and an async function."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from agentcli.environments.base import Environment, WorkspaceCopy
from agentcli.messages import Image, Outcome, ToolDefinition
from agentcli.sandbox.limits import CHECK, COMMAND, Limits
from agentcli.tools.seen import Seen

if TYPE_CHECKING:
    from agentcli.tools.background import Jobs
    from agentcli.tools.mcp.references import Referable

STOP = "stop"
"""Key of a result's ``data``: the reason to end the run, with the result's content as answer."""

FAILED = "failed"
"""Key of a check's ``data``: how many tests failed, if known."""

NARROWER = "narrower"
"""Key of a check's ``data``: arguments that limit the same check to what failed."""

MATCHES = "matches"
"""Key of a search's ``data``: how many were found."""

PATTERN = "pattern"
"""The argument of such a search that holds the regular expression."""

DECLINE = "decline"
"""Name of the tool of models that may decline a task."""

ASKED = "asked_s"
"""Key of a result's ``data``: seconds spent waiting for the user's approval, if any."""

PLAN = "plan"
"""Key of a result's ``data``: the steps of the model's plan."""


class ToolKind(StrEnum):
    """What a tool does. Phases, caps and parallelism depend on this, never on a tool's name."""

    READ = "read"
    SEARCH = "search"
    PLAN = "plan"
    EDIT = "edit"
    CHECK = "check"
    RUN = "run"

    @property
    def changes_files(self) -> bool:
        """Whether calls of this kind may change the workspace."""
        return self in (ToolKind.EDIT, ToolKind.CHECK, ToolKind.RUN)


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """Everything about a tool except its code.

    Attributes:
        requires: environment operations that the tool needs.
        depends_on: tools whose calls in the same answer run first.
        replaced_by: the tool (``name`` or ``name@version``) to use instead; this one is then no
            longer offered to the model.
        retryable: whether failed calls may be retried; only for idempotent tools.
        text_of: maps an argument to the path argument of the file it must be an excerpt of, or to
            ``""`` if it must itself be the path of an existing file.
        variant_of: maps an argument with a new text to the argument with the text it replaces,
            usually with little changed.
        path_arguments: the files that a call touches; edits of the same file wait for each other.
        command_argument: holds a command line; permission rules then match its commands.
        patch_argument: holds a patch (``patch.py``), whose paths count like ``path_arguments``.
        address_argument: holds a URL. Permission rules match its host, and no mode alone allows
            such a call.
        outward: a reading tool that sends its arguments to other machines, so that only a mode that
            allows commands allows it.
        only_writes: the tool's only effect is to write and remove files through the environment,
            so that a call can be previewed by leaving these out.
        timeout_s: the time limit of one call in seconds.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    kind: ToolKind
    version: str = "1"
    requires: frozenset[str] = frozenset()
    depends_on: tuple[str, ...] = ()
    replaced_by: str = ""
    retryable: bool = False
    text_of: Mapping[str, str] = field(default_factory=dict)
    variant_of: Mapping[str, str] = field(default_factory=dict)
    path_arguments: tuple[str, ...] = ()
    command_argument: str = ""
    patch_argument: str = ""
    address_argument: str = ""
    outward: bool = False
    only_writes: bool = False
    timeout_s: float = 120.0

    def definition(self) -> ToolDefinition:
        """The tool as the model sees it."""
        return ToolDefinition(
            self.name, self.description, self.parameters, self.text_of, self.variant_of
        )


@dataclass(frozen=True, slots=True)
class ToolOutput:
    """What a tool's function returns. A plain string is short for ``ToolOutput(text)``.

    ``content`` should name the ``images``, as not every model and screen can show them.
    """

    content: str
    outcome: Outcome = Outcome.OK
    diff: str = ""
    paths: tuple[str, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    images: tuple[Image, ...] = ()


@dataclass(frozen=True, slots=True)
class Checks:
    """Commands for run_tests, run_build and run_lint that override detection (argv lists)."""

    test: tuple[str, ...] = ()
    build: tuple[str, ...] = ()
    lint: tuple[str, ...] = ()


Copies = Callable[[], AbstractAsyncContextManager[WorkspaceCopy]]


@dataclass(frozen=True, slots=True)
class ToolContext:
    """What a call may use. ``progress`` shows output (``stdout``/``stderr``) as it arrives."""

    environment: Environment
    call_id: str = ""
    progress: Callable[[str, bytes], None] | None = None
    checks: Checks = field(default_factory=Checks)
    command: Limits = COMMAND
    """Limits of a command."""
    check: Limits = CHECK
    """Limits of run_tests, run_build, run_lint and the task's checks."""
    copies: Copies | None = None
    """Opens a copy of the workspace, if the environment supports copies."""
    found_commands: dict[str, Any] | None = None
    """Cache of detected test commands by path, for workspaces whose configuration is fixed."""
    on_copy: bool = False
    """Whether the environment is a temporary copy; edits there need no approval."""
    approved: frozenset[str] = frozenset()
    """Tools that need no approval on this copy, because a call there was approved."""
    jobs: Jobs | None = None
    """Background commands, if they are available."""
    servers: Referable | None = None
    """MCP servers, if any are configured."""
    changing: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
    """Entered while a copy's effect is applied to the workspace."""
    hides: Callable[[str], bool] = lambda path: False
    """Whether permissions forbid the call to show a file that it does not name."""
    sees_images: Callable[[], bool] = lambda: False
    """Whether the model, which can change during a session, accepts images."""
    seen: Seen = field(default_factory=Seen)
    """What the agent's model knows of the files."""
    output_chars: int = 30_000
    """The most characters of one result that the model is shown."""

    def place(self, path: str) -> str:
        """Normalize a path: relative if it is in the workspace, otherwise absolute."""
        root = self.environment.root
        full = os.path.normpath(os.path.join(root, path))
        inside = full == root or full.startswith(root.rstrip("/") + "/")
        return os.path.relpath(full, root) if inside else full


ToolFunction = Callable[..., Awaitable[ToolOutput | str]]
"""Called as ``function(context, **arguments)``."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A specification and its function.

    ``runs`` tells what a call would run, for the question to the user. It is called like
    ``function``, runs nothing, and raises what the call would raise before it runs anything.
    """

    spec: ToolSpec
    function: ToolFunction
    runs: Callable[..., Awaitable[str]] | None = None
