"""A hook: an audit log, and one thing that no session may do."""

from __future__ import annotations

import json
import os
from pathlib import Path

from agentcli import Hook
from agentcli.agent.events import Event, ToolFinished
from agentcli.agent.hooks import Allow, Deny, Verdict
from agentcli.agent.state import AgentState
from agentcli.messages import ToolCall


class Audit(Hook):
    """One JSON line for each tool call, in the file that HOUSE_AUDIT names."""

    async def before_tool(self, call: ToolCall, state: AgentState) -> Verdict:
        """Refuse to push."""
        if "git push" in call.arguments:
            return Deny("house rules: people push, not assistants")
        return Allow()

    async def on_event(self, event: Event, state: AgentState) -> None:
        """Write down what was done."""
        file = os.environ.get("HOUSE_AUDIT")
        if file and isinstance(event, ToolFinished):
            result = event.result
            entry = {"session": state.session_id, "tool": result.name, "outcome": result.outcome}
            with Path(file).open("a", encoding="utf-8") as log:
                log.write(json.dumps(entry) + "\n")
