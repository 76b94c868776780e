"""agentcli: a terminal coding assistant that runs a task until its checks pass."""

__version__ = "0.1.0"
