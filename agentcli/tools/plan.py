"""plan: the model states its plan in a few steps before it acts."""

from __future__ import annotations

from typing import Annotated

from agentcli.errors import ToolInputError
from agentcli.prompts import Prompts
from agentcli.tools.base import PLAN, Tool, ToolContext, ToolKind, ToolOutput
from agentcli.tools.registry import tool

FEWEST, MOST = 3, 6


async def plan(
    context: ToolContext, steps: Annotated[list[str], {"minItems": FEWEST, "maxItems": MOST}]
) -> ToolOutput:
    """Say what you are going to do.

    Args:
        steps: One sentence each, in order; 3 to 6 of them.
    """
    kept = [step.strip() for step in steps]
    if not all(kept):
        raise ToolInputError("a step of the plan is empty", path="steps")
    lines = "\n".join(f"{number}. {step}" for number, step in enumerate(kept, start=1))
    return ToolOutput(f"plan of {len(kept)} steps:\n{lines}", data={PLAN: kept})


def plan_tool(prompts: Prompts) -> Tool:
    """Make the tool; raises ``ConfigError`` if its prompt is missing."""
    return tool(plan, ToolKind.PLAN, description=prompts.get("tools/plan"))
