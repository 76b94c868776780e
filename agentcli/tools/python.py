"""python: a short program with the workspace's interpreter; and which interpreter that is."""

from __future__ import annotations

import sys

from agentcli.environments.base import Environment
from agentcli.errors import ToolError, ToolInputError
from agentcli.sandbox.limits import Limits
from agentcli.tools.base import ToolContext, ToolOutput
from agentcli.tools.report import QUIET, ending, told

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
    """The interpreter for the workspace's code, one that has ``module`` if that is given.

    The workspace's own virtual environment goes before what is on PATH, and that before the
    interpreter that agentcli itself runs on.
    """
    candidates = (*_VENVS, *_OTHERS)
    argv = ("/bin/sh", "-c", _PROBE, "sh", module, *candidates)
    result = await environment.exec(argv, limits=Limits(time_s=30.0), env=QUIET)
    return result.stdout.strip() or None if result.success else None


def shown_python(interpreter: str, venv: str = "") -> str:
    """The interpreter as it is named to the model.

    One of the workspace by its path, and so is one that was taken although the workspace has a
    virtual environment, ``venv``; else just ``python``.
    """
    return interpreter if venv or interpreter in _VENVS else "python"


async def own_venv(environment: Environment) -> str:
    """The workspace's virtual environment, ``.venv`` or ``venv``, or nothing."""
    for program in _VENVS:
        # A link that leads nowhere counts: that the environment is broken is to be said.
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
    return told(result, ending(result, context.command.time_s), context.output_chars)
