"""Images of a task on the three wires: sent in full, in base64, with the right media type."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentcli.agent.kernel import Agent
from agentcli.errors import UsageError
from agentcli.images import task_images
from agentcli.llm.anthropic import AnthropicMessages
from agentcli.llm.client import ModelInfo
from agentcli.llm.openai import OpenAIChat
from agentcli.llm.openai_responses import OpenAIResponses
from agentcli.llm.remote import RemoteModel
from agentcli.messages import Image
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
