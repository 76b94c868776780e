"""The embedded model as an LLM client: requests, reuse, streaming and failures."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from agentcli.errors import ConfigError, ContextWindowError, ServerError
from agentcli.llm.client import ChatRequest, Finished, Sampling, UsageDelta, chat
from agentcli.llm.local import EMBEDDED, LocalClient, connect, sampling_of
from agentcli.messages import (
    FinishReason,
    Message,
    ToolCall,
    ToolDefinition,
    ToolResult,
    assistant,
    tool,
    user,
)
from agentcli.model.folder import open_folder
from agentcli.settings import Settings
from agentcli.tools.builtin import builtin_tools
from agentcli.tools.calculator import calculator_tool
from tests.running import descendants, running_with

pytest.importorskip("torch", reason="models on this machine need the extra 'local'")

LEARNT = ("grep", "list_dir", "read_file", "run_tests", "search_replace")
TOOLS: tuple[ToolDefinition, ...] = tuple(
    one.spec.definition()
    for one in (*builtin_tools(), calculator_tool())
    if one.spec.name in (*LEARNT, "calculator")
)
SOURCE = "def add(a, b):\n    return a - b\n\n\ndef sub(a, b):\n    return a - b\n"
FAILING = (
    "tests failed (exit code 1)\n$ python -m pytest\n"
    "____ test_add ____\ntest_calc.py:5: in test_add\n    assert add(1, 2) == 3\n"
    "E   assert -1 == 3\nFAILED test_calc.py::test_add - assert -1 == 3\n1 failed, 1 passed in 0.1s"
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client() -> AsyncIterator[LocalClient]:
    client = connect(None, Settings())
    yield client
    await client.aclose()


def call(number: int, name: str, content: str, **arguments: object) -> list[Message]:
    written = ToolCall(f"c{number}", name, json.dumps(arguments))
    return [assistant("", written), tool(ToolResult(f"c{number}", name, content))]


def broken() -> list[Message]:
    shown = "\n".join(f"{n}\t{line}" for n, line in enumerate(SOURCE.splitlines(), 1))
    return [
        user("the tests fail, fix it"),
        *call(1, "run_tests", FAILING),
        *call(2, "read_file", shown, path="calc.py"),
    ]


async def text_of(name: str, arguments: Mapping[str, Any]) -> str | None:
    return SOURCE if arguments.get("path") == "calc.py" else None


def request(messages: list[Message], conversation: str) -> ChatRequest:
    return ChatRequest(tuple(messages), TOOLS, Sampling(), conversation, argument_text=text_of)


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_sequence_bias_of_the_generation_config_changes_greedy_answers(
    client: LocalClient, tmp_path: Path
) -> None:
    first = ChatRequest((user("hello"),), (), Sampling(max_tokens=1), "plain")
    plain = (await chat(client, first)).message.text
    for file in EMBEDDED.iterdir():
        if file.is_file():
            (tmp_path / file.name).symlink_to(file)
    (tmp_path / "generation_config.json").unlink()
    token = open_folder(EMBEDDED).load_tokenizer().encode(plain)
    (tmp_path / "generation_config.json").write_text(json.dumps({"sequence_bias": [[token, -50]]}))
    biased = connect(tmp_path, Settings())
    try:
        assert (await chat(biased, first)).message.text != plain
    finally:
        await biased.aclose()


async def test_sampling_of_a_generation_config() -> None:
    given = {"do_sample": True, "top_k": 20, "sequence_bias": [[[5], -0.5], [[5, 6], 9.0]]}
    biases = [([5], -0.5), ([5, 6], 9.0)]
    assert sampling_of(given) == {"temperature": 1.0, "top_k": 20, "sequence_bias": biases}
    assert sampling_of({"temperature": 0.7}) == {"temperature": 0.0}  # greedy without do_sample
    assert sampling_of({}, untold=1.0) == {"temperature": 1.0}
    assert sampling_of({"do_sample": False, "top_k": 5}, untold=1.0) == {"temperature": 0.0}
    penalty = {"repetition_penalty": 1.1}
    assert sampling_of({"temperature": 0.7, **penalty}) == {"temperature": 0.0, **penalty}


async def test_a_call_streams_and_the_next_turn_reuses_it(client: LocalClient) -> None:
    first = request([user("tests fail, fix it")], "stream")
    async with aclosing(client.stream(first)) as stream:  # type: ignore[type-var]
        events = [event async for event in stream]
    counts = [event.usage.output_tokens for event in events if isinstance(event, UsageDelta)]
    assert counts[0] == 1 and counts == sorted(counts)  # reported during decoding and at the end
    assert isinstance(events[-2], UsageDelta)
    assert events[-1] == Finished(FinishReason.TOOL_CALLS)
    answer = await chat(client, first)
    (made,) = answer.message.calls
    assert made.name == "run_tests"
    renamed = replace(answer.message, parts=(replace(made, id="other"),))
    result = tool(ToolResult("other", "run_tests", FAILING))
    second = await chat(client, request([*first.messages, renamed, result], "stream"))
    held = answer.usage.input_tokens + answer.usage.output_tokens
    assert second.usage.cached_tokens >= held - 1


async def test_an_edit_copies_what_occurs_once(client: LocalClient) -> None:
    answer = await chat(client, request(broken(), "edit"))
    (made,) = answer.message.calls
    assert made.name == "search_replace"
    old = json.loads(made.arguments)["old"]
    assert SOURCE.count(old) == 1


async def test_other_edits_are_proposed(client: LocalClient) -> None:
    edits = tuple(one for one in TOOLS if one.name == "search_replace")
    asked = replace(request(broken(), "propose"), tools=edits)
    found = []
    async with aclosing(client.propose(asked, 6)) as proposals:
        async for proposal in proposals:
            found.append(json.loads(proposal.message.calls[0].arguments))
    assert len(found) == 6
    assert all(SOURCE.count(one["old"]) == 1 for one in found)
    assert len({json.dumps(one) for one in found}) > 1


async def test_arithmetic_is_a_call_within_the_turn(client: LocalClient) -> None:
    question = [user("what is 12 * 12?")]
    answer = await chat(client, request(question, "sum"))
    (made,) = answer.message.calls
    assert (made.name, json.loads(made.arguments)) == ("calculator", {"expression": "12*12"})
    result = tool(ToolResult(made.id, "calculator", "144"))
    final = await chat(client, request([*question, answer.message, result], "sum"))
    assert "144" in final.message.text
    assert final.finish_reason is FinishReason.STOP
    assert final.usage.cached_tokens >= answer.usage.input_tokens


async def test_a_seed_reproduces_the_answer(client: LocalClient) -> None:
    sampling = Sampling(temperature=1.0, seed=5)
    asked = replace(request([user("where is main defined?")], "again"), sampling=sampling)
    one, two = await chat(client, asked), await chat(client, replace(asked, conversation="other"))
    assert one.message == two.message


async def test_a_limit_is_never_silent(client: LocalClient) -> None:
    asked = replace(request([user("hello")], "short"), sampling=Sampling(max_tokens=2))
    answer = await chat(client, asked)
    assert answer.finish_reason is FinishReason.LENGTH


async def test_old_results_are_left_out_where_the_window_is_full(client: LocalClient) -> None:
    messages = [user("explain")]
    for number in range(8):
        messages += call(number, "read_file", "x = 1\n" * 900, path=f"f{number}.py")
    tokens = (await client.count_tokens(request(messages, "long"))).tokens
    assert tokens <= 4096 - 600
    with pytest.raises(ContextWindowError):
        await client.count_tokens(request([user("word " * 5000)], "longer"))


async def test_a_crash_is_told_and_the_next_request_has_a_new_process(client: LocalClient) -> None:
    asked = request([user("tests fail")], "crash")
    await chat(client, asked)
    family = {one.pid for one in descendants(os.getpid())}
    hosts = [one for one in running_with("inference.host") if one.pid in family]
    newest = max(hosts, key=lambda process: process.create_time())
    os.kill(newest.pid, signal.SIGKILL)
    with pytest.raises(ServerError, match="ended unexpectedly"):
        for _ in range(100):
            await chat(client, asked)
    assert (await chat(client, asked)).message.calls


async def test_a_model_of_another_family_is_refused(tmp_path: Path) -> None:
    settings = json.loads((EMBEDDED / "tokenizer_config.json").read_text())
    del settings["special_tokens"]["<|call_start|>"]
    (tmp_path / "config.json").write_text((EMBEDDED / "config.json").read_text())
    (tmp_path / "tokenizer.tiktoken").write_bytes((EMBEDDED / "tokenizer.tiktoken").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    for name in EMBEDDED.glob("model*"):
        (tmp_path / name.name).symlink_to(name)
    with pytest.raises(ConfigError, match="not trained with agentcli's tools"):
        connect(tmp_path, Settings())


async def test_cancelling_leaves_the_client_usable(client: LocalClient) -> None:
    async with aclosing(client.stream(request(broken(), "cancel"))) as stream:  # type: ignore[type-var]
        await anext(aiter(stream))
    answer = await chat(client, request([user("tests fail")], "after"))
    assert answer.message.calls
