"""The slash commands in an editor: the user's and the project's own commands, skills, prompts of
MCP servers, and ``/compact``."""

from __future__ import annotations

from pathlib import Path

from acp.helpers import update_available_commands
from acp.schema import (
    AvailableCommand,
    AvailableCommandInput,
    AvailableCommandsUpdate,
    UnstructuredCommandInput,
)

from agentcli import slash_commands
from agentcli.agent.kernel import Agent
from agentcli.slash_commands import Command, command_folders, is_command, own_commands
from agentcli.tools.mcp.references import prompts_of

COMPACT = Command("compact", "shorten the conversation so far")


def available(agent: Agent, workspace: Path) -> AvailableCommandsUpdate:
    """The commands that the editor can offer."""
    prompts = prompts_of(agent.context.servers)
    own = own_commands(command_folders(workspace), taken={COMPACT.name})
    return update_available_commands(map(_wire, [COMPACT, *own, *prompts]))


async def expanded(text: str, agent: Agent, workspace: Path) -> str:
    """Expand a command; any other text is returned unchanged.

    Raises:
        UsageError: there is no such command.
        ToolError: an MCP server did not return the prompt.
    """
    if not is_command(text):
        return text
    text = slash_commands.expanded(text, command_folders(workspace))
    servers = agent.context.servers
    return await servers.expanded(text) if servers else text


def _wire(command: Command) -> AvailableCommand:
    hint = command.argument
    return AvailableCommand(
        name=command.name,
        description=command.summary or command.name,
        input=AvailableCommandInput(root=UnstructuredCommandInput(hint=hint)) if hint else None,
    )
