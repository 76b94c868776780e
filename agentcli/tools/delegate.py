"""delegate: asks a sub-agent, which can only read, and returns its answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from agentcli.errors import ToolInputError
from agentcli.prompts import Prompts
from agentcli.tools.base import Tool, ToolContext, ToolKind, ToolOutput, ToolSpec

TIME_S = 900.0

Spawn = Callable[[str, ToolContext], Awaitable[ToolOutput]]
"""Runs a sub-agent on a question. Wiring passes it in, as tools do not depend on agents."""


def delegate_tool(prompts: Prompts, spawn: Spawn) -> Tool:
    """Make the tool; raises ``ConfigError`` if its prompt is missing."""

    async def delegate(context: ToolContext, question: str) -> ToolOutput:
        if not question.strip():
            raise ToolInputError("the question is empty", path="question")
        return await spawn(question, context)

    spec = ToolSpec(
        name="delegate",
        description=prompts.get("tools/delegate"),
        parameters={
            "type": "object",
            "properties": {
                "question": {
                    "type": "string",
                    "description": "All that the sub-agent must know, and what to answer.",
                }
            },
            "required": ["question"],
            "additionalProperties": False,
        },
        # It changes nothing, so several of these calls and other searches can run in parallel.
        kind=ToolKind.SEARCH,
        requires=frozenset({"files"}),
        timeout_s=TIME_S,
    )
    return Tool(spec, delegate)
