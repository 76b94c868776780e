"""Reading the events of a run: order, merged deltas, backpressure, no deadlock."""

from __future__ import annotations

import asyncio

from agentcli.agent.events import Delta, Event, StepStarted, ToolProgress
from agentcli.agent.run import _MAX_BUFFERED, Run
from agentcli.llm.client import TextDelta, ThinkingDelta, ToolCallDelta


async def drain(run: Run) -> list[Event]:
    run.end()
    return [event async for event in run]


async def test_events_come_in_order_also_those_from_before_the_reader() -> None:
    run = Run()
    events: list[Event] = [StepStarted(n) for n in range(10)]
    for event in events:
        await run.put(event)
    assert await drain(run) == events


async def test_adjacent_text_is_joined_and_nothing_is_lost() -> None:
    run = Run()
    for piece in "abc":
        await run.put(Delta(1, TextDelta(piece)))
    await run.put(StepStarted(2))
    await run.put(Delta(2, TextDelta("d")))
    await run.put(Delta(2, ThinkingDelta("hm")))
    await run.put(Delta(2, ThinkingDelta("", "signature")))
    await run.put(Delta(2, ToolCallDelta(0, "{")))
    await run.put(Delta(2, ToolCallDelta(0, "}")))
    assert await drain(run) == [
        Delta(1, TextDelta("abc")),
        StepStarted(2),
        Delta(2, TextDelta("d")),
        Delta(2, ThinkingDelta("hm")),
        Delta(2, ThinkingDelta("", "signature")),
        Delta(2, ToolCallDelta(0, "{")),
        Delta(2, ToolCallDelta(0, "}")),
    ]


async def test_progress_of_different_calls_and_streams_stays_apart() -> None:
    run = Run()
    pieces = [
        ("a", "stdout", b"1"),
        ("a", "stdout", b"2"),
        ("a", "stderr", b"3"),
        ("b", "stderr", b"4"),
    ]
    for piece in pieces:
        await run.put(ToolProgress(*piece))
    assert await drain(run) == [
        ToolProgress("a", "stdout", b"12"),
        ToolProgress("a", "stderr", b"3"),
        ToolProgress("b", "stderr", b"4"),
    ]


async def test_a_slow_reader_holds_the_writer_back() -> None:
    run = Run()

    async def write() -> None:
        for number in range(_MAX_BUFFERED * 2):
            await run.put(StepStarted(number))
        run.end()

    writer = asyncio.create_task(write())
    await asyncio.sleep(0.01)
    assert not writer.done()
    steps = [event.step async for event in run if isinstance(event, StepStarted)]
    assert steps == list(range(_MAX_BUFFERED * 2))
    await writer


async def test_steering_is_read_once() -> None:
    run = Run()
    run.steer("left")
    run.steer("right")
    assert run.has_steered
    assert [run.next_steered(), run.next_steered()] == ["left", "right"]
    assert not run.has_steered and run.next_steered() is None
