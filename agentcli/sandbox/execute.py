"""Runs a piece of Python that a model wrote, in a sandbox of its own.

The code gets a fresh interpreter in a temporary folder, no stdin and a minimal environment. Other
implementations patch builtins against processes, removal of files, changes of mode and exit. Here
the operating system refuses or confines these: nothing outside the temporary folder can be changed,
nothing outlives the call, and exit ends only the interpreter.

Covers: time, memory, tasks, output; files, processes and the network of the machine (as far as
    the sandbox's level covers them).
Does not cover: what the code does to its own folder and its own processes.
"""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import dataclass, replace

from agentcli.sandbox import policy as policies
from agentcli.sandbox.confine import Level, Sandbox, prepare
from agentcli.sandbox.limits import IN_STREAM, MIB, amount
from agentcli.sandbox.policy import Policy
from agentcli.sandbox.process import Supervisor

_OUT_OF_MEMORY = 86

# Reports an out-of-memory error by its exit code, since code can print any traceback itself.
_DRIVER = f"""
import os, sys
source = open(9).read()
try:
    exec(compile(source, "<code>", "exec"), {{"__name__": "__main__"}})
except MemoryError:
    sys.stdout.flush()
    os.write(2, b"MemoryError")
    os._exit({_OUT_OF_MEMORY})
"""


@dataclass(frozen=True, slots=True)
class CodeResult:
    """What the code printed and how it ended; ``error`` is one line, or None on success."""

    success: bool
    stdout: str
    stderr: str
    error: str | None = None
    timeout: bool = False
    memory_exceeded: bool = False


async def execute_code(
    code: str,
    timeout_s: float = 5.0,
    memory_bytes: int = 256 * MIB,
    *,
    supervisor: Supervisor | None = None,
    level: Level | None = None,
) -> CodeResult:
    """Run ``code`` as a program of its own.

    Without ``supervisor`` one is started for this call. ``level`` demands that level.

    Raises:
        SandboxError: no sandbox works here, or not at the demanded level.
    """
    own = supervisor is None
    supervisor = supervisor or Supervisor()
    try:
        with tempfile.TemporaryDirectory(prefix="agentcli-code-") as folder:
            sandbox = await prepare(supervisor, _policy(folder), level)
            try:
                return await _execute(supervisor, sandbox, code, timeout_s, memory_bytes)
            finally:
                sandbox.close()
    finally:
        if own:
            await supervisor.aclose()


def _policy(folder: str) -> Policy:
    built = policies.build(folder)
    env = {name: built.env[name] for name in ("PATH", "HOME", "LANG", "TMPDIR")}
    env.update(OMP_NUM_THREADS="1", PYTHONDONTWRITEBYTECODE="1")
    return replace(built, env=env)


async def _execute(
    supervisor: Supervisor, sandbox: Sandbox, code: str, timeout_s: float, memory_bytes: int
) -> CodeResult:
    limits = replace(IN_STREAM, time_s=timeout_s, memory_bytes=memory_bytes)
    interpreter = os.path.realpath(sys.executable)
    result = await supervisor.exec(
        sandbox.launch(
            (interpreter, "-I", "-S", "-c", _DRIVER),
            limits=limits,
            files={9: code.encode("utf-8", "surrogatepass")},
        )
    )
    memory_exceeded = result.memory_exceeded or result.exit_code == _OUT_OF_MEMORY
    error = result.error
    if result.exit_code == _OUT_OF_MEMORY:
        error = f"used more than {amount(memory_bytes)} of memory"
    elif error is None and not result.success:
        lines = result.stderr.strip().splitlines()
        error = lines[-1] if lines else f"exit code {result.exit_code}"
    return CodeResult(
        success=result.success,
        stdout=result.stdout,
        stderr=result.stderr,
        error=error,
        timeout=result.timed_out,
        memory_exceeded=memory_exceeded,
    )
