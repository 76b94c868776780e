"""Approval questions before a tool runs, answered by keys."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from textual import events
from textual.widgets import Input

from agentcli.settings import Settings
from agentcli.tui import approval
from agentcli.tui.app import MARK
from agentcli.tui.approval import ApprovalPanel
from agentcli.tui.chooser import Chooser
from agentcli.tui.entries import Used
from tests.server import Reply
from tests.tui.conftest import Start


def touch(name: str) -> Reply:
    return Reply(calls=[("shell", {"command": f"touch {name} && ls"})])


async def test_yes_runs_it_once(chat: Start, workspace: Path) -> None:
    async with chat([touch("a"), touch("b"), Reply(text="done")]) as one:
        await one.send("go")
        await one.question()
        await one.sees("Run this?", "$ touch a && ls", "· touch a", "y once", "n no")
        assert not (workspace / "a").exists()
        await one.press("y")
        await one.until(lambda: "touch b" in one.text)
        await one.question()  # a question for the next call
        assert (workspace / "a").exists() and not (workspace / "b").exists()
        await one.press("n")
        await one.idle()
    assert not (workspace / "b").exists()
    assert [used.result.outcome for used in one.entries(Used)] == ["ok", "denied"]


async def test_what_still_arrives_does_not_hide_that_an_answer_is_awaited(chat: Start) -> None:
    async with chat([touch("a"), Reply(text="done")]) as one:
        await one.send("go")
        await one.question()
        one.app.doing("preparing search_replace")
        await one.sees("Waiting for your answer")
        await one.press("n")
        await one.idle()


async def test_a_command_line_is_shown_as_it_will_run(chat: Start) -> None:
    lines = [
        "cd src || exit 1; [ -f a.lock ] || rm -rf *",
        'find . -name "*.py" | xargs rm -f',
        *(f"echo {number}" for number in range(30)),
    ]
    call = ("shell", {"command": "\n".join(lines)})
    async with chat([Reply(calls=[call]), Reply(text="done")]) as one:
        await one.send("go")
        await one.question()
        await one.sees(f"$ {lines[0]}", f"  {lines[1]}", "  echo 0", "↑↓ scrolls")
        for _ in range(5):
            await one.press("pagedown")
        await one.sees("needs approval:", "· rm -rf *", "· xargs rm -f", "y once")
        assert "· cd src" not in one.text and "· exit 1" not in one.text
        await one.press("n")
        await one.idle()


async def test_all_of_the_code_can_be_read(chat: Start) -> None:
    code = "\n".join(f"print({number})" for number in range(60)) + "\n# " + "x" * 500 + " end"
    async with chat([Reply(calls=[("python", {"code": code})]), Reply(text="done")]) as one:
        await one.send("go")
        await one.question()
        seen = set()
        for _ in range(10):
            await one.pilot.pause()
            seen |= {row.strip("│ ▄▃▁▂▆▅▇█") for row in one.rows}
            await one.press("pagedown")
        assert not {f"print({number})" for number in range(60)} - seen
        assert any(row.endswith("end") for row in seen)
        await one.press("n")
        await one.idle()


async def test_in_a_sandbox_a_command_that_only_reads_is_not_asked_about(
    chat: Start, workspace: Path
) -> None:
    (workspace / "a.txt").write_text("some text\n")
    reads = Reply(calls=[("shell", {"command": "ls && cat a.txt | wc -l"})])
    async with chat([reads, Reply(text="done")]) as one:
        await one.send("go")
        await one.idle()
        assert "a.txt" in one.entries(Used)[0].result.content
    unconfined = Settings(retries=0, sandbox="none")
    async with chat([reads, Reply(text="done")], settings=unconfined) as one:
        await one.send("go")
        await one.question()
        await one.press("n")
        await one.idle()


async def test_for_the_session_asks_no_more(chat: Start, workspace: Path) -> None:
    async with chat([touch("a"), touch("a"), Reply(text="done")]) as one:
        await one.send("go")
        await one.question()
        await one.press("a")
        await one.idle()
    assert [used.result.outcome for used in one.entries(Used)] == ["ok", "ok"]


async def test_always_saves_the_rule_that_was_shown(
    chat: Start, workspace: Path, home: Path
) -> None:
    calls = [("shell", {"command": "mkdir new"})]
    async with chat([Reply(calls=calls), Reply(text="done")]) as one:
        await one.send("go")
        await one.question()
        rule = str(one.app.query_one(ApprovalPanel).approval.rule)
        await one.sees(f"p always: {rule}")
        await one.press("p")
        await one.idle()
        assert rule in "".join(path.read_text() for path in home.rglob("*.toml"))
        await one.send("/permissions")
        await one.sees(f"allow  {rule}", "Take back what")
        await one.press("enter")
        await one.sees(f"taken back: {rule}")
    assert rule not in "".join(path.read_text() for path in home.rglob("*.toml"))


async def test_a_key_of_the_first_moment_goes_to_the_prompt(
    chat: Start, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with chat([touch("a"), Reply(text="done")]) as one:
        await one.send("go")
        await one.question()
        with monkeypatch.context() as early:
            early.setattr(approval, "GUARD_S", 3600)
            await one.press("y")
            await one.until(lambda: one.app.prompt.text == "y")
        assert one.app.query(ApprovalPanel) and not (workspace / "a").exists()
        await one.question()
        await one.press("n")
        await one.idle()
    assert [used.result.outcome for used in one.entries(Used)] == ["denied"]


async def test_a_message_read_in_one_go_answers_nothing(chat: Start, workspace: Path) -> None:
    async with chat([touch("a"), Reply(text="done")]) as one:
        await one.send("go")
        await one.question()
        one.burst("Do it my way")
        await one.until(lambda: one.app.prompt.text == "Do it my way")
        assert one.app.query(ApprovalPanel)
        one.app.prompt.clear()
        await one.question()
        one.burst("please")  # p and a are answers by themselves
        await one.until(lambda: one.app.prompt.text == "please")
        await one.press("enter")
        await one.idle()
        assert one.entries(Used)[0].result.content.endswith("said no: please")
    assert not (workspace / "a").exists()


async def test_a_rule_is_not_given_by_slow_typing(chat: Start, workspace: Path) -> None:
    async with chat([touch("a"), Reply(text="done")]) as one:
        await one.send("go")
        await one.question()
        for key in "please":
            await one.press(key)
            await asyncio.sleep(0.25)
        await one.until(lambda: one.app.prompt.text == "please")
        assert one.app.query(ApprovalPanel) and not (workspace / "a").exists()
        one.app.prompt.clear()
        await one.question()
        one.burst("a\nplease")  # Enter confirms; what follows is for the prompt
        await one.until(lambda: one.app.prompt.text == "please")
        await one.idle()
    assert (workspace / "a").exists()


async def test_a_paste_follows_the_letter_before_it(chat: Start) -> None:
    async with chat([touch("a"), Reply(text="done")]) as one:
        await one.send("go")
        await one.question()
        one.burst("a")
        one.app.post_message(events.Paste("BC"))
        await one.until(lambda: one.app.prompt.text == "aBC")
        await one.press("enter")
        await one.idle()
        assert one.entries(Used)[0].result.content.endswith("said no: aBC")


async def test_escape_interrupts_the_turn(chat: Start, workspace: Path) -> None:
    async with chat([touch("a"), Reply(text="unreachable")]) as one:
        await one.send("go")
        await one.question()
        await one.press("escape")
        await one.idle()
        assert "unreachable" not in one.text
    assert not (workspace / "a").exists()
    assert [used.result.outcome for used in one.entries(Used)] == ["cancelled"]


@pytest.mark.parametrize("key", ["escape", "ctrl+c"])
@pytest.mark.parametrize("answered", [0, 1])
async def test_interrupting_at_one_of_several_questions_ends_only_the_turn(
    chat: Start, workspace: Path, key: str, answered: int
) -> None:
    names = ["a", "b", "c"]
    calls = [("shell", {"command": f"touch {name}"}) for name in names]
    async with chat([Reply(calls=calls), Reply(text="the next turn")]) as one:
        await one.send("go")
        for name in names[:answered]:
            await one.question()
            await one.press("y")
            await one.until((workspace / name).exists)
        await one.question()
        await one.press(key)
        await one.idle()
        await one.until(lambda: not one.app.query(ApprovalPanel))
        assert one.app.focused is one.app.prompt
        await one.send("go on")
        await one.sees("the next turn")
    assert sorted(path.name for path in workspace.iterdir()) == names[:answered]


async def test_words_instead_of_a_key_are_the_reason_of_a_no(chat: Start) -> None:
    async with chat([touch("a"), Reply(text="done")]) as one:
        await one.send("go")
        await one.question()
        one.app.prompt.focus()
        await one.send("use printf instead")
        await one.idle()
        (used,) = one.entries(Used)
        assert used.result.outcome == "denied"
        assert "use printf instead" in used.result.content


async def test_after_a_list_the_question_is_answered_by_a_key_again(
    chat: Start, workspace: Path
) -> None:
    async with chat([touch("a"), touch("b"), Reply(text="done")]) as one:
        await one.send("go")
        await one.question()
        await one.press("ctrl+r")
        await one.until(lambda: one.app.query(Chooser))
        await one.press("escape")
        await one.question()
        await one.press("y")
        await one.until((workspace / "a").exists)
        await one.until(lambda: "touch b" in one.text)
        await one.question()
        await one.press("ctrl+r")
        await one.until(lambda: one.app.query(Chooser))
        await one.press("enter")  # the earlier prompt is to be edited, and is no answer
        await one.until(lambda: one.app.prompt.has_focus and one.app.prompt.text == "go")
        await one.type(" on")
        await one.press("enter")
        await one.idle()
        assert one.entries(Used)[1].result.content.endswith("said no: go on")


async def test_a_question_leaves_the_keys_to_an_open_list(chat: Start, workspace: Path) -> None:
    ready = threading.Event()
    asks = Reply(calls=[("shell", {"command": "touch a"})], until=ready)
    async with chat([asks, Reply(text="done")]) as one:
        await one.send("go")
        await one.press("ctrl+r")
        await one.until(lambda: one.app.query(Chooser))
        ready.set()
        await one.sees("Run this?")
        await one.type("go")
        assert one.app.query_one(Input).value == "go"
        await one.press("escape")
        await one.question()
        await one.press("y")
        await one.idle()
    assert (workspace / "a").exists()


async def test_a_mode_that_allows_the_call_answers_the_question(
    chat: Start, workspace: Path
) -> None:
    edits = [("write_file", {"path": name, "content": "x\n"}) for name in ("a", "b")]
    script = [Reply(calls=edits), touch("c"), Reply(text="done")]
    async with chat(script) as one:
        await one.send("go")
        await one.question()
        await one.press("shift+tab")
        await one.until(lambda: "touch c" in one.text)
        await one.question()  # the mode "edits" allows no command
        assert (workspace / "a").exists() and (workspace / "b").exists()
        await one.press("shift+tab", "shift+tab")
        await one.sees("plan · openai:scripted")
        await asyncio.sleep(2 * approval.LONG_HOLD_S)
        assert one.app.query(ApprovalPanel), "auto was only passed on the way to plan"
        await one.press("shift+tab", "shift+tab", "shift+tab")
        await one.sees("auto · openai:scripted")
        await one.idle()
    assert (workspace / "c").exists()


async def test_an_edit_shows_what_it_would_change(chat: Start, workspace: Path) -> None:
    (workspace / "a.py").write_text("x = 1\ny = 2\nz = 3\n")
    edit = {"path": "a.py", "old": "y = 2", "new": "y = 4"}
    async with chat([Reply(calls=[("search_replace", edit)]), Reply(text="done")]) as one:
        await one.send("go")
        await one.question()
        await one.sees("Make this edit?", "- y = 2", "+ y = 4")
        await one.press("y")
        await one.idle()
    assert (workspace / "a.py").read_text() == "x = 1\ny = 4\nz = 3\n"


async def test_a_file_written_over_shows_both_sides_at_their_lines(
    chat: Start, workspace: Path
) -> None:
    lines = [f"line {number}" for number in range(1, 41)]
    (workspace / "a.txt").write_text("\n".join(lines) + "\n")
    lines[29] = "another"
    write = {"path": "a.txt", "content": "\n".join(lines) + "\n"}
    calls = [("read_file", {"path": "a.txt"}), ("write_file", write)]
    async with chat([Reply(calls=calls), Reply(text="done")]) as one:
        await one.send("go")
        await one.question()
        await one.sees("30 - line 30", "30 + another", "27   line 27")
        assert "+ line 1" not in one.text
        assert (workspace / "a.txt").read_text().count("another") == 0
        await one.press("n")
        await one.idle()


async def test_on_a_copy_the_effect_is_seen_before_it_is_taken(
    chat: Start, workspace: Path
) -> None:
    (workspace / "a.txt").write_text("old\n")
    calls = [("shell", {"command": "echo new > a.txt"})]
    async with chat([Reply(calls=calls), Reply(text="done")]) as one:
        await one.send("go")
        await one.question()
        await one.press("c")
        await one.sees("It ran on a copy", "- old", "+ new")
        assert (workspace / "a.txt").read_text() == "old\n"
        await one.question()
        await one.press("y")
        await one.idle()
    assert (workspace / "a.txt").read_text() == "new\n"


async def test_interrupting_takes_the_question_away(chat: Start, workspace: Path) -> None:
    async with chat([touch("a"), Reply(text="done")]) as one:
        await one.send("go")
        await one.question()
        assert one.app.conversation is not None
        one.app.conversation.interrupt()
        await one.idle()
        assert not one.app.query(ApprovalPanel)
        assert one.app.focused is one.app.prompt
    assert not (workspace / "a").exists()


async def test_words_instead_of_a_key_refuse_and_none_of_their_letters_answers(
    chat: Start, workspace: Path
) -> None:
    async with chat([touch("a"), Reply(text="done")]) as one:
        await one.send("go")
        await one.question()
        await one.press("m")
        await one.until(lambda: one.app.prompt.has_focus, "the prompt takes over")
        await one.type("ay")
        await one.until(lambda: one.app.prompt.text == "may")
        assert one.app.query(ApprovalPanel)
        await one.press("escape")  # back to the open question
        await one.question()
        await one.press("w")
        await one.until(lambda: one.app.prompt.has_focus, "the prompt takes over again")
        await one.press("ctrl+c")  # also leads back if the prompt is empty
        await one.question()
        await one.press("l")
        await one.until(lambda: one.app.prompt.has_focus, "the prompt takes over once more")
        await one.type("ess")
        await one.press("enter")
        await one.idle()
        assert one.entries(Used)[0].result.content.endswith("said no: less")
    assert not (workspace / "a").exists()


async def test_the_keys_are_seen_below_a_long_diff_that_can_be_scrolled(chat: Start) -> None:
    lines = "".join(f"line {number}\n" for number in range(1, 101))
    call = ("write_file", {"path": "long.txt", "content": lines})
    async with chat([Reply(calls=[call]), Reply(text="done")], size=(60, 20)) as one:
        await one.send("go")
        await one.question()
        await one.sees("+ line 1", "y once", "n no", "ask · openai:scripted", MARK)
        await one.sees("↑↓ scrolls")
        await one.until(lambda: "+ line 9" not in one.text)
        await one.press("pagedown")
        await one.sees("+ line 9", "y once")
        await one.press("down", "down")
        await one.sees("+ line 15", "y once")
        await one.press("n")
        await one.idle()
