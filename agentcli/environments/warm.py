"""A copy of a workspace in which ``python -m pytest`` and the like start from a warm interpreter.

Trying many edits means running the same tests many times, and a small run mostly consists of
starting the interpreter and the test framework. Here the first run of a module starts
``forking.py`` with that command's interpreter and variables, in a sandbox, and every run is a fork
of it. If that does not work, or the process has died, commands run as usual.

A run could forge the answer of the process it was forked from, just as tests can print anything:
an edit that is kept is checked once more by an ordinary command.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agentcli.environments import forking
from agentcli.environments.base import ExecResult, LinesRun, Output
from agentcli.environments.host import HostEnvironment
from agentcli.sandbox.limits import COMMAND, Limits
from agentcli.sandbox.process import SandboxProcess

MODULES = ("pytest", "unittest")
_CODE_FD, _CONTROL_FD = 9, 8
_BOOT = f"exec(compile(open({_CODE_FD}, 'rb').read(), 'forking.py', 'exec'))"
_START_S = 20.0
_GRACE_S = 5.0

Key = tuple[str, str, str, tuple[tuple[str, str], ...]]


@dataclass
class _Warm:
    """A warm interpreter, which serves one run after the other."""

    process: SandboxProcess
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, request: Mapping[str, Any], patience_s: float) -> dict[str, Any] | None:
        """The answer; None if the interpreter has died or does not answer in time."""
        try:
            data = json.dumps(request).encode()
            self.writer.write(forking.HEAD.pack(len(data)) + data)
            return await asyncio.wait_for(self.answer(), patience_s)
        except (OSError, EOFError, ValueError, TimeoutError):
            return None

    async def answer(self) -> dict[str, Any]:
        (size,) = forking.HEAD.unpack(await self.reader.readexactly(forking.HEAD.size))
        value: dict[str, Any] = json.loads(await self.reader.readexactly(size))
        return value

    async def aclose(self) -> None:
        self.writer.close()
        await self.process.kill()


class WarmEnvironment(HostEnvironment):
    """An environment that runs tests in a warm interpreter; see the module."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._warm: dict[Key, _Warm | None] = {}
        self._lines: LinesRun | None = None

    @contextmanager
    def tracing(self) -> Iterator[LinesRun]:
        """See ``TracesLines``."""
        self._lines = LinesRun()
        try:
            yield self._lines
        finally:
            self._lines = None

    async def aclose(self) -> None:
        """End the warm interpreters, then everything else."""
        warm, self._warm = self._warm, {}
        for one in warm.values():
            if one is not None:
                await one.aclose()
        await super().aclose()

    async def exec(
        self,
        argv: Sequence[str],
        *,
        limits: Limits = COMMAND,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bytes | None = None,
        on_output: Output | None = None,
        exact: bool = False,
    ) -> ExecResult:
        """Run a command, in a fork if it is one of ``MODULES``; see ``HostEnvironment.exec``."""
        if len(argv) > 2 and argv[1] == "-m" and argv[2] in MODULES and stdin is None and not exact:
            key = (argv[0], argv[2], cwd or ".", tuple(sorted((env or {}).items())))
            result = await self._forked(key, argv[3:], limits)
            if result is not None:
                for name, text in (("stdout", result.stdout), ("stderr", result.stderr)):
                    if on_output is not None and text:
                        on_output(name, text.encode())
                return result
        return await super().exec(
            argv,
            limits=limits,
            cwd=cwd,
            env=env,
            stdin=stdin,
            on_output=on_output,
            exact=exact,
        )

    async def _forked(
        self, key: Key, arguments: Sequence[str], limits: Limits
    ) -> ExecResult | None:
        """The result of a fork; None if there is no warm interpreter to fork."""
        if key not in self._warm:
            self._warm[key] = await self._interpreter(key, limits)
        warm = self._warm[key]
        if warm is None:
            return None
        request = {
            "argv": list(arguments),
            "time_s": limits.time_s,
            "output_bytes": limits.output_bytes,
            "lines": self._lines is not None,
        }
        answer: dict[str, Any] | None = None
        try:
            answer = await warm.ask(request, forking.SLACK * limits.time_s + _GRACE_S)
        finally:
            if answer is None:  # it has died, or this call was cancelled
                self._warm[key] = None
                await warm.aclose()
        if answer is None:
            return None
        if self._lines is not None and "lines" in answer:
            _note(answer["lines"], self._lines)
        return _result(answer, limits)

    async def _interpreter(self, key: Key, limits: Limits) -> _Warm | None:
        program, module, cwd, env = key
        ours, theirs = socket.socketpair()
        with theirs:
            launch = self._ready().launch(
                (program, "-c", _BOOT, str(_CONTROL_FD), module),
                cwd=cwd,
                env=dict(env),
                limits=replace(limits, time_s=0),
                fds={_CONTROL_FD: theirs.fileno()},
                files={_CODE_FD: Path(forking.__file__).read_bytes()},
            )
            process = self._supervisor.spawn(launch)
        reader, writer = await asyncio.open_connection(sock=ours, limit=1 << 26)
        warm = _Warm(process, reader, writer)
        try:
            await asyncio.wait_for(warm.answer(), _START_S)
        except (OSError, EOFError, ValueError, TimeoutError):
            await warm.aclose()
            return None
        return warm


def _note(found: Mapping[str, Any], lines: LinesRun) -> None:
    lines.failed, lines.passed = found["tests"]
    for path, ran in found["ran"].items():
        lines.ran[path] = {int(line): (failed, passed) for line, (failed, passed) in ran.items()}


def _result(answer: Mapping[str, Any], limits: Limits) -> ExecResult:
    code: int | None = answer["code"]
    return ExecResult(
        success=code == 0,
        exit_code=128 - code if code is not None and code < 0 else code,
        stdout=str(answer["stdout"]),
        stderr=str(answer["stderr"]),
        error=f"timed out after {limits.time_s:g} s" if code is None else None,
        timed_out=code is None,
        truncated=bool(answer["cut"]),
        duration_s=float(answer["duration_s"]),
    )
