"""Permission modes: what is allowed, what needs approval, and what is denied."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from agentcli.errors import ConfigError
from agentcli.messages import ToolCall
from agentcli.tools.approval import Answer, Approval, Reply
from agentcli.tools.base import ToolKind, ToolSpec
from agentcli.tools.permissions import AllowAll, Mode, ModePermissions
from agentcli.tools.rule_file import RuleFile
from agentcli.tools.rules import Rule, parse_rules

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


async def test_a_tool_that_reads_from_other_machines_needs_what_commands_need() -> None:
    outward = replace(spec(ToolKind.READ), outward=True)
    for mode in Mode:
        answers = Answers(Answer.ONCE)
        assert await ModePermissions(mode, answers).permit(outward, CALL, {}) is None
        assert len(answers.asked) == (mode is not Mode.AUTO)


@pytest.mark.parametrize(
    ("path", "who"),
    [
        *((p, "agentcli itself") for p in (".agentcli/config.toml", "sub/.agentcli/a", "link")),
        *((p, "agentcli itself") for p in (".mcp.json", ".MCP.json")),
        *((p, "git") for p in (".git/config", "sub/.git/hooks/pre-commit", ".GIT/a", "x/../.git")),
    ],
)
async def test_no_mode_allows_an_edit_of_what_names_programs(
    path: str, who: str, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(".mcp.json")
    edit = replace(spec(ToolKind.EDIT), path_arguments=("path",))
    for mode in (Mode.EDITS, Mode.AUTO):
        permissions = ModePermissions(mode, root=str(tmp_path))
        assert f"{who} obeys ." in str(await permissions.permit(edit, CALL, {"path": path}))
        for other in ("a.py", "a\0.py", ".gitignore"):
            assert await permissions.permit(edit, CALL, {"path": other}) is None
        permissions = ModePermissions(mode, Answers(Answer.ONCE), root=str(tmp_path))
        assert await permissions.permit(edit, CALL, {"path": path}) is None


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


class Answers:
    """Gives the answers in turn, and records the questions."""

    def __init__(self, *answers: Answer) -> None:
        self.asked: list[Approval] = []
        self._answers = list(answers)

    async def __call__(self, approval: Approval) -> Reply:
        self.asked.append(approval)
        await asyncio.sleep(0)
        return Reply(self._answers.pop(0), "not now" if not self._answers else "")


SHELL = ToolSpec("shell", "Runs.", {"type": "object"}, ToolKind.RUN, command_argument="command")


async def run(permissions: ModePermissions, command: str) -> str | None:
    return await permissions.permit(SHELL, CALL, {"command": command})


@pytest.mark.parametrize("mode", list(Mode))
async def test_rules_come_before_the_mode(mode: Mode) -> None:
    rules = parse_rules(["shell(ls:*)"], ["shell(git push:*)"], ["shell(rm:*)"])
    permissions = ModePermissions(mode, rules=rules)
    assert "the rule shell(rm:*) refuses rm x" in str(await run(permissions, "ls; rm x"))
    if mode is Mode.PLAN:
        assert "plan mode" in str(await run(permissions, "ls"))
        return
    assert await run(permissions, "ls") is None
    assert "nobody can be asked: the rule shell(git push:*)" in str(
        await run(permissions, "git push")
    )
    assert (await run(permissions, "make") is None) == (mode is Mode.AUTO)


async def test_for_the_session_and_for_good(tmp_path: Path) -> None:
    saved = RuleFile(tmp_path, "/w")
    answers = Answers(Answer.SESSION, Answer.PREFIX, Answer.SESSION, Answer.NO)
    permissions = ModePermissions(Mode.ASK, answers, saved=saved)
    assert await run(permissions, "git log -1") is None
    assert await run(permissions, "git log -2") is None
    assert await run(permissions, "make a") is None
    assert await run(permissions, "make a && git log") is None
    assert saved.read().allow == (Rule("shell", "make a:*"),)
    assert [str(rule) for rule in permissions.given] == ["shell(git log:*)", "shell(make a:*)"]
    assert await run(permissions, "X=1 y") is None, "no rule, but the very same call"
    assert await run(permissions, "X=1 y") is None
    assert await run(permissions, "X=1 y z") == "the user said no: not now"
    assert [str(asked.rule) for asked in answers.asked] == [
        *("shell(git log:*)", "shell(make a:*)", "None", "None")
    ]


async def test_an_ask_rule_is_not_silenced_by_a_rule_for_the_session() -> None:
    answers = Answers(Answer.SESSION, Answer.ONCE)
    permissions = ModePermissions(Mode.AUTO, answers, rules=parse_rules(ask=["shell(git push:*)"]))
    for command in ("git push", "git push", "git push -f"):
        assert await run(permissions, command) is None
    assert [asked.rule for asked in answers.asked] == [None, None]


async def test_one_question_at_a_time_and_none_that_is_settled() -> None:
    answers = Answers(Answer.SESSION)
    permissions = ModePermissions(Mode.ASK, answers)
    commands = [f"git log -{number}" for number in range(5)]
    assert await asyncio.gather(*(run(permissions, command) for command in commands)) == [None] * 5
    assert len(answers.asked) == 1


async def test_what_was_given_can_be_taken_back(tmp_path: Path) -> None:
    saved = RuleFile(tmp_path, "/w")
    saved.add(Rule("shell", "ls:*"))
    rules = parse_rules(["shell(make:*)"])
    answers = Answers(Answer.PREFIX, Answer.SESSION, Answer.NO, Answer.NO)
    given = saved.read().allow
    permissions = ModePermissions(Mode.ASK, answers, rules=rules, given=given, saved=saved)
    assert await run(permissions, "ls -l") is None
    assert await run(permissions, "git log") is None
    assert await run(permissions, "X=1 y") is None
    assert [str(rule) for rule in permissions.given] == ["shell(ls:*)", "shell(git log:*)"]
    assert permissions.calls == [("shell", '{"command": "X=1 y"}')]
    for rule in tuple(permissions.given):
        permissions.take_back(rule)
    permissions.take_back(permissions.calls[0])
    assert not permissions.given and not permissions.calls and not saved.read()
    assert "said no" in str(await run(permissions, "ls -l"))
    assert "said no" in str(await run(permissions, "git log"))
    assert await run(permissions, "make") is None, "by the settings"


async def test_a_rule_that_cannot_be_saved_still_holds(tmp_path: Path) -> None:
    saved = RuleFile(tmp_path, "/w")
    permissions = ModePermissions(Mode.ASK, Answers(Answer.PREFIX), saved=saved)
    (tmp_path / "permissions").touch()  # no folder
    with pytest.raises(ConfigError):
        saved.add(Rule("shell"))
    assert await run(permissions, "make a") is None
    assert await run(permissions, "make a") is None


def test_the_cycle_of_modes() -> None:
    assert [mode.next.value for mode in Mode] == ["edits", "auto", "plan", "ask"]


async def test_allow_all() -> None:
    assert await AllowAll().permit(spec(ToolKind.RUN), CALL, {}) is None
