"""The hooks and critics of a session that come from its settings and from installed packages."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from pathlib import Path

from agentcli import extras
from agentcli.agent.critics import ModelCritic
from agentcli.agent.hooks import Hook
from agentcli.prompts import Prompts
from agentcli.settings import Settings
from agentcli.user_hooks import UserHooks
from agentcli.wiring.models import connect

_OTLP_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def user_hooks(settings: Settings, root: Path, stack: AsyncExitStack) -> UserHooks | None:
    """The commands under ``hooks`` in the settings; ``stack`` closes them."""
    if not settings.hooks:
        return None
    commands = UserHooks(settings.hooks, str(root), os.environ)
    stack.push_async_callback(commands.aclose)
    return commands


async def model_critic(
    settings: Settings, prompts: Prompts, stack: AsyncExitStack
) -> ModelCritic | None:
    """The model that judges answers, if the settings name one; ``stack`` closes its client.

    Raises:
        ConfigError, AuthenticationError: as in ``registry.connect``.
    """
    if not settings.critic:
        return None
    client = await asyncio.to_thread(connect, settings.critic, settings)
    stack.push_async_callback(client.aclose)
    return ModelCritic(client, prompts.get("critic"))


def telemetry(settings: Settings, stack: AsyncExitStack, notices: list[str]) -> list[Hook]:
    """OpenTelemetry spans, if the environment names an endpoint for them."""
    wanted = any(os.environ.get(name) for name in _OTLP_ENDPOINTS)
    if not wanted or settings.offline or os.environ.get("OTEL_SDK_DISABLED") == "true":
        return []
    try:
        from agentcli.session.spans import Spans, exporting
    except ImportError:
        notices.append(f"no spans are sent: {extras.install('otel')}")
        return []
    spans = Spans(exporting())
    stack.push_async_callback(asyncio.to_thread, spans.close)
    return [spans]
