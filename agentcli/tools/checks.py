"""run_tests, run_build, run_lint: the project's own checks, detected from its files.

A command in the configuration takes precedence over detection.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from agentcli.environments.base import Environment, ExecResult
from agentcli.errors import EnvironmentOpError, ToolError
from agentcli.messages import Outcome
from agentcli.text import plain_output
from agentcli.tools.base import FAILED, NARROWER, ToolContext, ToolFunction, ToolOutput
from agentcli.tools.commands import Command, command_to_build, command_to_lint, command_to_test
from agentcli.tools.report import QUIET, command_output, ending, shown_command

_NOTHING_RAN = re.compile(
    # unittest's report. If all tests were skipped, it reads differently and counts as passed.
    r"^Ran 0 tests in [\d.]+s\s+(?:OK|NO TESTS RAN)$"
    # pytest's
    r"|^(?:=+ )?(?:no tests ran|no tests collected)\b"
    # those of cargo, go, node and ctest
    r"|^running 0 tests$|\[no (?:test files|tests to run)\]$|^[#\u2139] tests 0$"
    r"|^No tests were found!!!$",
    re.MULTILINE,
)
_SOME_RAN = re.compile(
    r"^Ran [1-9]\d* tests? in |\b[1-9]\d* (?:passed|failed)\b"
    r"|^running [1-9]|^ok\s+\S+\s+(?:[\d.]+s|\(cached\))(?!.*\[no tests to run\])"
    r"|^[#\u2139] tests [1-9]|\bfailed out of [1-9]",
    re.MULTILINE,
)
_PYTEST_FOUND_NONE = 5
_NAMED = re.compile(r"^(?:FAILED|ERROR) ([^\s:]+\.py)((?:::\S+)?)", re.MULTILINE)
# pytest's "2 failed, 1 error" and unittest's "failures=2, errors=1".
_COUNTED = re.compile(r"\b(\d+) (?:failed|errors?)\b|\b(?:failures|errors)=(\d+)")


async def run_tests(context: ToolContext, path: str | None = None) -> ToolOutput:
    """Run the project's tests.

    Args:
        path: Run only the tests in this file or folder.
    """
    return await _run(context, "tests", await _tests(context, path))


async def _tests(context: ToolContext, path: str | None = None) -> Command:
    path = await _checked(context.environment, path)
    command = _configured(context.checks.test, path) or await _found(context, path)
    if command is None:
        raise ToolError(
            "no tests found: neither pytest, unittest, cargo, go, npm nor make tests. "
            "Run what there is with shell, or name a command in the configuration (checks.test)"
        )
    return command


async def _found(context: ToolContext, path: str | None) -> Command | None:
    if context.found_commands is None:
        return await command_to_test(context.environment, path)
    if (path or "") not in context.found_commands:
        context.found_commands[path or ""] = await command_to_test(context.environment, path)
    command: Command | None = context.found_commands[path or ""]
    return command


async def run_build(context: ToolContext) -> ToolOutput:
    """Build the project."""
    return await _run(context, "build", await _build(context))


async def _build(context: ToolContext) -> Command:
    command = _configured(context.checks.build) or await command_to_build(context.environment)
    if command is None:
        raise ToolError(
            "nothing to build was found: no Cargo.toml, go.mod, build script in package.json, "
            "Makefile or Python code. Name a command in the configuration (checks.build)"
        )
    return command


async def run_lint(context: ToolContext, path: str | None = None) -> ToolOutput:
    """Run the project's linter.

    Args:
        path: Check only this file or folder.
    """
    return await _run(context, "lint", await _lint(context, path))


async def _lint(context: ToolContext, path: str | None = None) -> Command:
    path = await _checked(context.environment, path)
    command = _configured(context.checks.lint, path) or await command_to_lint(
        context.environment, path
    )
    if command is None:
        raise ToolError(
            "no linter found: neither ruff, flake8, eslint, clippy, go vet nor a lint target. "
            "Name a command in the configuration (checks.lint)"
        )
    return command


def _telling(find: Callable[..., Awaitable[Command]], otherwise: str) -> Callable[..., Any]:
    """A function for ``Tool.runs``. Which Python is used is only known once it has run."""

    async def runs(context: ToolContext, **arguments: Any) -> str:
        still = cast(Environment, _Still(context.environment))
        try:
            command = await find(replace(context, environment=still), **arguments)
        except _Unknown:
            return otherwise
        return command.shown or shown_command(command.argv, command.env)

    return runs


RUNS: Mapping[ToolFunction, Callable[..., Awaitable[str]]] = {
    run_tests: _telling(_tests, "pytest or unittest, whichever the project's Python has"),
    run_build: _telling(_build, "Python's compileall"),
    run_lint: _telling(_lint, "ruff or flake8, whichever the project's Python has"),
}
"""What the checks would run, for ``Tool.runs``."""


class _Unknown(Exception):
    """To find the command, something must be run."""


class _Still:
    """An environment that runs nothing."""

    def __init__(self, inner: Environment) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def exec(self, argv: Sequence[str], **how: Any) -> ExecResult:
        """Raise ``_Unknown``."""
        raise _Unknown


async def _run(context: ToolContext, what: str, command: Command) -> ToolOutput:
    result = await context.environment.exec(
        command.argv,
        limits=context.check,
        env={**QUIET, "CI": "1", **command.env},
        on_output=context.progress,
    )
    nothing_ran = what == "tests" and _nothing_ran(command, result)
    if nothing_ran:
        verdict = "tests failed (no tests were run)"
    elif result.success:
        verdict = f"{what} passed"
    elif result.timed_out:
        verdict = f"{what} {ending(result, context.check.time_s)}"
    else:
        verdict = f"{what} failed ({ending(result, context.check.time_s)})"
    shown = command.shown or shown_command(command.argv, command.env)
    output = command_output(result, verdict, context.output_chars, shown, notes=command.notes)
    if (failed := _failed(result)) is not None:
        narrower = _narrower(result.stdout)
        told_more = {NARROWER: {"path": narrower}} if narrower else {}
        output = replace(output, data={**output.data, FAILED: failed, **told_more})
    return replace(output, outcome=Outcome.FAILED) if nothing_ran else output


def _failed(result: ExecResult) -> int | None:
    """How many tests failed, by the last line with counts; None if not all of them ran."""
    if result.exit_code != 1:
        return None
    for line in reversed(f"{result.stdout}\n{result.stderr}".splitlines()):
        if counts := _COUNTED.findall(line):
            return sum(int(one or other) for one, other in counts)
    return None


def _narrower(printed: str) -> str:
    """The only failed test, or the only file with failed tests, as pytest names them."""
    names = set(_NAMED.findall(printed))
    files = {file for file, _ in names}
    if len(files) != 1:
        return ""
    (file,) = files
    test = next(iter(names))[1]
    return f"{file}{test}" if len(names) == 1 and "[" not in test else file


def _nothing_ran(command: Command, result: ExecResult) -> bool:
    """Whether no test ran, although the exit code may report success."""
    if result.exit_code == _PYTEST_FOUND_NONE and "pytest" in command.argv:
        return True
    if result.exit_code not in (0, _PYTEST_FOUND_NONE):
        return False
    printed = f"{plain_output(result.stdout)}\n{plain_output(result.stderr)}"
    return bool(_NOTHING_RAN.search(printed)) and not _SOME_RAN.search(printed)


async def _checked(environment: Environment, path: str | None) -> str | None:
    """Check that a path exists, and keep it from being taken for an option.

    None stands for the whole project.
    """
    if path in (None, "", ".", "./"):
        return None
    assert path is not None
    if await environment.stat(path.split("::")[0]) is None:
        raise EnvironmentOpError(f"{path}: no such file", code="ENOENT")
    return f"./{path}" if path.startswith("-") else path


def _configured(argv: tuple[str, ...], path: str | None = None) -> Command | None:
    return Command((*argv, *([path] if path else []))) if argv else None
