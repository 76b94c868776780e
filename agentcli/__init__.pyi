"""The types of what ``agentcli`` loads when it is first used."""

from agentcli.agent.budget import RunLimits as RunLimits
from agentcli.agent.hooks import Hook as Hook
from agentcli.agent.kernel import Agent as Agent
from agentcli.agent.module import AgentModule as AgentModule
from agentcli.agent.module import CodingAgent as CodingAgent
from agentcli.agent.run import RunResult as RunResult
from agentcli.llm.library import load_engine as load_engine
from agentcli.llm.registry import connect as connect
from agentcli.settings import Settings as Settings
from agentcli.task import Task as Task
from agentcli.tools.base import ToolContext as ToolContext
from agentcli.tools.base import ToolKind as ToolKind
from agentcli.tools.base import ToolOutput as ToolOutput
from agentcli.tools.registry import tool as tool
from agentcli.wiring import open_agent as open_agent

__version__: str
