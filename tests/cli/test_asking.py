"""Approval questions in the terminal of ``agentcli run``: which keys answer, and when."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from typing import Any

import pytest

from agentcli.cli import asking
from agentcli.messages import ToolCall
from agentcli.tools.approval import Answer, Approval, Reply
from agentcli.tools.base import ToolKind, ToolSpec
from agentcli.tools.builtin import builtin_tools

SHELL = next(tool.spec for tool in builtin_tools() if tool.spec.name == "shell")


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Make a pseudo-terminal stdin; yield the descriptor on which keys are pressed."""
    pressed, terminal = os.openpty()
    with os.fdopen(terminal) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        yield pressed
    os.close(pressed)


@asynccontextmanager
async def asked(
    arguments: dict[str, Any] | None = None, *, tool: str = "shell", **more: Any
) -> AsyncIterator[asyncio.Task[Reply]]:
    paused: AbstractContextManager[None] = nullcontext()
    arguments = arguments or {"command": "touch a"}
    spec = SHELL if tool == "shell" else ToolSpec(tool, "", {"type": "object"}, ToolKind.RUN)
    approval = Approval(spec, ToolCall("1", tool, json.dumps(arguments)), arguments, **more)
    task = asyncio.ensure_future(asking.on_terminal(lambda: paused)(approval))
    try:
        yield task
    finally:
        task.cancel()


async def answered(reply: asyncio.Task[Reply], keys: int, key: bytes) -> Answer:
    """Press a key until it is read on its own and answers."""
    while not reply.done():
        os.write(keys, key)
        await asyncio.wait([reply], timeout=0.2)
    return reply.result().answer


async def test_a_key_that_was_pressed_before_the_question_answers_nothing(
    keys: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "GUARD_S", 3600)
    read, seen = os.read, bytearray()

    def noted(descriptor: int, most: int) -> bytes:
        seen.extend(data := read(descriptor, most))
        return data

    monkeypatch.setattr(os, "read", noted)
    async with asked() as reply:
        await asyncio.sleep(0)  # the question is shown and earlier keys are dropped
        for pressed in range(1, 21):
            os.write(keys, b"y")
            while len(seen) < pressed:
                await asyncio.sleep(0.001)
        assert not reply.done()
        monkeypatch.setattr(asking, "GUARD_S", 0)
        assert await answered(reply, keys, b"n") is Answer.NO


@pytest.mark.parametrize(
    ("pressed", "answer"),
    [
        (b"y", Answer.ONCE),
        (b"A", Answer.SESSION),
        (b"y\n", Answer.ONCE),
        (b"\x1b", Answer.NO),
        (b"c", Answer.COPY),
    ],
)
async def test_one_key_answers(
    keys: int, monkeypatch: pytest.MonkeyPatch, pressed: bytes, answer: Answer
) -> None:
    monkeypatch.setattr(asking, "GUARD_S", 0)
    async with asked(can_copy=True) as reply:
        await asyncio.sleep(0)  # the question is shown and earlier keys are dropped
        os.write(keys, b"\x1b[A")  # an arrow key, which begins with Escape
        await asyncio.wait([reply], timeout=0.05)
        assert not reply.done()
        assert await answered(reply, keys, pressed) is answer


async def test_a_command_line_is_printed_as_it_will_run(
    keys: int, capfd: pytest.CaptureFixture[str]
) -> None:
    command = "echo hi; cd src || exit 1\nrm -rf * # " + "x" * 500
    async with asked({"command": command}, segments=("rm -rf *",)):
        await asyncio.sleep(0)
        shown = capfd.readouterr().err
    assert "\n$ echo hi; cd src || exit 1\n  rm -rf * # " + "x" * 500 + "\n" in shown
    assert "needs approval:\n  · rm -rf *\n" in shown


@pytest.mark.parametrize(
    ("tool", "arguments", "shown"),
    [
        ("python", {"code": "if x:\n\ty\n" * 60}, "python\n" + "    if x:\n        y\n" * 60),
        (
            "mcp__a__send",
            {"content": "x" * 1000, "to": ["a", "b"], "old": "1\n2\x1b"},
            f'mcp__a__send\n  content: {"x" * 1000}\n  to: ["a", "b"]\n  old:\n    1\n    2\\x1b\n',
        ),
    ],
)
async def test_a_call_is_printed_in_full(
    keys: int,
    capfd: pytest.CaptureFixture[str],
    tool: str,
    arguments: dict[str, Any],
    shown: str,
) -> None:
    async with asked(arguments, tool=tool):
        await asyncio.sleep(0)
        assert f"\n{shown}Run this?" in capfd.readouterr().err


async def test_a_diff_is_printed_in_full(keys: int, capfd: pytest.CaptureFixture[str]) -> None:
    diff = "--- /dev/null\n+++ b/a\n@@ -0,0 +1,900 @@\n" + "+line\n" * 900
    async with asked(diff=diff):
        await asyncio.sleep(0)
        assert capfd.readouterr().err.count("+line") == 900


async def test_only_what_is_offered_answers(keys: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "GUARD_S", 0)
    async with asked(effect="") as reply:
        await asyncio.sleep(0)
        for key in (b"a", b"p", b"c", b"x"):
            os.write(keys, key)
            await asyncio.wait([reply], timeout=0.02)
        assert not reply.done()
        assert await answered(reply, keys, b"y") is Answer.ONCE
