"""``agentcli run --commit``: what a solved run has changed becomes one commit."""

from __future__ import annotations

from agentcli.agent.events import ModelUsed
from agentcli.agent.kernel import Agent
from agentcli.changes import Changes, draft_message, first_line
from agentcli.cli.errors import show_note
from agentcli.errors import ProviderError, UsageError
from agentcli.llm import registry
from agentcli.prompts import Prompts


async def commit_run(agent: Agent, changes: Changes, before: set[str], prompts: Prompts) -> None:
    """Commit the files that the run has changed, with a message that its model drafts.

    ``before`` are the files that differed from the last commit when the run began. What the draft
    costs counts in the session.

    Raises:
        UsageError: one of the files was among them, or git refuses.
    """
    changed = set(agent.state.files_changed)
    if mixed := sorted(changed & before):
        raise UsageError(
            f"nothing was committed: {', '.join(mixed)} had changes of yours before the run",
            hint="Look through git diff, and commit by hand",
        )
    # What git ignores, or what is as it was, is no part of a commit.
    paths = sorted(changed & changes.uncommitted())
    if not paths:
        show_note("nothing to commit")
        return
    client, state = agent.client, agent.state
    try:
        message, response = await draft_message(
            client, prompts.get("commit"), state.task, changes.diff(paths)
        )
    except ProviderError as error:
        show_note(f"the commit's message is the task's: {error.line()}")
        message = first_line(state.task)
    else:
        price = registry.price_of(client.info)
        cost = price(response.usage) if response.usage.total_tokens else None
        await agent.stream.emit(ModelUsed(state.step, "commit", response.usage, cost))
    name = changes.commit(paths, message)
    show_note(f"commit {name}: {message.splitlines()[0]}")
