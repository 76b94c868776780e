"""Messages that the agent has not read yet: shown above the prompt, and taken back."""

from __future__ import annotations

import threading
from pathlib import Path

from agentcli.settings import Settings
from agentcli.tui.entries import Said, TurnEnded
from tests.server import Reply, ScriptedServer
from tests.tui.chatting import Chat
from tests.tui.conftest import Start


def said(one: Chat) -> list[str]:
    return [entry.text for entry in one.entries(Said)]


async def test_what_is_taken_back_is_never_read(chat: Start) -> None:
    go_on = threading.Event()
    async with chat([Reply(calls=[("list_dir", {})], until=go_on), Reply(text="done")]) as one:
        await one.send("begin")
        await one.until(lambda: one.app.conversation and one.app.conversation.busy)
        await one.send("delete it")
        await one.sees("↳ next step  delete it")
        await one.press("up")
        assert one.app.prompt.text == "delete it"
        one.app.prompt.set_text("")
        await one.until(lambda: not one.app.waiting.display)
        go_on.set()
        await one.idle()
        assert said(one) == ["begin"]


async def test_after_an_interruption_nothing_waits(chat: Start) -> None:
    async with chat([Reply(text="word " * 2000, stall_after=400)]) as one:
        await one.send("begin")
        await one.until(lambda: one.app.conversation and one.app.conversation.busy)
        await one.send("mind the gap")
        await one.sees("↳ next step  mind the gap")
        await one.press("escape")
        await one.idle()
        assert one.app.prompt.text == "mind the gap" and not one.app.waiting.display


async def test_what_an_ended_turn_has_not_read_can_be_taken_back(chat: Start) -> None:
    go_on = threading.Event()
    failing = Reply(status=400, message="no", until=go_on)
    async with chat([failing, Reply(text="done")]) as one:
        await one.send("begin")
        await one.until(lambda: one.app.conversation and one.app.conversation.busy)
        await one.send("delete all tests")
        go_on.set()
        await one.until(lambda: one.entries(TurnEnded))
        await one.sees("↳ next step  delete all tests")
        await one.press("up")
        one.app.prompt.set_text("delete no test")
        await one.press("enter")
        await one.until(lambda: len(one.entries(TurnEnded)) == 2)
        assert said(one) == ["begin", "delete no test"]


async def test_what_waits_for_an_agent_can_be_taken_back(chat: Start) -> None:
    async with chat([Reply(text="here I am")], model="nobody:x") as one:
        await one.sees("no agent")
        for text in ("first", "second"):
            await one.send(text)
            await one.sees(f"↳ next step  {text}")
        await one.press("up")
        assert one.app.prompt.text == "second"
        await one.send("/model openai:scripted")
        await one.until(lambda: one.entries(TurnEnded))
        assert said(one) == ["first"]


async def test_each_message_takes_one_row(chat: Start) -> None:
    go_on = threading.Event()
    slow = Reply(text="done", until=go_on)
    async with chat([slow, *[Reply(text="x")] * 4], size=(60, 20)) as one:
        await one.send("begin")
        await one.until(lambda: one.app.conversation and one.app.conversation.busy)
        for number in range(4):
            one.app.prompt.set_text(f"{number} " + "long words " * 40)
            await one.press("tab")
        await one.sees("… 1 earlier one", "↳ queued  1 long", "↳ queued  3 long", "takes back")
        assert one.app.waiting.size.height == 5
        go_on.set()
        await one.until(lambda: len(one.entries(TurnEnded)) == 5)


async def test_what_is_said_while_a_model_is_connected_is_for_that_model(
    chat: Start, tmp_path: Path
) -> None:
    go_on = tmp_path / "go-on"
    waiting = f"while [ ! -e {go_on} ]; do sleep 0.02; done; echo sk-slow"
    with ScriptedServer([Reply(text="from the other")]) as other:
        slow = {"base_url": other.url, "api_key_command": ("sh", "-c", waiting)}
        settings = Settings.model_validate({"retries": 0, "providers": {"slow": slow}})
        async with chat([], settings=settings) as one:
            await one.idle()
            await one.send("/model slow:other")
            await one.sees("Connecting slow:other")
            for text in ("first", "second"):
                await one.send(text)
                await one.sees("Connecting slow:other", f"↳ queued  {text}")
            await one.press("up")
            assert one.app.prompt.text == "second"
            go_on.touch()
            await one.sees("from the other")
            await one.idle()
            assert said(one) == ["first"] and not one.app.waiting.display


async def test_what_is_said_for_a_model_that_cannot_be_used_is_given_back(
    chat: Start, tmp_path: Path
) -> None:
    go_on = tmp_path / "go-on"
    waiting = f"while [ ! -e {go_on} ]; do sleep 0.02; done; exit 1"
    slow = {"base_url": "http://127.0.0.1:9/v1", "api_key_command": ("sh", "-c", waiting)}
    settings = Settings.model_validate({"retries": 0, "providers": {"slow": slow}})
    async with chat([Reply(text="from the first")], settings=settings) as one:
        await one.idle()
        await one.send("/model slow:other")
        await one.sees("Connecting slow:other")
        await one.send("only for you")
        await one.sees("↳ queued  only for you")
        go_on.touch()
        await one.until(lambda: one.app.prompt.text == "only for you")
        await one.idle()
        assert said(one) == [] and not one.app.waiting.display


async def test_esc_keeps_the_model(chat: Start) -> None:
    slow = {"base_url": "http://127.0.0.1:9/v1", "api_key_command": ("sleep", "5")}
    settings = Settings.model_validate({"retries": 0, "providers": {"slow": slow}})
    async with chat([Reply(text="still here")], settings=settings) as one:
        await one.idle()
        await one.send("/model slow:other")
        await one.sees("Connecting slow:other")
        await one.press("escape")
        await one.sees("interrupted; the model is as it was")
        await one.send("hello")
        await one.sees("still here")
