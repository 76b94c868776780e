"""The workflow phase, derived from the purpose of calls and their outcomes.

    explore   looking around
    discover  reading, planning, and running the code as it is before any change
    edit      changing files, with a few reads in between
    validate  checking what was changed

A check counts as validation only after an edit. If it fails, reading is discovery again and the
next edit leads back to editing. If it passes, the round is complete and looking around starts the
next one. Calls that were refused or never ran do not change the phase, nor do failed edits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from agentcli.agent.events import Phase
from agentcli.messages import Outcome
from agentcli.tools.base import ToolKind

_GLANCES = 2
"""Reads and searches in a row that still belong to an edit or to a passed check."""
_NOT_RUN = (Outcome.DENIED, Outcome.SKIPPED, Outcome.CANCELLED)


@dataclass(frozen=True, slots=True)
class Progress:
    """The phase, and what the next one depends on.

    ``unproven``: files have changed since the last check that passed. ``looks`` counts reads and
    searches since the last call of another kind.
    """

    phase: Phase = Phase.EXPLORE
    unproven: bool = False
    looks: int = 0


def after(progress: Progress, kind: ToolKind, outcome: Outcome) -> Progress:
    """The progress after a call with the purpose ``kind`` that ended with ``outcome``."""
    if outcome in _NOT_RUN:
        return progress
    match kind:
        case ToolKind.EDIT if outcome is Outcome.OK:
            return Progress(Phase.EDIT, unproven=True)
        case ToolKind.EDIT:
            return progress
        case ToolKind.CHECK:
            proves = progress.unproven or progress.phase is Phase.VALIDATE
            phase = Phase.VALIDATE if proves else Phase.DISCOVER
            return Progress(phase, unproven=progress.unproven and outcome is not Outcome.OK)
        case ToolKind.RUN:
            phase = Phase.VALIDATE if progress.unproven else progress.phase
            return replace(progress, phase=phase, looks=0)
        case ToolKind.PLAN:
            early = progress.phase is Phase.EXPLORE
            return replace(progress, phase=Phase.DISCOVER if early else progress.phase)
        case ToolKind.READ | ToolKind.SEARCH:
            return _looked(progress, kind, outcome)


def during(progress: Progress, kind: ToolKind) -> Phase:
    """The phase while a call with the purpose ``kind`` is running."""
    return after(progress, kind, Outcome.OK).phase


def _looked(progress: Progress, kind: ToolKind, outcome: Outcome) -> Progress:
    looked = replace(progress, looks=progress.looks + 1)
    match progress.phase:
        case Phase.EXPLORE:
            found = kind is ToolKind.READ and outcome is Outcome.OK
            return replace(looked, phase=Phase.DISCOVER if found else Phase.EXPLORE)
        case Phase.DISCOVER:
            return looked
        case Phase.VALIDATE if progress.unproven:
            return replace(looked, phase=Phase.DISCOVER)
        case Phase.EDIT | Phase.VALIDATE if looked.looks <= _GLANCES:
            return looked
        case Phase.EDIT:
            return replace(looked, phase=Phase.DISCOVER)
        case Phase.VALIDATE:
            return replace(looked, phase=during(Progress(), kind))
