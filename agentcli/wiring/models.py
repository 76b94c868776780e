"""Models by their names, and the answers of recorded sessions in place of one."""

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
    """The client of a model; raises as ``registry.connect``."""
    return registry.connect(name, settings, read_recording=read_recording)


def fallbacks(settings: Settings) -> list[Callable[[], LLMClient]]:
    """What connects the models to go on with when one fails for good, in their order."""
    return [functools.partial(connect, name, settings) for name in settings.fallback]


def read_recording(path: Path) -> list[ChatResponse]:
    """The model's answers in a session's journal, in their order.

    Raises:
        JournalError: it cannot be read.
    """
    return [
        ChatResponse(event.message, event.finish_reason, event.usage)
        for event in read_events(path)
        if isinstance(event, ModelAnswered)
    ]
