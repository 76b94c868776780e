"""What the messages of a session say about its calls."""

from __future__ import annotations

from agentcli.agent.called import Called, since_asked
from agentcli.agent.trying import UNCOUNTED
from agentcli.messages import Message, Outcome, Role, ToolCall, ToolResult, assistant, user
from agentcli.tools.base import FAILED, ToolKind
from agentcli.tools.builtin import builtin_tools
from agentcli.tools.registry import Registry

TESTS = [tool for tool in builtin_tools() if tool.spec.name not in ("run_build", "run_lint")]
CALLED = Called(Registry(TESTS))


def step(number: str, tool: str, outcome: Outcome = Outcome.OK, **data: int) -> list[Message]:
    result = ToolResult(number, tool, "", outcome, data=data)
    return [assistant("", ToolCall(number, tool, "{}")), Message(Role.TOOL, (result,))]


def test_results_come_last_first_with_their_calls() -> None:
    said = [user("go"), *step("1", "read_file"), *step("2", "run_tests"), *step("3", "read_file")]
    found = list(CALLED.results(said, ToolKind.READ))
    assert [(call and call.id, result.call_id) for call, result in found] == [
        ("3", "3"),
        ("1", "1"),
    ]
    assert [call for call, _ in CALLED.results(said[-1:], ToolKind.READ)] == [None]


def test_a_tool_that_is_unknown_may_have_changed_files() -> None:
    said = [*step("1", "read_file"), *step("2", "search_replace"), *step("3", "gone")]
    assert CALLED.changing(said) == [ToolKind.EDIT, ToolKind.RUN]


def test_the_last_check_and_how_many_tests_failed() -> None:
    passed, broken = step("1", "run_tests"), step("2", "run_tests", Outcome.FAILED)
    failed = step("3", "run_tests", Outcome.FAILED, **{FAILED: 2})
    assert CALLED.last_check([*failed, *passed]) == (passed[0].calls[0], 0)
    assert CALLED.last_check([*passed, *failed]) == (failed[0].calls[0], 2)
    assert CALLED.last_check([*failed, *broken]) == (broken[0].calls[0], UNCOUNTED)


def test_without_a_check_the_only_check_tool_is_called() -> None:
    call, failed = CALLED.last_check([user("go")])
    assert call is not None and call.name == "run_tests" and failed is None
    assert Called(Registry(builtin_tools())).last_check([user("go")]) == (None, None)
    assert Called(Registry([])).last_check([]) == (None, None)


def test_the_messages_since_the_user_last_spoke() -> None:
    said = [user("go"), *step("1", "read_file"), user("on"), *step("2", "read_file")]
    assert list(since_asked(said)) == said[3:]
    assert list(since_asked(said[1:3])) == said[1:3]
