"""Which calls may run: a mode for each session, decided by a tool's kind and never by its name."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Protocol

from agentcli.messages import ToolCall
from agentcli.tools.approval import Answer, Approval, Ask
from agentcli.tools.base import ToolKind, ToolSpec


class Permissions(Protocol):
    """Decides about each call, after its arguments were found valid and before it runs."""

    async def permit(
        self, spec: ToolSpec, call: ToolCall, arguments: Mapping[str, Any]
    ) -> str | None:
        """None to let the call run, or the reason for refusing it, which the model reads."""
        ...


class Mode(StrEnum):
    """How much may happen without asking; ``next`` is the order of Shift+Tab."""

    ASK = "ask"
    EDITS = "edits"
    AUTO = "auto"
    PLAN = "plan"

    @property
    def next(self) -> Mode:
        """The mode that follows in the cycle."""
        modes = list(Mode)
        return modes[(modes.index(self) + 1) % len(modes)]


_LOOKING = frozenset({ToolKind.READ, ToolKind.SEARCH, ToolKind.PLAN})

_FREE: Mapping[Mode, frozenset[ToolKind]] = {
    Mode.ASK: _LOOKING,
    Mode.EDITS: _LOOKING | {ToolKind.EDIT},
    Mode.AUTO: frozenset(ToolKind),
    # Checks are refused as well: they change nothing by intent, but they run the project's code,
    # and that may do anything.
    Mode.PLAN: _LOOKING,
}


class ModePermissions:
    """Permissions by mode. ``mode`` may be set at any time; calls already permitted go on.

    What a mode does not allow freely is asked of ``ask``; where nobody can be asked it is
    refused. In plan mode nobody is asked.
    """

    def __init__(self, mode: Mode = Mode.ASK, ask: Ask | None = None) -> None:
        self.mode = mode
        self._ask = ask

    async def permit(
        self, spec: ToolSpec, call: ToolCall, arguments: Mapping[str, Any]
    ) -> str | None:
        """See ``Permissions.permit``."""
        if spec.kind in _FREE[self.mode]:
            return None
        if self.mode is Mode.PLAN:
            return f"plan mode is read only, and {spec.name} is not; put it into the plan instead"
        if self._ask is None:
            return f"{spec.name} needs approval in {self.mode} mode, and nobody can be asked"
        reply = await self._ask(Approval(spec, call, arguments))
        if reply.answer is Answer.NO:
            return f"the user said no: {reply.reason}" if reply.reason else "the user said no"
        return None


class AllowAll:
    """Permits everything: for library users and tests that need no questions."""

    async def permit(
        self, spec: ToolSpec, call: ToolCall, arguments: Mapping[str, Any]
    ) -> str | None:
        """Always None."""
        return None
