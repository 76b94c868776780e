"""Connects models by name, and reads recorded answers to replay instead of a model's."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

from agentcli.agent.events import ModelAnswered
from agentcli.llm import registry
from agentcli.llm.client import ChatResponse, LLMClient
from agentcli.session.journal import read_events
from agentcli.settings import Settings


def connect(name: str, settings: Settings) -> LLMClient:
    """The client of a model; raises the same errors as ``registry.connect``."""
    return registry.connect(name, settings, read_recording=read_recording)


def fallbacks(settings: Settings) -> list[Callable[[], LLMClient]]:
    """Functions that connect the fallback models, in the order in which they are tried."""
    return [functools.partial(connect, name, settings) for name in settings.fallback]


def read_recording(path: Path) -> list[ChatResponse]:
    """The model's answers in a session's journal, in order.

    Raises:
        JournalError: the journal cannot be read.
    """
    return [
        ChatResponse(event.message, event.finish_reason, event.usage)
        for event in read_events(path)
        if isinstance(event, ModelAnswered)
    ]
