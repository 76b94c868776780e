"""``agentcli run --commit``: commits what a solved run has changed."""

from __future__ import annotations

from agentcli.agent.kernel import Agent
from agentcli.changes import Changes
from agentcli.cli.errors import show_note
from agentcli.errors import UsageError
from agentcli.wiring.drafting import drafted


async def commit_run(agent: Agent, changes: Changes, before: set[str]) -> None:
    """Commit the files that the run has changed, with a message that its model drafts.

    ``before`` are the files that differed from the last commit when the run began. The cost of the
    draft counts towards the session.

    Raises:
        UsageError: the run has changed one of those files, or git refuses.
    """
    changed = set(agent.state.files_changed)
    if mixed := sorted(changed & before):
        raise UsageError(
            f"nothing was committed: {', '.join(mixed)} had changes of yours before the run",
            hint="Look through git diff, and commit by hand",
        )
    # Leaves out what git ignores and what is unchanged in the end.
    paths = sorted(changed & changes.uncommitted())
    if not paths:
        show_note("nothing to commit")
        return
    message, problem = await drafted(agent, changes, paths)
    if problem:
        show_note(problem)
    name = changes.commit(paths, message)
    show_note(f"commit {name}: {message.splitlines()[0]}")
