"""``agentcli sandbox exec``: runs one command, confined like the commands of tools.

Exit codes: the command's own, 128 + n if signal n killed it; 124 it timed out, 126 it cannot be
run, 127 it was not found, 137 a limit ended it; 2 wrong usage, 4 the level is not available; 130
or 143 if agentcli itself was interrupted or terminated.
"""

from __future__ import annotations

import asyncio
import codecs
import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from errno import ENOENT
from pathlib import Path
from typing import Annotated

import typer

from agentcli import config
from agentcli.cli.agent_options import DomainOption, NetworkOption, network_flags, positive
from agentcli.cli.errors import show_error, show_note
from agentcli.cli.help import App
from agentcli.cli.signals import interruptible
from agentcli.cli.workspace import workspace_folder
from agentcli.environments.base import ExecResult
from agentcli.environments.host import HostEnvironment
from agentcli.sandbox.confine import Level
from agentcli.sandbox.limits import of_settings
from agentcli.settings import Settings
from agentcli.text import escape

app = App("Run a command in the sandbox that the model's commands get.")

TIMED_OUT, CANNOT_RUN, NOT_FOUND, OVER_LIMIT = 124, 126, 127, 137


class SandboxLevel(StrEnum):
    """Values of ``--level``."""

    FULL = "full"
    REDUCED = "reduced"


@app.callback()
def _sandbox() -> None:
    pass


@app.command("exec", context_settings={"allow_interspersed_args": False})
def execute(
    command: Annotated[list[str], typer.Argument(metavar="CMD", show_default=False)],
    workspace: Annotated[
        Path,
        typer.Option(
            help="The folder where it starts, and the only one it can write to.", metavar="DIR"
        ),
    ] = Path(),
    timeout: Annotated[
        float | None,
        typer.Option(
            help="Stop it after this many seconds; default: 120.", metavar="S", callback=positive
        ),
    ] = None,
    level: Annotated[
        SandboxLevel | None, typer.Option(help="The required level; default: the best available.")
    ] = None,
    network: NetworkOption = None,
    domain: DomainOption = None,
) -> int:
    """Run one command in the sandbox.

    Its output and exit status are passed on; its stdin is empty. Other exit codes: 124 timed out,
    126 cannot be run, 127 not found, 137 ended by a limit; 2 wrong usage, 4 no sandbox, 130
    interrupted.
    """
    workspace = workspace_folder(workspace)
    flags = {
        "sandbox": level.value if level else None,
        "limits.command_time_s": timeout,
        **network_flags(network, domain),
    }
    settings = config.load(workspace, flags=flags)
    return asyncio.run(_run(command, workspace, settings))


async def _run(command: Sequence[str], workspace: Path, settings: Settings) -> int:
    limits = of_settings(settings.limits)
    wanted: Level | None = None if settings.sandbox == "auto" else settings.sandbox
    environment = HostEnvironment(
        workspace, wanted=wanted, network=settings.commands_network, domains=settings.domains
    )
    passing = _Passing()
    task = asyncio.current_task()
    assert task is not None
    with interruptible(task.cancel) as interruption:
        try:
            await environment.start(worker=False)
            if environment.reason and wanted is None:
                show_note(f"sandbox level {environment.level}: {environment.reason}")
            passing.failed = task.cancel
            result = await environment.exec(command, limits=limits, on_output=passing, exact=True)
        except asyncio.CancelledError:
            if passing.error is not None:
                return _unwritten(passing.error)
            if interruption.exit_code is None:
                raise
            return interruption.exit_code
        finally:
            await environment.aclose()
    passing.flush()
    if passing.error is not None:
        return _unwritten(passing.error)
    if result.truncated:
        show_note("part of the output was left out; limits.output_mib sets how much is kept")
    for line in result.restored:
        show_note(line)
    return _exit_code(result)


def _exit_code(result: ExecResult) -> int:
    if result.exit_code is not None:
        if result.memory_exceeded:  # the exit status does not show what killed it
            show_error(result.error or "used too much memory")
        return result.exit_code
    show_error(result.error or "the command was killed")
    if result.errno:
        return NOT_FOUND if result.errno == ENOENT else CANNOT_RUN
    return TIMED_OUT if result.timed_out else OVER_LIMIT


def _unwritten(error: OSError) -> int:
    """The exit code if agentcli's own output cannot be written; a reader that left is no error."""
    if isinstance(error, BrokenPipeError):
        raise error
    show_error(f"cannot write the output: {error.strerror}")
    return 5


class _Passing:
    """Passes output on as it arrives; on a terminal it is escaped, elsewhere unchanged."""

    def __init__(self) -> None:
        self.error: OSError | None = None
        self.failed: Callable[[], object] = lambda: None
        """Called once when the output can no longer be written."""
        self._decoders = {
            name: codecs.getincrementaldecoder("utf-8")("backslashreplace")
            for name, stream in (("stdout", sys.stdout), ("stderr", sys.stderr))
            if stream.isatty()
        }

    def __call__(self, name: str, data: bytes, *, final: bool = False) -> None:
        if self.error is not None:
            return
        try:
            self._write(name, data, final)
        except OSError as error:
            self.error = error
            self.failed()

    def flush(self) -> None:
        """Write the bytes of an incomplete character."""
        for name in self._decoders:
            self(name, b"", final=True)

    def _write(self, name: str, data: bytes, final: bool) -> None:
        stream = sys.stdout if name == "stdout" else sys.stderr
        decoder = self._decoders.get(name)
        if decoder is not None:
            stream.write(escape(decoder.decode(data, final)))
        else:
            stream.buffer.write(data)
        stream.flush()
