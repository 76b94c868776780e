"""Asking before a call runs, on the terminal of ``agentcli run``: one question, one key."""

from __future__ import annotations

import asyncio
import os
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from agentcli.questions import GUARD_S, answered_by, asked, choices, diff_of, proposed
from agentcli.text import counted, escape, plain_output
from agentcli.tools.approval import Answer, Approval, Ask, Reply

_OUTPUT_LINES = 20


def can_ask() -> bool:
    """Whether a user can be asked: both the question and the answer need a terminal."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))


def on_terminal(paused: Callable[[], AbstractContextManager[None]]) -> Ask:
    """Ask on stderr and read a key from stdin; ``paused`` holds back other output."""

    async def ask(approval: Approval) -> Reply:
        with paused():
            print("\n".join(_question(approval)), file=sys.stderr, flush=True)
            answer = await _key(approval)
            print(answer.value, file=sys.stderr, flush=True)
        return Reply(answer)

    return ask


async def _key(approval: Approval) -> Answer:
    """Wait for the first key that is an answer; always restores the terminal."""
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[Answer] = loop.create_future()
    descriptor = sys.stdin.fileno()
    since = loop.time()

    def read() -> None:
        data = os.read(descriptor, 64)
        if not data:  # the terminal is gone
            loop.remove_reader(descriptor)
            if not answered.done():
                answered.set_result(Answer.NO)
            return
        # An arrow key only begins with Escape. Enter may follow the key, as at other questions.
        key = data.decode("utf-8", "replace").lower().rstrip("\r\n")
        answer = answered_by("n" if key == "\x1b" else key, approval)
        if answer is None or loop.time() - since < GUARD_S or answered.done():
            return
        answered.set_result(answer)

    with _keys_at_once(descriptor):
        loop.add_reader(descriptor, read)
        try:
            return await answered
        finally:
            loop.remove_reader(descriptor)


@contextmanager
def _keys_at_once(descriptor: int) -> Iterator[None]:
    """Read keys one by one without echo; Ctrl+C stays a signal."""
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor, termios.TCSADRAIN)
    termios.tcflush(descriptor, termios.TCIFLUSH)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _question(approval: Approval) -> list[str]:
    lines = [""]
    if approval.effect is None:
        lines += proposed(approval)
    if approval.output is not None:
        shown = escape(plain_output(approval.output)).rstrip("\n").split("\n")
        lines += shown[:_OUTPUT_LINES]
        if more := len(shown[_OUTPUT_LINES:]):
            lines.append(f"… {counted(more, 'more line')}")
    if diff := diff_of(approval):
        lines += escape(diff).rstrip("\n").split("\n")
    elif approval.effect is not None:
        lines.append("It changed no file.")
    keys = "  ".join(f"({choice.key}) {choice.words}" for choice in choices(approval))
    lines.append(f"{asked(approval)}  {keys}")
    return lines
