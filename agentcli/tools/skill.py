"""skill: gives the model the instructions of a skill, or one of its other files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from agentcli.errors import ConfigError, ToolError
from agentcli.prompts import Prompts
from agentcli.skills import Skill
from agentcli.tools.base import Tool, ToolContext, ToolKind
from agentcli.tools.registry import tool


def skill_tool(prompts: Prompts, skills: Sequence[Skill]) -> Tool:
    """Make the tool for these skills.

    Raises:
        ConfigError: its prompt is missing.
    """
    known = {skill.name: skill for skill in skills}

    async def skill(context: ToolContext, name: str, file: str = "") -> str:
        """Read a skill.

        Args:
            name: Of the skill.
            file: One of its further files.
        """
        if name not in known:
            raise ToolError(f"there is no skill {name}; there are: {', '.join(known)}")
        try:
            if file:
                return known[name].file(file)
            return known[name].text(Path(context.environment.root))
        except ConfigError as error:
            raise ToolError(error.message) from error

    return tool(skill, ToolKind.READ, description=prompts.get("tools/skill"))


def listed(skills: Sequence[Skill]) -> str:
    """The names and descriptions, one line each, for the system prompt."""
    return "\n".join(f"- {skill.name}: {skill.description}" for skill in skills)
