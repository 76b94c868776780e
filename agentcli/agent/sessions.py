"""The default session of an agent that is used as a library."""

from __future__ import annotations

import secrets

from agentcli import __version__
from agentcli.agent.events import SessionStarted
from agentcli.llm.client import LLMClient
from agentcli.tools.base import ToolContext
from agentcli.tools.permissions import Mode
from agentcli.tools.registry import Registry


def session_of(client: LLMClient, tools: Registry, context: ToolContext) -> SessionStarted:
    """The first event of its log, with a new id and the facts about its parts."""
    return SessionStarted(
        secrets.token_hex(6),
        context.environment.root,
        f"{client.info.provider}:{client.info.id}",
        Mode.AUTO.value,
        context.environment.level,
        tuple(f"{spec.name}@{spec.version}" for spec in tools.specs),
        __version__,
    )
