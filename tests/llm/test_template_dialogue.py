"""Models of several families as LLM clients.

The models have random weights, so that valid calls can come only from the grammar."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import pytest_asyncio

pytest.importorskip("torch", reason="models on this machine need the extra 'local'")

from agentcli.errors import ConfigError, ContextWindowError
from agentcli.llm.client import ChatRequest, Sampling, chat
from agentcli.llm.local import LocalClient, connect
from agentcli.llm.template_dialogue import TemplateDialogue
from agentcli.messages import (
    Message,
    Outcome,
    ToolCall,
    ToolResult,
    assistant,
    system,
    tool,
    user,
)
from agentcli.model.folder import open_folder
from agentcli.settings import LocalSettings, Settings
from agentcli.tools.builtin import builtin_tools
from tests.llm.folders import KINDS, make_folder
from tests.llm.thread_engine import ThreadEngine

TOOLS = tuple(
    one.spec.definition()
    for one in builtin_tools()
    if one.spec.name in ("read_file", "search_replace", "python")
)
SCHEMAS = {one.name: one.parameters for one in TOOLS}
SOURCE = 'def add(a, b):\n    """Sum, "quoted"."""\n    return a - b\n'
QUESTION = (system("You fix code."), user("the tests fail\n"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("folders")


def folder_of(base: Path, kind: str) -> Path:
    folder = base / kind
    return folder if folder.exists() else make_folder(kind, folder)


@asynccontextmanager
async def connected(folder: Path) -> AsyncIterator[LocalClient]:
    settings = LocalSettings(device="cpu", dtype="float32", threads=1)
    client = connect(folder, Settings(local=settings))
    client._engine = ThreadEngine(folder, settings)
    try:
        yield client
    finally:
        await client.aclose()


@pytest_asyncio.fixture(
    scope="module", loop_scope="module", params=[kind for kind in KINDS if kind != "smollm"]
)
async def client(request: pytest.FixtureRequest, base: Path) -> AsyncIterator[LocalClient]:
    async with connected(folder_of(base, request.param)) as client:
        yield client


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def text_of(name: str, arguments: Mapping[str, Any]) -> str | None:
    return SOURCE if "path" in arguments else None


def asked(*messages: Message, conversation: str, seed: int = 1, tokens: int = 150) -> ChatRequest:
    sampling = Sampling(max_tokens=tokens, temperature=1.0, seed=seed)
    return ChatRequest(messages, TOOLS, sampling, conversation, argument_text=text_of)


async def test_every_call_is_valid(client: LocalClient) -> None:
    edits = [one for one in TOOLS if one.name == "search_replace"]
    calls: list[ToolCall] = []
    for seed in range(3):
        request = asked(*QUESTION, conversation=f"call{seed}", seed=seed)
        if seed % 2:
            request = replace(request, tools=tuple(edits))
        calls += (await chat(client, request)).message.calls
    assert calls
    for call in calls:
        arguments = json.loads(call.arguments)
        jsonschema_rs.validate(dict(SCHEMAS[call.name]), arguments)
        if call.name == "search_replace":
            assert SOURCE.count(arguments["old"]) == 1


async def test_a_turn_goes_on_where_the_last_ended(client: LocalClient) -> None:
    messages: tuple[Message, ...] = QUESTION
    for step in range(2):
        answer = await chat(client, asked(*messages, conversation="steps", seed=step))
        if step:
            _check_reuse(client)
        results = [
            tool(ToolResult(call.id, call.name, "1\tx = 1", Outcome.OK))
            for call in answer.message.calls
        ]
        messages = (*messages, answer.message, *(results or [user("go on")]))


def _check_reuse(client: LocalClient) -> None:
    """The whole cached prompt was reused, or the client says why not."""
    reuse = client.reuse
    assert reuse.held > 0
    assert reuse.why or reuse.reused >= reuse.held - 1


async def test_an_answer_goes_back_as_the_tokens_that_were_said(client: LocalClient) -> None:
    request = replace(asked(*QUESTION, conversation="tokens", tokens=60), tools=())
    answer = await chat(client, request)
    again = replace(request, messages=(*QUESTION, answer.message, user("and?")))
    prompt = client._prompt(again)
    said = [tokens for _, tokens in prompt.pieces][1:2]
    if not said:  # the template trims, moves or drops text
        assert prompt.rewritten
        return
    at = len(prompt.pieces[0][1])
    assert prompt.tokens[at : at + len(said[0])] == said[0]
    text = "".join(text for text, _ in prompt.pieces)
    assert open_folder(client.info.id).load_tokenizer().decode(prompt.tokens) == text


async def test_a_history_with_two_calls_at_once(client: LocalClient) -> None:
    """Another model made them; Llama 3's template takes one call a message."""
    calls = [ToolCall(name, "read_file", json.dumps({"path": name})) for name in ("a.py", "b.py")]
    results = [tool(ToolResult(one.id, one.name, f"text of {one.id}")) for one in calls]
    messages = (*QUESTION, assistant("Both.", *calls), *results)
    prompt = client._prompt(asked(*messages, conversation="two"))
    text = "".join(text for text, _ in prompt.pieces)
    for one in calls:
        assert text.index(one.id) < text.index(f"text of {one.id}")


async def test_thinking_that_the_template_drops(client: LocalClient) -> None:
    if "qwen3" not in client.info.id:
        pytest.skip("this family does not think")
    for seed in range(60):
        request = replace(asked(user("why?"), conversation=f"think{seed}", seed=seed), tools=())
        answer = await chat(client, request)
        if answer.message.thinking and answer.message.text:
            break
    else:
        pytest.fail("no seed made the model think")
    messages = (user("why?"), answer.message, user("and?"))
    await chat(client, replace(request, messages=messages))
    assert client.reuse.why == "the template rewrites an earlier answer"
    assert 0 < client.reuse.reused < client.reuse.held


@pytest.mark.parametrize(
    ("opens", "expected"), [("", "may"), ("<think>\\n", "open"), ("<think></think>", "")]
)
async def test_whether_the_model_may_think(tmp_path: Path, opens: str, expected: str) -> None:
    """As in DeepSeek's templates, which leave out earlier thoughts."""
    folder = make_folder("qwen3", tmp_path / "deep")
    (folder / "chat_template.jinja").write_text(
        "{%- for message in messages %}{{ message.content.split('</think>')[-1] }}{% endfor %}"
        f"{{{{ '{opens}' }}}}"
    )
    dialogue = TemplateDialogue(open_folder(folder), open_folder(folder).load_tokenizer())
    assert dialogue.prompt(asked(user("why?"), conversation="one"), 8192).thinking == expected


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def qwen(base: Path) -> AsyncIterator[LocalClient]:
    async with connected(folder_of(base, "qwen2")) as client:
        yield client


async def test_cancelling_stops_within_a_token(qwen: LocalClient) -> None:
    request = asked(*QUESTION, conversation="cancel", tokens=1000)
    async with aclosing(qwen.stream(request)) as stream:  # type: ignore[type-var]
        await anext(aiter(stream))
    answer = await asyncio.wait_for(chat(qwen, replace(request, conversation="after")), 60)
    assert answer.message.parts


async def test_a_conversation_that_does_not_fit(qwen: LocalClient) -> None:
    with pytest.raises(ContextWindowError, match="does not fit the window"):
        await qwen.count_tokens(asked(user("word " * 5000), conversation="long"))


async def test_folders_that_cannot_be_talked_to(base: Path, tmp_path: Path) -> None:
    bare = make_folder("qwen2", tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    with pytest.raises(ConfigError, match="no chat template"):
        connect(bare, Settings())
    assert open_folder(folder_of(base, "qwen3")).generation["top_k"] == 20
