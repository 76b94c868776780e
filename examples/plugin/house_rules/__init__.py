"""What one company adds to agentcli; ``pyproject.toml`` names the entry points."""
