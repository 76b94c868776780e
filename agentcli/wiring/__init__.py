"""The composition root: from settings to an agent that is ready to run."""

from __future__ import annotations

from agentcli.wiring.opening import open_agent
from agentcli.wiring.places import copies_of
from agentcli.wiring.toolbox import mcp_settings

__all__ = ["copies_of", "mcp_settings", "open_agent"]
