"""agentcli: a terminal coding assistant that runs a task until its checks pass.

As a library: ``from agentcli import Agent, connect, tool``. These names are imported on first use,
so that the command line starts without them; ``__init__.pyi`` has their types.
"""

__version__ = "0.1.0"

_HOMES = {
    "Agent": "agentcli.agent.kernel",
    "AgentModule": "agentcli.agent.module",
    "CodingAgent": "agentcli.agent.module",
    "Hook": "agentcli.agent.hooks",
    "RunLimits": "agentcli.agent.budget",
    "RunResult": "agentcli.agent.run",
    "Settings": "agentcli.settings",
    "Task": "agentcli.task",
    "ToolContext": "agentcli.tools.base",
    "ToolKind": "agentcli.tools.base",
    "ToolOutput": "agentcli.tools.base",
    "connect": "agentcli.llm.registry",
    "load_engine": "agentcli.llm.library",
    "open_agent": "agentcli.wiring",
    "tool": "agentcli.tools.registry",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib  # here, because the supervisor imports this package too and it takes 1 ms

    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
