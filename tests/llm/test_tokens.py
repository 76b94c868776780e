"""Counting tokens: exactly if possible, else by an estimate calibrated with provider counts."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import socket
from pathlib import Path
from typing import Any

import pytest

from agentcli.llm.anthropic import AnthropicMessages
from agentcli.llm.client import ChatRequest, ModelInfo, chat
from agentcli.llm.meter import Meter, vocabulary
from agentcli.llm.openai import OpenAIChat
from agentcli.llm.remote import LONG
from agentcli.llm.tokens import TokenCount, estimate, message_tokens, vocabulary_of
from agentcli.messages import Image, Usage, system, user
from tests.server import Reply, ScriptedServer

CODE = Path(__file__).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "sha256"),
    [
        ("o200k_base", "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"),
        ("cl100k_base", "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"),
    ],
)
def test_the_shipped_vocabularies_are_the_published_ones(name: str, sha256: str) -> None:
    published = hashlib.sha256()
    encoding = vocabulary(name)
    for rank in range(encoding.n_vocab):
        token = encoding.decode_single_token_bytes(rank)
        published.update(base64.b64encode(token) + b" %d\n" % rank)
    assert published.hexdigest() == sha256


def test_known_counts_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("something was downloaded")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    vocabulary.cache_clear()
    assert vocabulary("cl100k_base").encode_ordinary("hello world") == [15339, 1917]
    assert vocabulary("o200k_base").encode_ordinary("hello world") == [24912, 2375]
    text = "antidisestablishmentarianism 12345 it's\n\n  日本語"
    for name in ("cl100k_base", "o200k_base"):
        tokens = vocabulary(name).encode_ordinary(text)
        assert vocabulary(name).decode(tokens) == text and 10 < len(tokens) < 30


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("gpt-6.2-sol", "o200k_base"),
        ("gpt-4o-mini", "o200k_base"),
        ("gpt-4.1", "o200k_base"),
        ("openai/gpt-oss-120b", "o200k_base"),
        ("o3", "o200k_base"),
        ("gpt-4-turbo", "cl100k_base"),
        ("gpt-4", "cl100k_base"),
        ("ft:gpt-3.5-turbo:me", "cl100k_base"),
        ("claude-sonnet-5-5", None),
        ("qwen3:8b", None),
        ("olmo-2", None),
    ],
)
def test_vocabulary_of(model: str, name: str | None) -> None:
    assert vocabulary_of(model) == name


def test_tokens_are_not_a_quarter_of_the_length() -> None:
    """The reference used length / 4, which is far off for non-Latin scripts."""
    meter = Meter("gpt-6.2-sol")
    meter.sharpen()
    japanese = "東京都の天気予報を確認してください。" * 50
    counted = meter.text(japanese)
    assert counted > 2 * len(japanese) / 4
    assert abs(estimate(japanese) - counted) < 0.5 * counted
    assert meter.text(CODE) != pytest.approx(len(CODE) / 4, rel=0.02)


def test_every_part_counts() -> None:
    photo = Image(b"x" * 3_000_000, "image/png")
    bare = message_tokens(user("look"), estimate)
    assert 1000 < message_tokens(user("look", photo), estimate) - bare < 3000


def test_what_a_server_adds_does_not_grow_with_the_text() -> None:
    meter = Meter()
    meter.report(30, 1000)
    assert meter.request(30) == 1000
    assert meter.request(1030) == 5000 and meter.corrected(1000) == 4000
    meter.report(1000, 10)
    assert meter.request(2000) == 500
    meter.report(1000, 0)
    assert meter.request(2000) == 500


def openai(server: ScriptedServer, model: str = "gpt-6.2-sol") -> OpenAIChat:
    return OpenAIChat(ModelInfo(model, "openai"), "sk", server.url)


async def test_an_estimate_says_so_and_is_calibrated_by_use() -> None:
    request = ChatRequest((system("s"), user(CODE)))
    async with ScriptedServer([Reply(text="x", usage=Usage(input_tokens=1234))]) as server:
        client = openai(server)
        before = await client.count_tokens(request)
        await chat(client, request)
        after = await client.count_tokens(request)
        longer = await client.count_tokens(ChatRequest((*request.messages, user(CODE))))
        await client.aclose()
    assert before.tokens != 1234 and not before.exact
    assert after == TokenCount(1234, exact=False)
    assert longer.tokens == pytest.approx(2 * 1234, rel=0.02)


async def test_the_best_count_of_an_openai_model_is_by_its_vocabulary() -> None:
    async with ScriptedServer([]) as server:
        client = openai(server)
        rough = await client.count_tokens(ChatRequest((user(CODE),)))
        best = await client.count_tokens(ChatRequest((user(CODE),)), exact=True)
        own = len(vocabulary("o200k_base").encode_ordinary(CODE))
        assert own <= best.tokens <= own + 8 and rough.tokens != best.tokens
        assert not best.exact  # the provider's control tokens are unknown
        assert client.size_of(user(CODE)) == best.tokens
        await client.aclose()
        assert server.requests == []


async def test_a_count_that_was_cancelled_does_not_cancel_later_ones() -> None:
    request = ChatRequest((user(CODE),))
    async with ScriptedServer([]) as server:
        client = openai(server)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await client.count_tokens(request, exact=True)
        best = await client.count_tokens(request, exact=True)
        assert best.tokens >= len(vocabulary("o200k_base").encode_ordinary(CODE))
        await client.aclose()


async def test_a_long_conversation_loads_the_vocabulary_beside_the_work() -> None:
    text = "word and " * LONG
    request = ChatRequest((user(text), user("more")), conversation="c")
    async with ScriptedServer([]) as server:
        client = openai(server)
        rough = await client.count_tokens(request)
        async with asyncio.timeout(30):
            while (count := await client.count_tokens(request)) == rough:
                await asyncio.sleep(0.01)
        assert count.tokens == pytest.approx(2 * LONG, rel=0.01)
        await client.aclose()


async def test_anthropic_counts_only_when_an_exact_count_is_asked_for() -> None:
    request = ChatRequest((system("be brief"), user(CODE)))
    async with ScriptedServer([]) as server:
        client = AnthropicMessages(ModelInfo("claude-sonnet-5-5", "anthropic"), "sk", server.root)
        rough = await client.count_tokens(request)
        assert server.requests == [] and not rough.exact
        exact = await client.count_tokens(request, exact=True)
        await client.aclose()
        (asked,) = server.requests
    assert asked.path == "/v1/messages/count_tokens"
    assert set(asked.json) == {"model", "system", "messages"}
    assert exact == TokenCount(len(asked.raw) // 4, exact=True)
