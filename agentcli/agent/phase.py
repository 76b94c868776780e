"""The workflow phase, read from what kinds of tools were called and how they ended."""

from __future__ import annotations

from agentcli.agent.events import Phase
from agentcli.tools.base import ToolKind


def phase_of(current: Phase, kind: ToolKind, *, edited: bool) -> Phase:
    """The phase that a call of ``kind`` belongs to; ``edited``: a file has been changed already.

    Looking around is exploring until something is read or checked; checks and commands validate
    once there is an edit; reading again after that is discovering, until the next edit.
    """
    match kind:
        case ToolKind.EDIT:
            return Phase.EDIT
        case ToolKind.CHECK:
            return Phase.VALIDATE if edited else Phase.DISCOVER
        case ToolKind.RUN:
            return Phase.VALIDATE if edited else current
        case ToolKind.PLAN:
            return Phase.DISCOVER
        case ToolKind.READ:
            return Phase.EDIT if current is Phase.EDIT else Phase.DISCOVER
        case ToolKind.SEARCH:
            return Phase.DISCOVER if current is Phase.VALIDATE else current
