"""Undo, redo, rewind and fork, including the files."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentcli.tui.entries import Answered, Said
from tests.server import Reply
from tests.tui.conftest import Start


def write(name: str, text: str) -> Reply:
    return Reply(calls=[("write_file", {"path": name, "content": text})])


async def test_undo_and_redo(chat: Start, workspace: Path) -> None:
    script = [write("a.txt", "one\n"), Reply(text="first"), write("a.txt", "two\n"), "second"]
    replies = [Reply(text=reply) if isinstance(reply, str) else reply for reply in script]
    async with chat(replies, mode="edits") as one:
        for text in ("do one", "do two"):
            await one.send(text)
            await one.idle()
        assert (workspace / "a.txt").read_text() == "two\n"
        await one.send("/undo 2")
        await one.sees("/undo takes no argument")
        assert (workspace / "a.txt").read_text() == "two\n"
        await one.send("/undo")
        await one.until(lambda: (workspace / "a.txt").read_text() == "one\n")
        await one.until(lambda: len(one.entries(Said)) == 1)
        assert [answer.text for answer in one.entries(Answered)] == ["first"]
        await one.until(lambda: one.app.prompt.text == "do two")  # to be edited and sent again
        await one.sees("Typing replaces it")
        await one.type("/redo")
        await one.press("enter")
        await one.until(lambda: (workspace / "a.txt").read_text() == "two\n")
        await one.until(lambda: len(one.entries(Said)) == 2)


async def test_what_was_said_before_a_session_was_resumed_can_be_undone(chat: Start) -> None:
    async with chat([Reply(text=text) for text in ("first", "second", "third")]) as one:

        async def shows(*said: str) -> None:
            await one.until(lambda: [entry.text for entry in one.entries(Said)] == [*said])
            await one.idle()

        for text in ("do one", "do two"):
            await one.send(text)
            await one.idle()
        session = one.agent.session.session_id
        await one.send("/new")
        await shows()
        await one.send(f"/resume {session}")
        await shows("do one", "do two")
        await one.until(lambda: one.app.conversation and one.app.conversation.agent)
        await one.send("do three")
        await shows("do one", "do two", "do three")
        await one.send("/undo")
        await shows("do one", "do two")
        await one.send("/undo")
        await shows("do one")
        assert [answer.text for answer in one.entries(Answered)] == ["first"]
        await one.send("/redo")
        await shows("do one", "do two")
        await one.send("/redo")
        await shows("do one", "do two", "do three")


async def test_escape_twice_before_the_first_message(chat: Start) -> None:
    async with chat() as one:
        await one.idle()
        await one.press("escape", "escape")
        await one.sees("there is nothing to go back to yet")


async def test_escape_twice_goes_back_with_a_look_before(
    chat: Start, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentcli.tui.app._TWICE_S", 3600.0)  # however slow the machine
    script = [write("a.txt", "one\n"), Reply(text="first"), Reply(text="second")]
    async with chat(script, mode="edits") as one:
        for text in ("do one", "and now"):
            await one.send(text)
            await one.idle()
        await one.press("escape", "escape")
        await one.sees("Go back to before which message", "do one", "and now")
        await one.type("do one")
        await one.until(lambda: "and now" not in "\n".join(one.rows[-14:]))
        await one.press("enter")
        await one.sees("messages and files", "a.txt", "+0 -1 lines")
        await one.press("enter")
        await one.until(lambda: not (workspace / "a.txt").exists())
        await one.until(lambda: not one.entries(Said))
        await one.until(lambda: one.app.prompt.text == "do one")
        await one.press("right")
        await one.type(" again")
        assert one.app.prompt.text == "do one again"


async def test_a_fork_is_a_session_of_its_own(chat: Start, workspace: Path) -> None:
    async with chat([Reply(text="first"), Reply(text="second")]) as one:
        await one.send("hello")
        await one.idle()
        before = one.agent.session.session_id
        await one.send("/fork")
        await one.until(
            lambda: (
                (talk := one.app.conversation)
                and talk.agent
                and talk.agent.session.session_id != before
            )
        )
        await one.sees("hello", "first", f"forked; the session before is {before}")
        await one.send("go on")
        await one.until(lambda: len(one.entries(Answered)) == 2)
        history = [message.text for message in one.agent.state.history]
        assert "hello" in history and "go on" in history
