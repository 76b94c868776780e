"""The phase moves as the work does."""

from __future__ import annotations

from agentcli.agent.events import Phase
from agentcli.agent.phase import phase_of
from agentcli.tools.base import ToolKind


def walk(*kinds: str) -> list[str]:
    phase, edited, seen = Phase.EXPLORE, False, []
    for kind in kinds:
        phase = phase_of(phase, ToolKind(kind), edited=edited)
        edited = edited or kind == "edit"
        seen.append(phase.value)
    return seen


def test_a_repair_goes_through_all_phases() -> None:
    assert walk("search", "read", "check", "edit", "check") == [
        "explore",
        "discover",
        "discover",
        "edit",
        "validate",
    ]


def test_a_failing_check_leads_back_to_the_edit() -> None:
    assert walk("edit", "check", "read", "edit", "check") == [
        "edit",
        "validate",
        "discover",
        "edit",
        "validate",
    ]


def test_commands_validate_only_once_something_was_changed() -> None:
    assert walk("run", "read", "run", "edit", "run") == [
        "explore",
        "discover",
        "discover",
        "edit",
        "validate",
    ]


def test_reading_between_edits_is_part_of_editing() -> None:
    assert walk("edit", "read", "search", "edit") == ["edit"] * 4
