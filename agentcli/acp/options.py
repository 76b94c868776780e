"""The options of a session in an editor: the permission mode and the model.

Modes are sent in both of the protocol's forms, because some editors only know the older one.
"""

from __future__ import annotations

from collections.abc import Iterable

from acp.schema import (
    SessionConfigOptionSelect,
    SessionConfigSelectOption,
    SessionMode,
    SessionModeState,
)

from agentcli.tools.permissions import Mode

MODE, MODEL = "mode", "model"

_MODES = {
    Mode.ASK: "Asks before it changes anything",
    Mode.EDITS: "Edits without asking, asks before commands",
    Mode.AUTO: "Asks nothing; commands run in the sandbox",
    Mode.PLAN: "Only reads, and makes a plan",
}


def modes(mode: str) -> SessionModeState:
    """All modes and the session's current one."""
    return SessionModeState(
        current_mode_id=mode,
        available_modes=[
            SessionMode(id=one.value, name=one.value, description=what)
            for one, what in _MODES.items()
        ],
    )


def options(mode: str, model: str, models: Iterable[str]) -> list[SessionConfigOptionSelect]:
    """The current mode and model with their alternatives; ``models`` are the names to offer."""
    return [
        SessionConfigOptionSelect(
            type="select",
            id=MODE,
            name="Mode",
            description="What needs your approval",
            category="mode",
            current_value=mode,
            options=[
                SessionConfigSelectOption(value=one.value, name=one.value, description=what)
                for one, what in _MODES.items()
            ],
        ),
        SessionConfigOptionSelect(
            type="select",
            id=MODEL,
            name="Model",
            category="model",
            current_value=model,
            options=[
                SessionConfigSelectOption(value=name, name=name)
                for name in dict.fromkeys([model, *models])
            ],
        ),
    ]
