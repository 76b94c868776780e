"""Checks the names of tools in the rules of the settings.

A rule that names no tool would be ignored, which is dangerous if it is meant to refuse something.
"""

from __future__ import annotations

from collections.abc import Collection

from agentcli.config import nearest
from agentcli.errors import ConfigError
from agentcli.settings import RULE, Settings
from agentcli.wiring.plugged import plugin_tools

TOOLS = frozenset(
    (
        *("read_file", "list_dir", "glob", "grep", "write_file", "search_replace", "apply_patch"),
        *("run_tests", "run_build", "run_lint", "shell", "python", "jobs", "fetch", "todo", "plan"),
        *("delegate", "skill", "mcp_resource", "calculator", "decline"),
    )
)
"""Our own tools, whether or not a session offers them."""

_ELSEWHERE = {
    **dict.fromkeys(("Bash", "BashOutput", "exec_command", "run_shell_command"), "shell"),
    **dict.fromkeys(("Edit", "MultiEdit", "NotebookEdit", "replace"), "search_replace"),
    **dict.fromkeys(("Read", "NotebookRead"), "read_file"),
    **dict.fromkeys(("WebFetch", "web_fetch"), "fetch"),
    **dict.fromkeys(("Agent", "Task"), "delegate"),
    **{"Write": "write_file", "LS": "list_dir", "TodoWrite": "todo", "ExitPlanMode": "plan"},
}
"""What other agents, whose rules are written likewise, call these tools."""


def check_rule_names(settings: Settings, more: Collection[str] = ()) -> None:
    """Check that rules name tools: ours, those of plugins or MCP servers, or ``more``.

    Tools of MCP servers are not known before the servers run, so any name of theirs is accepted;
    so is a name with ``*``.

    Raises:
        ConfigError: there is no such tool.
    """
    for key in ("deny", "ask", "allow"):
        for text in getattr(settings.permissions, key):
            found = RULE.fullmatch(text)
            name = found[1] if found else text
            if name in TOOLS or name in more or name.startswith("mcp__") or "*" in name:
                continue
            known = sorted({*TOOLS, *more, *(tool.spec.name for tool in plugin_tools((), []))})
            if name not in known:
                where = settings.source(f"permissions.{key}")
                raise ConfigError(
                    f'permissions.{key}: there is no tool "{name}" for the rule {text} ({where})',
                    hint=nearest(_ELSEWHERE.get(name, name), known),
                )
