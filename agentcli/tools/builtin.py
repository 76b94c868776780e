"""The built-in tools."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from agentcli.prompts import Prompts
from agentcli.sandbox.limits import CHECK, COMMAND, Limits
from agentcli.tools.base import Tool, ToolFunction, ToolKind
from agentcli.tools.checks import RUNS, run_build, run_lint, run_tests
from agentcli.tools.edit import search_replace
from agentcli.tools.files import list_dir, read_file, write_file
from agentcli.tools.python import python
from agentcli.tools.registry import tool
from agentcli.tools.search import glob, grep
from agentcli.tools.shell import MAX_TIME_S, shell

_FILES = frozenset({"files"})
_PROCESS = frozenset({"process"})
_BOTH = _FILES | _PROCESS

# A tool that limits its command's time gets this much on top, so that its own answer, with the
# output so far, comes before the deadline of dispatch.
_GRACE_S = 30.0
_FILE_TIME_S = 120.0

_LOOKS: Mapping[str, Any] = {"requires": _FILES, "retryable": True, "path_arguments": ("path",)}
_EDITS: Mapping[str, Any] = {
    "requires": _FILES,
    "path_arguments": ("path",),
    "only_writes": True,
}
_CHECKS: Mapping[str, Any] = {"requires": _BOTH}

_TABLE: tuple[tuple[ToolFunction, ToolKind, Mapping[str, Any]], ...] = (
    (read_file, ToolKind.READ, {**_LOOKS, "text_of": {"path": ""}}),
    (list_dir, ToolKind.SEARCH, _LOOKS),
    (glob, ToolKind.SEARCH, _LOOKS),
    (grep, ToolKind.SEARCH, _LOOKS),
    (write_file, ToolKind.EDIT, _EDITS),
    (
        search_replace,
        ToolKind.EDIT,
        {**_EDITS, "text_of": {"path": "", "old": "path"}, "variant_of": {"new": "old"}},
    ),
    (run_tests, ToolKind.CHECK, {**_CHECKS, "text_of": {"path": ""}}),
    (run_build, ToolKind.CHECK, _CHECKS),
    (run_lint, ToolKind.CHECK, _CHECKS),
    (shell, ToolKind.RUN, {"requires": _PROCESS, "command_argument": "command"}),
    (python, ToolKind.RUN, {"requires": _PROCESS}),
)


def builtin_tools(
    prompts: Prompts | None = None, *, command: Limits = COMMAND, check: Limits = CHECK
) -> list[Tool]:
    """All built-in tools, described by ``prompts/tools/NAME.md``.

    ``command`` and ``check`` are the limits in ``ToolContext``; deadlines are derived from them.

    Raises:
        ConfigError: a description is missing or empty.
    """
    prompts = prompts or Prompts.standard()
    times_s = {
        ToolKind.CHECK: check.time_s + _GRACE_S,
        ToolKind.RUN: max(command.time_s, MAX_TIME_S) + _GRACE_S,
    }
    made = {
        function: tool(
            function,
            kind,
            description=prompts.get(f"tools/{function.__name__}"),
            timeout_s=times_s.get(kind, _FILE_TIME_S),
            **details,
        )
        for function, kind, details in _TABLE
    }
    return [replace(tool, runs=RUNS.get(function)) for function, tool in made.items()]
