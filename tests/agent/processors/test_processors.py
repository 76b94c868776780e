"""Each processor: what it keeps and removes, and what none may touch."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from agentcli.agent.processors.base import NOTE, SUMMARY, Processor
from agentcli.agent.processors.results import (
    IMAGES_LEFT_OUT,
    LEFT_OUT,
    CondenseResults,
    KeepRecentToolCalls,
    TruncateLongTools,
)
from agentcli.agent.processors.selection import KeepLastN, KeepRelevant
from agentcli.agent.processors.standard import STANDARD, processors_named
from agentcli.agent.processors.summary import SummarizeOlderThanN
from agentcli.errors import ConfigError
from agentcli.llm.tokens import IMAGE_TOKENS
from agentcli.messages import Image, Message, Role, assistant, system, tool, user
from tests.agent.processors.conftest import conversation, shown, step, steps

ALL: list[Processor] = [
    CondenseResults(1),
    TruncateLongTools(60, 1),
    SummarizeOlderThanN("sum up", 2),
    KeepRecentToolCalls(1),
    KeepRelevant(1),
    KeepLastN(2),
]
every_processor = pytest.mark.parametrize("processor", ALL, ids=lambda p: p.name)


@every_processor
async def test_system_and_first_user_message_are_pinned(processor: Processor) -> None:
    messages = [*steps(12, "line\n" * 60), system("later rule"), *step(99, "y")]
    kept = shown(await processor.process(conversation(messages, summary="s")))
    assert kept[:2] == [system("be good"), user("first task")]
    assert system("later rule") in kept


@every_processor
@pytest.mark.parametrize("pin", range(2, 20, 3))
async def test_calls_and_results_stay_together(processor: Processor, pin: int) -> None:
    """In the reference, truncation left results without their calls."""
    messages = [*steps(3), user("and now"), *steps(6)[2:], assistant("so far"), user("go on")]
    kept = await processor.process(conversation(messages, pinned=[pin], summary="s"))
    assert messages[pin] in shown(kept)


@every_processor
async def test_what_cannot_be_shorter_stays_as_it_is(processor: Processor) -> None:
    messages = [system("s"), user("u")]
    assert shown(await processor.process(conversation(messages, summary="s"))) == messages


async def test_keep_last_n() -> None:
    kept = shown(await KeepLastN(3).process(conversation(steps(10))))
    assert [m.text for m in kept if m.role is not Role.TOOL] == [
        "be good",
        "first task",
        f"{NOTE}14 earlier messages]",
        "step 7",
        "step 8",
        "step 9",
    ]


async def test_leaving_out_twice_makes_one_note() -> None:
    first = conversation(steps(10))
    once = await KeepLastN(5).process(first)
    again = await KeepLastN(2).process(
        type(first)(once, 0, "", first.size_of, first.purpose, first.summarize)
    )
    notes = [m.text for m in shown(again) if m.text.startswith(NOTE)]
    assert notes == [f"{NOTE}16 earlier messages]"]


NEEDLE = "the port of the staging database is 54329"


def haystack() -> list[Message]:
    made = steps(4, "nothing of note " * 10)
    made += step(50, f"config says {NEEDLE}")
    for number in range(60, 90):
        made += step(number, "colours of the sunset over hills " * 4)
    return made


async def test_relevance_keeps_a_needle_that_keep_last_n_loses() -> None:
    messages = haystack()
    told = conversation(messages, target=2500, goal="Connect to the staging database port")
    by_age = shown(await KeepLastN(10).process(told))
    by_words = shown(await KeepRelevant(4).process(told))
    assert not any(NEEDLE in m.result.content for m in by_age if m.role is Role.TOOL)
    assert any(NEEDLE in m.result.content for m in by_words if m.role is Role.TOOL)
    assert sum(map(told.size_of, by_words)) <= 2500 + 200
    best = max(told.scores, key=lambda first: told.scores[first])
    assert messages[best].text == "step 50"


async def test_a_summary_takes_the_place_of_what_is_old() -> None:
    told = conversation(steps(10), summary="SAID: {text}")
    kept = shown(await SummarizeOlderThanN("sum up", 2).process(told))
    assert [m.text for m in kept if m.role is Role.ASSISTANT] == ["step 8", "step 9"]
    (summary,) = [m for m in kept if m.text.startswith(SUMMARY)]
    assert "step 0" in summary.text and "read_file, ok" in summary.text and "f7.py" in summary.text
    assert kept[0] == system("be good")  # the reference's summary erased the prompt


async def test_a_second_summary_is_made_of_the_first() -> None:
    messages = [*steps(2)[:2], user(f"{SUMMARY}long ago: {NEEDLE}"), *steps(6)[2:]]
    told = conversation(messages, summary="{text}")
    kept = shown(await SummarizeOlderThanN("sum up", 1).process(told))
    (summary,) = [m for m in kept if m.text.startswith(SUMMARY)]
    assert NEEDLE in summary.text


async def test_an_unavailable_summary_falls_back_to_truncation() -> None:
    told = conversation(steps(10, "x" * 3000), summary=None)
    kept = await SummarizeOlderThanN("sum up", 2).process(told)
    (summary,) = [m for m in shown(kept) if m.text.startswith(SUMMARY)]
    assert "step 0" in summary.text and "characters left out" in summary.text
    assert sum(item.tokens for item in kept) < told.tokens / 2


async def test_truncation_keeps_head_and_tail_of_old_results_only() -> None:
    content = "\n".join(f"line {n}" for n in range(500))
    kept = shown(await TruncateLongTools(200, 2).process(conversation(steps(5, content))))
    results = [m.result.content for m in kept if m.role is Role.TOOL]
    assert results[3:] == [content, content]
    for short in results[:3]:
        assert len(short) <= 200 and short.startswith("line 0\n") and short.endswith("line 499")


async def test_recent_calls_stay_and_old_ones_keep_valid_arguments() -> None:
    messages = steps(1)
    for number in range(4):
        messages += step(number + 10, "y" * 200, "write_file", path="a.py", content="z" * 5000)
    kept = shown(await KeepRecentToolCalls(1).process(conversation(messages)))
    calls = [call for m in kept for call in m.calls]
    assert [json.loads(call.arguments).get("path") for call in calls][1:] == ["a.py"] * 4
    assert [len(call.arguments) > 1000 for call in calls] == [False] * 4 + [True]
    results = [m.result.content for m in kept if m.role is Role.TOOL]
    assert results == [LEFT_OUT] * 4 + ["y" * 200]


@pytest.mark.parametrize(
    ("processor", "left"),
    [
        (CondenseResults(1), f"[image a.png]\n{IMAGES_LEFT_OUT}"),
        (TruncateLongTools(2000, 1), f"[image a.png]\n{IMAGES_LEFT_OUT}"),
        (KeepRecentToolCalls(1), LEFT_OUT),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
async def test_old_results_lose_their_images(processor: Processor, left: str) -> None:
    shot = Image(b"\x89PNG", "image/png", "a.png")
    messages = [system("be good"), user("first task", shot)]
    for number in range(3):
        call, result = step(number, "[image a.png]")
        messages += [call, tool(replace(result.result, images=(shot, shot)))]
    told = conversation(messages)
    items = await processor.process(told)
    kept = shown(items)
    assert kept[1] == messages[1] and kept[-1] == messages[-1]
    results = [message.result for message in kept if message.role is Role.TOOL]
    assert [(result.content, result.images) for result in results[:2]] == [(left, ())] * 2
    assert told.tokens - sum(item.tokens for item in items) > 4 * IMAGE_TOKENS - 200
    assert shown(await processor.process(replace(told, items=items))) == kept


PYTEST = "\n".join(
    [
        "tests failed (exit code 1)",
        "$ python -m pytest -q",
        *(f"tests/test_{n}.py ........" for n in range(40)),
        "____ test_sum ____",
        "E   assert 3 == 4",
        "tests/test_calc.py:12: AssertionError",
        *(f"captured noise {n}" for n in range(40)),
        "FAILED tests/test_calc.py::test_sum - assert 3 == 4",
        "1 failed, 320 passed in 2.1s",
    ]
)
GREP = "\n".join(f"src/a.py:{n}: def f{n}" for n in range(200)) + "\nsrc/b.py:7: x"
LISTING = "\n".join(f"file_{n}.txt" for n in range(300))
SOURCE = "\n".join(f"{n}\t{'def f():' if n == 50 else 'x = 1'}" for n in range(1, 200))
LOG = "\n".join(["exit code 0", *(f"compiling {n}" for n in range(300)), "done in 3 s"])


@pytest.mark.parametrize(
    ("name", "content", "kept", "gone"),
    [
        ("run_tests", PYTEST, ["tests failed", "assert 3 == 4", "test_calc.py:12", "1 failed, 320"],
         "captured noise"),
        ("grep", GREP, ["src/a.py: 200 matches", "src/b.py: 1 match"], "def f17"),
        ("grep", LISTING, ["300 entries", "file_0.txt"], "file_200.txt"),
        ("read_file", SOURCE, ["199 lines", "50\tdef f():"], "x = 1"),
        ("shell", LOG, ["exit code 0", "done in 3 s", "lines left out"], "compiling 5\n"),
    ],
    ids=["checks to their failures", "matches to counts", "listings to counts",
         "files to their definitions", "commands to their end"],
)  # fmt: skip
async def test_results_are_condensed_by_kind(
    name: str, content: str, kept: list[str], gone: str
) -> None:
    messages = [*steps(0), *step(1, content, name), *step(2, content, name)]
    told = shown(await CondenseResults(1).process(conversation(messages)))
    old, new = (m.result.content for m in told if m.role is Role.TOOL)
    assert new == content
    assert len(old) < len(content) / 4
    assert all(part in old for part in kept) and gone not in old


def test_processors_are_chosen_by_name_and_number() -> None:
    found = processors_named(["keep_last_n=20", "truncate_long_tools", "keep_relevant=2"])
    assert found == (KeepLastN(20), TruncateLongTools(), KeepRelevant(2))
    assert len(processors_named(STANDARD)) == len(STANDARD)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("keep_first", 'unknown processor "keep_first". There are: condense_results, keep_'),
        ("keep_last_n=", 'processor "keep_last_n=": nothing is not a number'),
        ("keep_last_n=x", "x is not a number"),
        ("keep_last_n=-3", "-3 is not a number"),
    ],
)
def test_a_wrong_processor_is_refused(name: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        processors_named([name])
    assert message in caught.value.line()
