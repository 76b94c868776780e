"""What events say of themselves."""

from __future__ import annotations

from agentcli.agent.events import ToolFinished
from agentcli.messages import ToolResult


def test_a_command_took_what_it_took_however_long_somebody_was_asked() -> None:
    command = ToolResult("c1", "shell", "exit code 0", data={"duration_s": 0.25})
    assert ToolFinished(1, command, 9.0).command_s == 0.25
    assert ToolFinished(1, ToolResult("c2", "fetch", "text"), 9.0).command_s == 9.0
