"""vim keys in the prompt of the chat."""

from __future__ import annotations

from textual.widgets import Static

from agentcli.tui.entries import Said
from tests.server import Reply
from tests.tui.chatting import Chat
from tests.tui.conftest import Start


def sign(one: Chat) -> str:
    return str(one.app.query_one("#mark", Static).content)


async def test_normal_mode_edits_and_the_prompt_shows_it(chat: Start) -> None:
    async with chat([Reply(text="fine")], vim=True) as one:
        await one.idle()
        await one.type("fix the\nbad tests")
        mark = sign(one)
        await one.press("escape")
        assert (one.app.prompt.text, sign(one)) == ("fix the\nbad tests", "N")
        await one.type("0dwkAworst <")  # not a vim key, so it does nothing
        assert one.app.prompt.text == "fix theworst <\ntests"
        assert sign(one) == mark
        await one.press("escape")
        await one.type("u")
        assert one.app.prompt.text == "fix the\ntests"
        await one.press("ctrl+r")
        assert one.app.prompt.text == "fix theworst <\ntests"
        await one.type("u")
        await one.press("enter")
        await one.idle()
        assert [said.text for said in one.entries(Said)] == ["fix the\ntests"]
        assert sign(one) == mark
        await one.press("escape", "k")  # above the first line is the history
        assert one.app.prompt.text == "fix the\ntests"


async def test_escape_in_normal_mode_interrupts(chat: Start) -> None:
    async with chat([Reply(text="a word " * 400, stall_after=1000)], vim=True) as one:
        await one.send("go on")
        await one.sees("a word a word")
        await one.press("escape")
        assert sign(one) == "N" and one.app.conversation and one.app.conversation.busy
        await one.press("escape")
        await one.idle()
        await one.sees("interrupted")
