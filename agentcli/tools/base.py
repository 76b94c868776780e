"""The definition of a tool: a specification for the model and the kernel, and an async function."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from agentcli.environments.base import Environment, WorkspaceCopy
from agentcli.messages import Outcome, ToolDefinition
from agentcli.sandbox.limits import CHECK, COMMAND, Limits

if TYPE_CHECKING:
    from agentcli.tools.background import Jobs
    from agentcli.tools.mcp.references import Referable

STOP = "stop"
"""Key of a result's ``data``: the reason to end the run with; its content is then the answer."""


FAILED = "failed"
"""Key of a check's ``data``: how many tests failed, where that is known."""


BROKEN = "broken"
"""Key of an edit's ``data``: True where a Python file that could be parsed no longer can, or now
uses names that nothing in it binds."""


NARROWER = "narrower"
"""Key of a check's ``data``: arguments with which the same check looks at what failed alone."""


ASKED = "asked_s"
"""Key of a result's ``data``: for how many seconds the user was asked, where that was so."""


PLAN = "plan"
"""Key of a result's ``data``: the steps of a plan that was made."""


class ToolKind(StrEnum):
    """What a tool does to the world; phases, caps and parallelism read this, never a name."""

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
    """Everything about a tool but its code.

    ``requires`` names environment operations; ``depends_on`` tools whose calls in the same answer
    go before; ``replaced_by`` the tool (``name`` or ``name@version``) to use instead, which keeps
    this one out of the offer; ``retryable`` is for idempotent tools only;
    ``text_of`` maps an argument to the path argument of whose file it must be a piece, or to
    nothing where it must itself be the path of a file that is there; ``variant_of`` a new text to
    the argument whose text it takes the place of, mostly with little changed;
    ``path_arguments`` name the files that a call touches, so that edits of one file wait for each
    other; ``command_argument`` holds a command line, which rules are then about;
    ``patch_argument`` a patch (``patch.py``) whose paths count as those of arguments;
    ``address_argument`` a URL beyond the workspace, to which a call is never free by mode alone:
    rules are about its host; ``only_writes`` says that all it does are writes and removals of
    files through the environment, so that it can be looked at with those left out; ``timeout_s``
    bounds one call in seconds.
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
    only_writes: bool = False
    timeout_s: float = 120.0

    def definition(self) -> ToolDefinition:
        """The tool as a model sees it."""
        return ToolDefinition(
            self.name, self.description, self.parameters, self.text_of, self.variant_of
        )


@dataclass(frozen=True, slots=True)
class ToolOutput:
    """What a tool's function returns; a plain string means ``ToolOutput(text)``."""

    content: str
    outcome: Outcome = Outcome.OK
    diff: str = ""
    paths: tuple[str, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Checks:
    """Commands for run_tests, run_build and run_lint that override detection (argv lists)."""

    test: tuple[str, ...] = ()
    build: tuple[str, ...] = ()
    lint: tuple[str, ...] = ()


Copies = Callable[[], AbstractAsyncContextManager[WorkspaceCopy]]


@dataclass(frozen=True, slots=True)
class ToolContext:
    """What a call may use. ``progress`` shows output while it arrives (``stdout``/``stderr``)."""

    environment: Environment
    call_id: str = ""
    progress: Callable[[str, bytes], None] | None = None
    checks: Checks = field(default_factory=Checks)
    command: Limits = COMMAND
    """What a command may use,"""
    check: Limits = CHECK
    """and what run_tests, run_build, run_lint and the task's checks may."""
    copies: Copies | None = None
    """Opens a copy of the workspace, where the environment has copies."""
    found_commands: dict[str, Any] | None = None
    """Where what decides how tests are run does not change: what was found, by path."""
    on_copy: bool = False
    """The environment is a copy that is thrown away: edits there need nobody's leave."""
    jobs: Jobs | None = None
    """Commands in the background, where they can be had."""
    servers: Referable | None = None
    """MCP servers, where some are configured."""
    changing: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
    """Around bringing a copy's effect into the workspace."""
    output_chars: int = 30_000
    """Most characters of one result that the model is shown."""


ToolFunction = Callable[..., Awaitable[ToolOutput | str]]
"""Called as ``function(context, **arguments)``."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A specification and its function."""

    spec: ToolSpec
    function: ToolFunction
