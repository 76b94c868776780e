"""Has the model that made the changes draft a commit message."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping

from agentcli.agent.events import ModelUsed
from agentcli.agent.kernel import Agent
from agentcli.changes import NOTHING, Changes, draft_message, first_line
from agentcli.errors import ProviderError
from agentcli.folders import user_folder
from agentcli.llm import registry
from agentcli.prompts import Prompts


async def drafted(
    agent: Agent,
    changes: Changes,
    paths: Collection[str],
    parts: Mapping[str, bytes] = NOTHING,
) -> tuple[str, str]:
    """A message for a commit of these files, and a notice if it is only the task's text.

    ``parts`` are as in ``Changes.commit``. The cost of the draft counts towards the session.

    Raises:
        UsageError: git refuses.
    """
    client, state = agent.client, agent.state
    prompt = Prompts.standard(user=user_folder() / "prompts").get("commit")
    try:
        diff = await asyncio.to_thread(changes.diff, paths, parts)
        message, response = await draft_message(client, prompt, state.task, diff)
    except ProviderError as error:
        return first_line(state.task), f"the commit's message is the task's: {error.line()}"
    price = registry.price_of(client.info)
    cost = price(response.usage) if response.usage.total_tokens else None
    await agent.stream.emit(ModelUsed(state.step, "commit", response.usage, cost))
    return message, ""
