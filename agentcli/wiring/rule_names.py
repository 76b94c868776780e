"""Checks the names of tools in the rules and rates of the settings.

One that names no tool would be ignored, which is dangerous if it is meant to refuse or limit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from fnmatch import filter as matching

from agentcli.config import nearest
from agentcli.errors import ConfigError
from agentcli.settings import RULE, Settings, quoted
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
    """Check that rules and rates name tools: ours, those of plugins or MCP servers, or ``more``.

    Tools of MCP servers are not known before the servers run, so any name that may be theirs is
    accepted.

    Raises:
        ConfigError: there is no such tool.
    """
    rules = [(f"permissions.{key}", text, name) for key, text, name in _named(settings)]
    rates = [(f"tool_rates.{quoted(name)}", "", name) for name in settings.tool_rates]
    for key, text, name in rules + rates:
        if matching((*TOOLS, *more), name) or _may_be_a_servers(name):
            continue
        known = sorted({*TOOLS, *more, *(tool.spec.name for tool in plugin_tools((), []))})
        if not matching(known, name):
            rule = f" for the rule {text}" if text else ""
            raise ConfigError(
                f'{key}: there is no tool "{name}"{rule} ({settings.source(key)})',
                hint=nearest(_ELSEWHERE.get(name, name), known),
            )


def idle_rules(settings: Settings, tools: Collection[str]) -> list[str]:
    """One line for each rule for tools of MCP servers that names none of a session's ``tools``."""
    return [
        f"the rule {text} names no tool of this session: permissions.{key}, "
        f"{settings.source(f'permissions.{key}')}"
        for key, text, name in _named(settings)
        if _may_be_a_servers(name) and not matching((*TOOLS, *tools), name)
    ]


def _named(settings: Settings) -> Iterator[tuple[str, str, str]]:
    """(key, rule, its tool) of all rules in the settings; the tool may be a pattern with ``*``."""
    for key in ("deny", "ask", "allow"):
        for text in getattr(settings.permissions, key):
            found = RULE.fullmatch(text)
            yield key, text, found[1] if found else text


def _may_be_a_servers(name: str) -> bool:
    stem = name.partition("*")[0]
    return stem.startswith("mcp__") or ("*" in name and "mcp__".startswith(stem))
