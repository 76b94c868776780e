"""python: runs a short program with the workspace's interpreter, and finds that interpreter."""

from __future__ import annotations

import sys

from agentcli.environments.base import Environment
from agentcli.errors import ToolError, ToolInputError
from agentcli.sandbox.limits import Limits
from agentcli.tools.base import ToolContext, ToolOutput
from agentcli.tools.report import QUIET, command_output, ending

_VENVS = (".venv/bin/python", "venv/bin/python")
_OTHERS = ("python", "python3", sys.executable)

# Tries each interpreter and prints the first that runs and has the module.
_PROBE = """
module=$1; shift
for python; do
  command -v "$python" >/dev/null 2>&1 &&
  "$python" -c 'import sys, importlib.util as u
sys.exit(sys.argv[1] != "" and u.find_spec(sys.argv[1]) is None)' "$module" >/dev/null 2>&1 &&
  printf %s "$python" && exit 0
done
exit 1
"""


async def find_python(environment: Environment, module: str = "") -> str | None:
    """Find an interpreter for the workspace's code, one that has ``module`` if that is given.

    The order is: the workspace's virtual environment, PATH, agentcli's own interpreter.
    """
    candidates = (*_VENVS, *_OTHERS)
    argv = ("/bin/sh", "-c", _PROBE, "sh", module, *candidates)
    result = await environment.exec(argv, limits=Limits(time_s=30.0), env=QUIET)
    return result.stdout.strip() or None if result.success else None


def shown_python(interpreter: str, venv: str = "") -> str:
    """How the interpreter is named to the model.

    It is its path if it belongs to the workspace, or if it was chosen although the workspace has a
    virtual environment ``venv``; otherwise just ``python``.
    """
    return interpreter if venv or interpreter in _VENVS else "python"


async def own_venv(environment: Environment) -> str:
    """The workspace's virtual environment, ``.venv`` or ``venv``; empty if there is none."""
    for program in _VENVS:
        # A dangling link counts: the model should learn that the environment is broken.
        if await environment.stat(program) is not None:
            return program.split("/")[0]
    return ""


async def python(context: ToolContext, code: str) -> ToolOutput:
    """Run a short Python program.

    Args:
        code: The program.
    """
    if not code.strip():
        raise ToolInputError('"code" is empty', path="code")
    interpreter = await find_python(context.environment)
    if interpreter is None:
        raise ToolError("no Python interpreter was found in this environment")
    result = await context.environment.exec(
        (interpreter, "-"),
        limits=context.command,
        env=QUIET,
        stdin=code.encode("utf-8"),
        on_output=context.progress,
    )
    return command_output(result, ending(result, context.command.time_s), context.output_chars)
