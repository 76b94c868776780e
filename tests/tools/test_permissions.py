"""Modes: what runs freely, what is asked, what is refused."""

from __future__ import annotations

import pytest

from agentcli.messages import ToolCall
from agentcli.tools.approval import Answer, Approval, Reply
from agentcli.tools.base import ToolKind, ToolSpec
from agentcli.tools.permissions import AllowAll, Mode, ModePermissions

CALL = ToolCall("1", "x")


def spec(kind: ToolKind) -> ToolSpec:
    return ToolSpec("x", "Does x.", {"type": "object"}, kind)


@pytest.mark.parametrize(
    ("mode", "free", "asked"),
    [
        ("ask", "read search plan", "edit check run"),
        ("edits", "read search plan edit", "check run"),
        ("auto", "read search plan edit check run", ""),
        ("plan", "read search plan", ""),
    ],
)
async def test_what_each_mode_allows(mode: str, free: str, asked: str) -> None:
    questions: list[str] = []

    async def ask(approval: Approval) -> Reply:
        questions.append(approval.spec.kind.value)
        return Reply(Answer.NO)

    permissions = ModePermissions(Mode(mode), ask)
    answers = {kind.value: await permissions.permit(spec(kind), CALL, {}) for kind in ToolKind}
    assert [kind for kind, answer in answers.items() if answer is None] == free.split()
    assert questions == asked.split()
    assert all(answers[kind] == "the user said no" for kind in questions)


async def test_a_user_may_allow_it() -> None:
    async def ask(approval: Approval) -> Reply:
        return Reply(Answer.ONCE)

    assert await ModePermissions(Mode.ASK, ask).permit(spec(ToolKind.RUN), CALL, {}) is None


async def test_where_nobody_can_be_asked_it_is_refused() -> None:
    permissions = ModePermissions(Mode.ASK)
    assert await permissions.permit(spec(ToolKind.EDIT), CALL, {}) == (
        "x needs approval in ask mode, and nobody can be asked"
    )


async def test_plan_mode_refuses_without_asking() -> None:
    reason = await ModePermissions(Mode.PLAN).permit(spec(ToolKind.CHECK), CALL, {})
    assert reason == "plan mode is read only, and x is not; put it into the plan instead"


async def test_the_mode_can_change_at_any_time() -> None:
    permissions = ModePermissions(Mode.PLAN)
    permissions.mode = Mode.AUTO
    assert await permissions.permit(spec(ToolKind.RUN), CALL, {}) is None


def test_the_cycle_of_modes() -> None:
    assert [mode.next.value for mode in Mode] == ["edits", "auto", "plan", "ask"]


async def test_allow_all() -> None:
    assert await AllowAll().permit(spec(ToolKind.RUN), CALL, {}) is None
