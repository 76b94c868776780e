"""Images of tasks and results on the three wires: in full, in base64, with their media type."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentcli.agent.kernel import Agent
from agentcli.errors import UsageError
from agentcli.images import task_images
from agentcli.llm.anthropic import AnthropicMessages
from agentcli.llm.client import ChatRequest, ModelInfo, chat
from agentcli.llm.openai import OpenAIChat
from agentcli.llm.openai_responses import OpenAIResponses
from agentcli.llm.remote import RemoteModel
from agentcli.llm.text_tools import TextTools
from agentcli.messages import (
    Image,
    Message,
    Outcome,
    ToolCall,
    ToolDefinition,
    ToolResult,
    assistant,
    tool,
    user,
)
from agentcli.prompts import Prompts
from agentcli.task import parse
from tests.server import Reply, ScriptedServer
from tests.test_images import GIF, png

PICTURE = base64.b64encode(png()).decode()
ANIMATED = base64.b64encode(GIF).decode()


def _chat(body: Any) -> Any:
    return body["messages"][-1]["content"]


def _responses(body: Any) -> Any:
    return body["input"][-1]["content"]


CHAT = [
    {"type": "text", "text": "Compare ![a](a.png) with the other."},
    {"type": "image_url", "image_url": {"url": f"data:image/gif;base64,{ANIMATED}"}},
    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}},
]
RESPONSES = [
    {"type": "input_text", "text": "Compare ![a](a.png) with the other."},
    {"type": "input_image", "image_url": f"data:image/gif;base64,{ANIMATED}", "detail": "auto"},
    {"type": "input_image", "image_url": f"data:image/png;base64,{PICTURE}", "detail": "auto"},
]
MESSAGES = [
    {"type": "text", "text": "Compare ![a](a.png) with the other."},
    {"type": "image", "source": {"type": "base64", "media_type": "image/gif", "data": ANIMATED}},
    {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": PICTURE},
        "cache_control": {"type": "ephemeral"},
    },
]


@pytest.mark.parametrize(
    ("client_of", "content_of", "wanted"),
    [
        (OpenAIChat, _chat, CHAT),
        (OpenAIResponses, _responses, RESPONSES),
        (AnthropicMessages, _chat, MESSAGES),
    ],
    ids=["chat", "responses", "messages"],
)
async def test_the_images_of_a_task(
    client_of: Callable[..., RemoteModel],
    content_of: Callable[[Any], Any],
    wanted: Any,
    tmp_path: Path,
) -> None:
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "b").write_bytes(GIF)
    text = "---\nresources: {path: b, kind: image}\n---\nCompare ![a](a.png) with the other."
    task = parse(text.encode(), "t.md")
    images, _ = task_images(task, tmp_path)
    async with ScriptedServer([Reply(text="They differ.")] * 2) as server:
        client = client_of(ModelInfo("m", "openai", images=True), "sk", server.url)
        agent = Agent(client)
        await agent.start(task.instruction, images=images).result()
        await agent.start("Sure?").result()  # later turns still contain them
        await client.aclose()
        assert server.faults == []
    first, second = (request.json for request in server.requests)
    assert content_of(first) == wanted
    assert PICTURE in str(second) and ANIMATED in str(second)


async def test_a_model_that_takes_no_images_refuses_them_before_anything_is_sent() -> None:
    async with ScriptedServer([]) as server:
        client = OpenAIChat(ModelInfo("blind", "vllm"), "sk", server.url)
        agent = Agent(client)
        with pytest.raises(UsageError) as caught:
            agent.start("Look", images=[Image(png(), "image/png", "a.png")])
        await client.aclose()
        assert server.requests == []
    assert caught.value.line() == (
        "vllm:blind does not accept images. Choose another model, or set "
        "images = true in [providers.vllm] if it does"
    )


WIRES: dict[str, Callable[..., RemoteModel]] = {
    "chat": OpenAIChat,
    "responses": OpenAIResponses,
    "messages": AnthropicMessages,
}
every_wire = pytest.mark.parametrize("wire", WIRES)
SHOT = Image(png(), "image/png", "shot.png")
HISTORY = (
    user("What does the page look like?"),
    assistant("", ToolCall("c1", "look"), ToolCall("c2", "read"), ToolCall("c3", "film")),
    tool(ToolResult("c1", "look", "[image shot.png]", images=(SHOT,))),
    tool(ToolResult("c2", "read", "1\tx")),
    tool(
        ToolResult(
            "c3", "film", "", Outcome.ERROR, images=(SHOT, Image(GIF, "image/gif", "film.gif"))
        )
    ),
)


async def sent(wire: str, *histories: tuple[Message, ...], **about: Any) -> list[Any]:
    """The bodies of the requests that a client makes with these histories."""
    info = ModelInfo(**{"id": "m", "provider": "openai", "images": True, **about})
    async with ScriptedServer([Reply(text="Red.")] * len(histories)) as server:
        client = WIRES[wire](info, "sk", server.url)
        for history in histories:
            await chat(client, ChatRequest(history, conversation="c"))
        await client.aclose()
        assert server.faults == []
    return [request.json for request in server.requests]


async def test_chat_completions_shows_a_results_images_after_all_results() -> None:
    (body,) = await sent("chat", HISTORY)
    assert body["messages"][2:] == [
        {"role": "tool", "tool_call_id": "c1", "content": "[image shot.png]"},
        {"role": "tool", "tool_call_id": "c2", "content": "1\tx"},
        {"role": "tool", "tool_call_id": "c3", "content": ""},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "[agentcli] look (call c1) returned this image:"},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}},
                {"type": "text", "text": "[agentcli] film (call c3) returned these images:"},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}},
                {"type": "image_url", "image_url": {"url": f"data:image/gif;base64,{ANIMATED}"}},
            ],
        },
    ]


@pytest.mark.parametrize(
    "model", ["mistral-large-4", "mistralai/Devstral-2", "ministral-8b", "magistral", "pixtral"]
)
async def test_models_that_take_no_users_message_after_a_tools(model: str) -> None:
    (body,) = await sent("chat", HISTORY, id=model)
    roles = [message["role"] for message in body["messages"]]
    assert roles == ["user", "assistant", "tool", "tool", "tool", "assistant", "user"]


async def test_responses_shows_images_in_the_output_of_a_call() -> None:
    (body,) = await sent("responses", HISTORY)
    picture = {"type": "input_image", "image_url": f"data:image/png;base64,{PICTURE}"}
    film = {"type": "input_image", "image_url": f"data:image/gif;base64,{ANIMATED}"}
    assert [item["output"] for item in body["input"][-3:]] == [
        [{"type": "input_text", "text": "[image shot.png]"}, {**picture, "detail": "auto"}],
        "1\tx",
        [{**picture, "detail": "auto"}, {**film, "detail": "auto"}],
    ]


async def test_messages_shows_images_in_the_result() -> None:
    (body,) = await sent("messages", HISTORY)
    source = {"type": "base64", "media_type": "image/png", "data": PICTURE}
    film = {"type": "base64", "media_type": "image/gif", "data": ANIMATED}
    assert body["messages"][-1]["content"] == [
        {
            "type": "tool_result",
            "tool_use_id": "c1",
            "content": [
                {"type": "text", "text": "[image shot.png]"},
                {"type": "image", "source": source},
            ],
        },
        {"type": "tool_result", "tool_use_id": "c2", "content": "1\tx"},
        {
            "type": "tool_result",
            "tool_use_id": "c3",
            "content": [{"type": "image", "source": source}, {"type": "image", "source": film}],
            "cache_control": {"type": "ephemeral"},
        },
    ]


@every_wire
async def test_later_requests_extend_one_with_images(wire: str) -> None:
    more = (*HISTORY, assistant("Red."), user("Sure?"))
    shorter = (*HISTORY[:4], tool(ToolResult("c3", "film", "none")), assistant("Red."))
    first, second, third = await sent(wire, HISTORY, more, (*shorter, user("And now?")))
    key = "input" if wire == "responses" else "messages"
    mark = ', "cache_control": {"type": "ephemeral"}'
    before = json.dumps(first[key]).replace(mark, "")
    assert json.dumps(second[key]).replace(mark, "").startswith(before[:-1])
    assert json.dumps(third).count(PICTURE) == 1 and ANIMATED not in json.dumps(third)


@every_wire
async def test_a_model_that_takes_no_images_is_told_of_them(wire: str) -> None:
    (body,) = await sent(wire, HISTORY, images=False)
    text = json.dumps(body)
    assert PICTURE not in text and ANIMATED not in text
    assert r"[image shot.png]\n[the image is not shown: this model accepts none]" in text
    assert '"[the images are not shown: this model accepts none]"' in text


@every_wire
async def test_images_of_results_count_as_images(wire: str) -> None:
    photo = Image(bytes(3_000_000), "image/png")
    message = tool(ToolResult("c1", "look", "[image]", images=(photo, photo)))
    request = ChatRequest((user("look"), assistant("", ToolCall("c1", "look")), message))
    for images, low, high in ((True, 3000, 3100), (False, 1, 100)):
        client = WIRES[wire](ModelInfo("m", "openai", images=images), "sk", "http://127.0.0.1:1/v1")
        assert low < (await client.count_tokens(request)).tokens < high
        assert low < client.size_of(message) < high
        await client.aclose()


@pytest.mark.parametrize("images", [True, False])
async def test_a_model_whose_calls_are_text_sees_images_too(images: bool) -> None:
    async with ScriptedServer([Reply(text="Red.")]) as server:
        client = OpenAIChat(ModelInfo("m", "vllm", images=images), "sk", server.url)
        wrapped = TextTools(client, "xml", Prompts.standard())
        look = ToolDefinition("look", "Looks.", {"type": "object"})
        await chat(wrapped, ChatRequest(HISTORY, (look,)))
        await client.aclose()
        assert server.faults == []
    content = server.requests[0].json["messages"][-1]["content"]
    if images:
        assert [part["type"] for part in content] == ["text", *["image_url"] * 3]
    else:
        assert content.startswith("Result of look (ok):\n[image shot.png]\n[the image is not shown")
