"""Search with verification, with a real workspace, real copies and real test runs."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from agentcli.agent.events import (
    CandidateTried,
    MemoryLog,
    RunFinished,
    SessionStarted,
    StopReason,
    Warned,
)
from agentcli.agent.kernel import Agent
from agentcli.agent.module import AgentModule
from agentcli.agent.run import RunResult
from agentcli.agent.search import LOOK_ON
from agentcli.environments.copies import copied
from agentcli.environments.host import HostEnvironment
from agentcli.environments.warm import WarmEnvironment
from agentcli.errors import ServerError
from agentcli.llm.client import ChatRequest, ChatResponse, EditPlace, ModelInfo
from agentcli.llm.replay import Replay
from agentcli.messages import FinishReason, ToolCall, Usage, assistant
from agentcli.tools.base import ToolContext
from agentcli.tools.builtin import builtin_tools
from agentcli.tools.decline import decline_tool
from agentcli.tools.registry import Registry
from tests.running import pytest_ini

FILES = {
    "calc.py": "def low(a, b):\n    return max(a, b)\n\n\ndef high(a, b):\n    return min(a, b)\n",
    "test_calc.py": (
        "from calc import high, low\n\n\n"
        "def test_low():\n    assert low(1, 2) == 1\n\n\n"
        "def test_high():\n    assert high(1, 2) == 2\n"
    ),
    **pytest_ini(),
}
OTHERS = ("run_build", "run_lint")  # with a single check, the search knows which to run
RUN: tuple[str, dict[str, object]] = ("run_tests", {})
READ: tuple[str, dict[str, object]] = ("read_file", {"path": "calc.py"})


def edit(old: str, new: str, path: str = "calc.py") -> tuple[str, dict[str, object]]:
    return "search_replace", {"path": path, "old": old, "new": new}


RIGHT = edit("return max(a, b)", "return min(a, b)")
ALSO = edit("def high(a, b):\n    return min", "def high(a, b):\n    return max")


def answer(made: tuple[str, dict[str, object]] | str) -> ChatResponse:
    if isinstance(made, str):
        return ChatResponse(assistant(made), FinishReason.STOP, Usage(5, 0, 0, 5))
    call = ToolCall("c", made[0], json.dumps(made[1]))
    return ChatResponse(assistant("", call), FinishReason.TOOL_CALLS, Usage(5, 0, 0, 5))


class Model(Replay):
    """Returns scripted answers, and proposes other edits on request."""

    def __init__(self, script: Sequence[ChatResponse], others: Sequence[ChatResponse]) -> None:
        super().__init__(ModelInfo("scripted", "replay", edit_claims=("Fixed",)), script)
        self.others = others
        self.asked: list[ChatRequest] = []
        self.copies: list[str] = []

    async def propose(
        self, request: ChatRequest, count: int, places: Sequence[EditPlace] = ()
    ) -> AsyncGenerator[ChatResponse, None]:
        self.asked.append(request)
        for other in self.others:
            yield other


Work = Callable[..., Awaitable[tuple[RunResult, MemoryLog, Model]]]


@pytest.fixture
async def work(tmp_path: Path) -> AsyncIterator[Work]:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    async with AsyncExitStack() as stack:

        async def run(
            script: list,  # type: ignore[type-arg]
            others: list,  # type: ignore[type-arg]
            *,
            task: str = "fix it",
            declines: bool = True,
            then: Sequence[str] = (),
        ) -> tuple[RunResult, MemoryLog, Model]:
            environment = HostEnvironment(tmp_path)
            await environment.start()
            stack.push_async_callback(environment.aclose)
            model = Model([answer(one) for one in script], [answer(one) for one in others])
            log = MemoryLog()

            @asynccontextmanager
            async def copies() -> AsyncIterator[HostEnvironment]:
                model.copies.append("opened")
                try:
                    async with copied(tmp_path, kind=WarmEnvironment) as copy:
                        yield copy
                finally:
                    model.copies.append("closed")

            tools = [tool for tool in builtin_tools() if tool.spec.name not in OTHERS]
            agent = Agent(
                client=model,
                tools=Registry([*tools, *([decline_tool()] if declines else [])]),
                context=ToolContext(environment),
                log=log,
                session=SessionStarted("s", str(tmp_path), "m", "auto", "none", (), "0"),
                module=AgentModule(),
                copies=copies,
            )
            result = await agent.start(task).result()
            for task in then:
                result = await agent.start(task).result()
            return result, log, model

        yield run


def tried(log: MemoryLog) -> list[int | None]:
    return [event.failures for event in log.events if isinstance(event, CandidateTried)]


def detail(result: RunResult) -> str:
    [end] = [event for event in result.events if isinstance(event, RunFinished)]
    return end.detail


async def test_an_answer_that_tells_of_no_edit_but_its_own_is_an_edit_to_be_found(
    work: Work, tmp_path: Path
) -> None:
    one = FILES["calc.py"].replace("return min", "return  max")
    (tmp_path / "calc.py").write_text(one)
    result, log, _ = await work([RUN, READ, "Fixed line 2.", RUN, "Fixed line 2."], [RIGHT])
    assert tried(log) == [0] and result.state.stop is StopReason.FINAL
    assert "return min(a, b)" in (tmp_path / "calc.py").read_text()


RENAME = [
    edit("def low(a, b):", "def least(a, b):"),
    edit("from calc import high, low", "from calc import high, least", "test_calc.py"),
    edit("    assert low(1, 2) == 1", "    assert least(1, 2) == 1", "test_calc.py"),
]


async def test_a_rename_that_the_message_asks_for_is_made_although_tests_fail(
    work: Work, tmp_path: Path
) -> None:
    result, log, _ = await work([*RENAME, "Renamed."], [RIGHT], task="rename low to least")
    assert result.state.stop is StopReason.FINAL and tried(log) == []
    assert "def least" in (tmp_path / "calc.py").read_text()
    assert "low" not in (tmp_path / "test_calc.py").read_text().replace("test_low", "")


@pytest.mark.parametrize("script", [[RENAME[0]], [RUN, RENAME[0]]])
async def test_another_edit_of_a_name_is_tried_first(work: Work, script: list) -> None:  # type: ignore[type-arg]
    task = "rename low to least" if len(script) > 1 else "low fails"
    _, log, _ = await work(script, [RIGHT], task=task)
    assert tried(log)


async def test_an_answer_may_tell_of_an_edit_of_before(work: Work, tmp_path: Path) -> None:
    (tmp_path / "calc.py").write_text(FILES["calc.py"].replace("return min", "return  max"))
    script = [RUN, READ, RIGHT, RUN, "Fixed line 2.", "Fixed line 2, as I said."]
    result, _, _ = await work(script, [RIGHT], then=["what did you change?"])
    assert result.state.stop is StopReason.FINAL, detail(result)
    assert result.state.answer == "Fixed line 2, as I said."


async def test_a_question_after_tests_that_failed_starts_no_search(
    work: Work, tmp_path: Path
) -> None:
    calc = FILES["calc.py"].replace("return min", "return  max")
    (tmp_path / "calc.py").write_text(calc)
    script = [RUN, "1 test fails.", "Fixed line 2."]
    result, log, _ = await work(script, [RIGHT], then=["which line is wrong? change nothing"])
    assert result.state.stop is StopReason.DECLINED and tried(log) == []
    assert (tmp_path / "calc.py").read_text() == calc


async def test_an_answer_that_tells_of_an_edit_is_no_answer_if_there_was_none(
    work: Work, tmp_path: Path
) -> None:
    result, log, _ = await work([READ, "Fixed line 2."], [RIGHT])
    assert result.state.stop is StopReason.DECLINED and tried(log) == []
    assert "tells of an edit that was not made" in detail(result)
    result, _, _ = await work([READ, "It is fixed at 2."], [])
    assert result.state.stop is StopReason.FINAL


async def test_an_edit_that_breaks_as_much_as_it_mends_is_not_kept(
    work: Work, tmp_path: Path
) -> None:
    calc = "def low(a, b):\n    return max(a, b)\n\n\ndef double(a):\n    return low(a, a) * 2\n"
    tests = ["low(1, 2) == 1", "low(2, 1) == 1", "double(3) == 6"]
    lines = [f"def test_{n}():\n    assert {test}\n" for n, test in enumerate(tests)]
    (tmp_path / "calc.py").write_text(calc)
    (tmp_path / "test_calc.py").write_text("\n\n".join(["from calc import *\n", *lines]))
    other = edit("return max(a, b)", "return a if a < b else None")
    result, log, _ = await work([RUN, READ, other], [other])
    assert tried(log) == [2]  # one of the two passes, but double(3) fails now
    assert result.state.stop is StopReason.TRIES_USED_UP
    assert (tmp_path / "calc.py").read_text() == calc


async def test_the_first_that_passes_is_kept(work: Work, tmp_path: Path) -> None:
    (tmp_path / "calc.py").write_text(FILES["calc.py"].replace("return min", "return  max"))
    wrong = edit("return max(a, b)", "return a + b")
    broken = edit("return max(a, b)", "return (")
    same = edit("return max(a, b)", "return max(a, b)")
    spaced = edit("return max(a, b)", "return (max(a,b))  # the larger")
    again = edit("    return max(a, b)", "    return a  +  b")
    script = [RUN, READ, READ, wrong, RUN, "Fixed."]
    result, log, model = await work(script, [wrong, broken, same, spaced, again, RIGHT])
    # One copy served both answers; it was opened while the model was still reading.
    assert model.copies == ["opened", "closed"]
    assert result.state.stop is StopReason.FINAL
    assert "return min(a, b)" in (tmp_path / "calc.py").read_text()
    # Not tried: a repeated edit, one that changes nothing, one with a syntax error, one after which
    # the program is the same, and another way to an earlier one.
    assert tried(log) == [1, 0]
    assert [tool.name for tool in model.asked[0].tools] == ["search_replace", "write_file"]
    assert result.state.files_changed == ("calc.py",)


async def test_a_copy_that_nobody_needs_is_given_up(work: Work, tmp_path: Path) -> None:
    result, log, model = await work([RUN, READ, "I only looked."], [])
    assert result.state.stop is StopReason.FINAL
    assert model.copies == ["opened", "closed"]
    assert not tried(log)


@pytest.mark.parametrize("script", [[RUN, RIGHT, RUN, ALSO, RUN], [RIGHT, ALSO, RUN]])
async def test_two_faults_are_mended_one_after_the_other(
    work: Work,
    tmp_path: Path,
    script: list,  # type: ignore[type-arg]
) -> None:
    result, log, _ = await work([*script, "Both."], [])
    assert result.state.stop is StopReason.FINAL
    assert tried(log) == [1, 0]
    text = (tmp_path / "calc.py").read_text()
    assert text.index("return min") < text.index("def high") < text.index("return max")


async def test_of_those_that_pass_the_one_that_changes_least_is_kept(
    work: Work, tmp_path: Path
) -> None:
    (tmp_path / "calc.py").write_text(FILES["calc.py"].replace("return min", "return  max"))
    more = edit("return max(a, b)", "return a if a < b else b")
    longer = edit("return max(a, b)", "return (a if (a <= b) else b) + 0")
    wrong = edit("return max(a, b)", "return b")
    result, log, _ = await work([RUN, more, RUN, "Fixed."], [wrong, longer, RIGHT, ALSO])
    assert result.state.stop is StopReason.FINAL
    assert "return min(a, b)" in (tmp_path / "calc.py").read_text()
    # Larger edits are not tried, and nothing is tried once a single token was exchanged.
    assert tried(log) == [1, 0, 0]


async def test_what_passed_is_kept_where_nothing_smaller_passes(work: Work, tmp_path: Path) -> None:
    (tmp_path / "calc.py").write_text(FILES["calc.py"].replace("return min", "return  max"))
    more = edit("return max(a, b)", "return a if a < b else b")
    wrong = [edit("return max(a, b)", f"return {n}") for n in range(2, LOOK_ON + 3)]
    result, log, _ = await work([RUN, more, RUN, "Fixed."], [*wrong, RIGHT])
    assert result.state.stop is StopReason.FINAL
    assert "return a if a < b else b" in (tmp_path / "calc.py").read_text()
    assert len(tried(log)) == 2 + LOOK_ON  # then the search ends


async def test_a_renaming_is_not_searched_for_between_its_edits(work: Work, tmp_path: Path) -> None:
    (tmp_path / "calc.py").write_text("def low(a, b):\n    return min(a, b)\n")
    test = "from calc import low\n\n\ndef test_low():\n    assert low(1, 2) == 1\n"
    (tmp_path / "test_calc.py").write_text(test)
    defined = edit("def low", "def lowest")
    imported = edit("import low", "import lowest", "test_calc.py")
    used = edit("assert low(", "assert lowest(", "test_calc.py")
    result, log, _ = await work([defined, imported, used, RUN, "Renamed."], [RIGHT])
    assert result.state.stop is StopReason.FINAL
    assert not tried(log) and len(result.state.files_changed) == 2
    assert "assert lowest(1" in (tmp_path / "test_calc.py").read_text()


async def test_used_up_tries_leave_the_workspace_as_it_was(work: Work, tmp_path: Path) -> None:
    wrong = [edit("return max(a, b)", f"return a * {n}") for n in (7, 8, 9)]
    cheat = edit("assert low(1, 2) == 1", "assert True", "test_calc.py")
    result, log, _ = await work([RUN, wrong[0]], [cheat, *wrong])
    assert result.state.stop is StopReason.TRIES_USED_UP
    assert result.exit_code == 1
    assert tried(log) == [2, 2, 2]  # the edit of the test was not tried
    assert result.state.usage.output_tokens == 6 * 5  # proposals count too
    for name, text in FILES.items():
        assert (tmp_path / name).read_text() == text


async def test_a_file_that_a_try_or_a_kept_edit_created_is_removed(
    work: Work, tmp_path: Path
) -> None:
    seen = "def test_new():\n    assert not Path('new.py').exists()\n"
    (tmp_path / "test_new.py").write_text(f"from pathlib import Path\n\n\n{seen}")
    create: tuple[str, dict[str, object]] = ("write_file", {"path": "new.py", "content": "x = 1\n"})
    (tmp_path / "test_made.py").write_text("def test_made():\n    import made\n")
    made: tuple[str, dict[str, object]] = ("write_file", {"path": "made.py", "content": "y = 1\n"})
    wrong = edit("return max(a, b)", "return a * 7")
    result, log, _ = await work([RUN, create, RUN, wrong], [made, wrong])
    assert result.state.stop is StopReason.TRIES_USED_UP
    assert tried(log)[:3] == [2, 4, 3], tried(log)
    assert "nothing was changed" in detail(result)
    assert not (tmp_path / "made.py").exists() and not (tmp_path / "new.py").exists()


async def test_an_edit_is_not_tried_where_no_check_fails(work: Work, tmp_path: Path) -> None:
    (tmp_path / "calc.py").write_text("def low(a, b):\n    return min(a, b)\n\n\nhigh = max\n")
    result, log, model = await work([edit("def low(", "def  low("), "Done."], [])
    assert result.state.stop is StopReason.FINAL
    assert tried(log) == []
    assert model.asked == []
    assert (tmp_path / "calc.py").read_text().startswith("def  low(")


async def test_what_the_user_changed_meanwhile_is_not_undone(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    propose = Model.propose
    searches: list[int] = []

    def edited(self: Model, *args: object) -> AsyncGenerator[ChatResponse, None]:
        searches.append(1)
        if len(searches) == 2:  # the first edit is kept, and the search goes on
            with (tmp_path / "calc.py").open("a") as file:
                file.write("# the user's\n")
        return propose(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Model, "propose", edited)
    wrong = edit("return min(a, b)\n\n\ndef high", "return min(a, b)\n\n\ndef higher")
    result, _, _ = await work([RUN, RIGHT, RUN, wrong], [])
    assert result.state.stop is StopReason.TRIES_USED_UP
    text = (tmp_path / "calc.py").read_text()
    assert text.endswith("# the user's\n") and "return min(a, b)" in text
    assert "calc.py changed meanwhile" in detail(result)


async def test_kept_edits_are_undone_if_tests_still_fail_at_the_end(
    work: Work, tmp_path: Path
) -> None:
    (tmp_path / "calc.py").write_bytes(FILES["calc.py"].replace("\n", "\r\n").encode())
    before = (tmp_path / "calc.py").read_bytes()
    wrong = edit("return min(a, b)\n\n\ndef high", "return min(a, b)\n\n\ndef higher")
    result, _, _ = await work([RUN, RIGHT, RUN, wrong], [])
    assert result.state.stop is StopReason.TRIES_USED_UP
    assert "nothing was changed" in detail(result)
    assert (tmp_path / "calc.py").read_bytes() == before


async def test_what_was_proposed_before_the_model_failed_is_tried(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    propose = Model.propose

    async def failing(self: Model, *args: object) -> AsyncGenerator[ChatResponse, None]:
        async for proposal in propose(self, *args):  # type: ignore[arg-type]
            yield proposal
        raise ServerError("the engine process ended", provider="local")

    monkeypatch.setattr(Model, "propose", failing)
    wrong = edit("return max(a, b)", "return a * 7")
    result, log, _ = await work([RUN, RIGHT, RUN, RIGHT], [wrong])
    assert tried(log)[:2] == [2, 1] and result.state.files_changed == ("calc.py",)
    warned = [event.text for event in log.events if isinstance(event, Warned)]
    assert any("no more edits are proposed: " in text for text in warned)


@pytest.mark.parametrize("touched", [False, True])
async def test_edits_that_no_search_made_are_undone_unless_something_else_changed_the_file(
    work: Work, tmp_path: Path, touched: bool
) -> None:
    before = FILES["calc.py"].replace("max(a, b)", "min(a, b)", 1)
    (tmp_path / "calc.py").write_text(before)
    harmless = edit("def low(", "def  low(")  # made while no check has failed
    again = edit("def high(", "def  high(")
    broken = edit("return min(a, b)\n\n\ndef  high", "return a\n\n\ndef  high")
    tests = "def test_low():\n    assert True\n"
    (tmp_path / "test_calc.py").write_text(tests)
    if touched:  # the test run stands for a user who edits at the same time
        (tmp_path / "test_mine.py").write_text(
            "from pathlib import Path\n\n\ndef test_mine():\n    mine = Path('calc.py')\n"
            "    if 'def  low' in (text := mine.read_text()):\n"
            "        mine.write_text(text + '# mine\\n')\n"
        )
    script = [
        RUN,
        harmless,
        again,
        edit("assert True", "assert False", "test_calc.py"),
        RUN,
        broken,
    ]
    result, _, _ = await work(script, [])
    assert result.state.stop is StopReason.TRIES_USED_UP
    assert (tmp_path / "test_calc.py").read_text() == tests
    if touched:
        assert "# mine" in (tmp_path / "calc.py").read_text()
        assert "calc.py changed meanwhile and was left as it is" in detail(result)
    else:
        assert "nothing was changed" in detail(result)
        assert (tmp_path / "calc.py").read_text() == before


async def test_an_edit_that_cannot_be_made_in_the_workspace_is_not_searched_for_again(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    propose = Model.propose

    def locked(self: Model, *args: object) -> AsyncGenerator[ChatResponse, None]:
        (tmp_path / "calc.py").chmod(0o444)  # the copy is open already
        return propose(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Model, "propose", locked)
    result, _, model = await work([RUN, RIGHT, RIGHT], [])
    assert result.state.stop is StopReason.DECLINED
    assert "could not be made: calc.py" in detail(result)
    assert len(model.asked) == 1


async def test_no_answer_is_based_on_tests_that_ended_without_a_count(
    work: Work, tmp_path: Path
) -> None:
    (tmp_path / "conftest.py").write_text("import os\n\nos._exit(3)\n")
    result, _, _ = await work([RUN, "All 3 tests pass already."], [])
    assert result.state.stop is StopReason.DECLINED
    assert result.exit_code == 1 and "exit code 3" in detail(result)


@pytest.mark.parametrize("later", [True, False])
async def test_an_answer_to_something_else_or_of_a_large_model_stands(
    work: Work, tmp_path: Path, later: bool
) -> None:
    (tmp_path / "conftest.py").write_text("import os\n\nos._exit(3)\n")
    script = [RUN, "The tests die with exit code 3."]
    if later:
        result, _, _ = await work([*script, "It is 4."], [], then=["what is 2 + 2?"])
    else:
        result, _, _ = await work(script, [], declines=False)
    assert result.state.stop is StopReason.FINAL


async def test_a_file_that_cannot_be_written_ends_the_search(work: Work, tmp_path: Path) -> None:
    (tmp_path / "calc.py").chmod(0o444)
    wrong = [edit("return max(a, b)", f"return {n}") for n in range(9)]
    result, log, _ = await work([RUN, RIGHT], wrong)
    assert result.state.stop is StopReason.TRIES_USED_UP and not tried(log)
    assert "no edit could be made: calc.py" in detail(result)
    assert (tmp_path / "calc.py").read_text() == FILES["calc.py"]
