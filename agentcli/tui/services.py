"""``/jobs`` and ``/mcp``: background commands and MCP servers."""

from __future__ import annotations

from agentcli.errors import UsageError
from agentcli.text import clip, counted, escape, one_line
from agentcli.tools.background import Jobs
from agentcli.tools.jobs import state_of
from agentcli.tui.entries import Level, Shown
from agentcli.tui.face import Face, agent_of

_OUTPUT_CHARS = 20_000


class Services:
    """The commands."""

    def __init__(self, face: Face) -> None:
        self._face = face

    async def jobs(self, argument: str) -> None:
        """List background commands; ``ID`` shows the output of one, ``stop ID`` ends it."""
        jobs = agent_of(self._face).context.jobs or Jobs()
        words = argument.split()
        if not words:
            rows = [f"| {job.id} | {state_of(job)} | `{_cell(job.command)}` |" for job in jobs]
            if not rows:
                self._face.tell("no command runs in the background")
                return
            table = ["| | | |", "|---|---|---|", *rows]
            self._face.added(Shown("\n".join([*table, "", "`/jobs ID` shows, `/jobs stop ID`"])))
        elif len(words) == 1:
            job = jobs.get(words[0])
            text = job.tail[-_OUTPUT_CHARS:].replace("```", "'''").rstrip("\n")
            head = f"**{job.id}** `{_cell(job.command)}`: {state_of(job)}"
            self._face.added(Shown(f"{head}\n\n```text\n{escape(text) or '(nothing yet)'}\n```"))
        elif len(words) == 2 and words[0] in ("stop", "kill"):
            job = jobs.get(words[1])
            if job.running:
                await job.kill()
            self._face.tell(f"{job.id}: {state_of(job)}")
        else:
            raise UsageError(f"/jobs {argument} is not known", hint="/jobs [ID], /jobs stop ID")

    async def mcp(self, argument: str) -> None:
        """List the servers, their state and what they offer."""
        agent_of(self._face)
        assert self._face.conversation is not None
        servers, notices = self._face.conversation.servers()
        for notice in notices:
            self._face.tell(notice, Level.WARNING)
        if not servers:
            self._face.tell("no MCP server is configured")
            return
        rows = []
        for server in servers:
            prompts = ", ".join(f"`/{server.name}:{prompt}`" for prompt in server.prompts)
            tools = ", ".join(f"`{tool}`" for tool in server.tools)
            said = f"{counted(len(server.tools), 'tool')}: {tools}" if tools else "no tools"
            rows.append(f"| `{server.name}` | {server.state} | {said} | {prompts} |")
        head = ["| Server | | Tools | Prompts |", "|---|---|---|---|"]
        hint = "`agentcli mcp` connects to each server and reports problems."
        self._face.added(Shown("\n".join([*head, *rows, "", hint])))


def _cell(command: str) -> str:
    return clip(one_line(escape(command), 200), 80).replace("|", "¦").replace("`", "'")
