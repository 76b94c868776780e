"""The client side of the engine process, which starts when needed and restarts after a crash."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from agentcli.errors import (
    ContextWindowError,
    EnvironmentOpError,
    ModelError,
    SandboxError,
    ServerError,
)
from agentcli.llm.kernels import built_kernels
from agentcli.sandbox.limits import Limits
from agentcli.sandbox.process import Launch, SandboxProcess, Supervisor
from agentcli.settings import LocalSettings

# Takes a tool and its arguments so far; returns the text that the next one must be copied from.
TextOf = Callable[[str, Mapping[str, Any]], Awaitable[str | None]]
# Takes the source of an in-stream block; returns its result, or None for no result.
Run = Callable[[str], Awaitable[str | None]]
_Answer = Callable[[Mapping[str, Any]], Awaitable[str | None]]

_ROOT = str(Path(__file__).resolve().parents[2])
_BOOT = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from agentcli.inference.host import main; main(int(sys.argv[2]))"
)
_DESCRIPTOR = 3
_LINE_BYTES = 1 << 20
# A model may use all memory and run for ever; it writes nothing.
_LIMITS = Limits(time_s=0, memory_bytes=1 << 50, file_bytes=1 << 20, disk_bytes=1 << 30)
TUNING = {
    # OpenMP threads spin for about 0.1 ms, long enough from one matrix product to the next; then
    # they yield the CPU to the commands that run beside the model. Waking them for every product
    # would add half the time of the products themselves.
    "GOMP_SPINCOUNT": "10000",
    # Reading weights from huge pages is a sixth faster.
    "THP_MEM_ALLOC_ENABLE": "1",
}
"""Environment variables that the engine's libraries read when they are loaded."""
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C.UTF-8", **TUNING}
_CRASHED = "the process of the local model ended unexpectedly"


class EngineProcess:
    """One model in a process of its own, which serves one request at a time.

    ``ready`` is the process's description of the model, see ``agentcli.inference.host``.
    """

    def __init__(self, path: Path, settings: LocalSettings | None = None) -> None:
        options = settings or LocalSettings()
        self._settings = {"path": str(path.absolute()), **options.model_dump()}
        self._supervisor = Supervisor()
        self._process: SandboxProcess | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._listener: asyncio.Task[None] | None = None
        self._answers: dict[int, asyncio.Queue[dict[str, Any]]] = {}
        self._starting = asyncio.Lock()
        self._next = 1
        self.ready: dict[str, Any] = {}

    async def start(self) -> None:
        """Start the process and load the model, unless it is running.

        Raises:
            ModelError: the model cannot be loaded.
            ServerError: the process could not be started, or died.
        """
        async with self._starting:
            if self._writer is not None:
                return
            await self._start()

    def generate(
        self, request: Mapping[str, Any], text_of: TextOf | None = None
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Yield ``token`` or ``proposal`` events, then ``end``; closing the iterator cancels it.

        Raises:
            ContextWindowError: the prompt does not fit the context.
            ModelError: the model cannot serve the request.
            ServerError: the process died.
        """

        async def answer(event: Mapping[str, Any]) -> str | None:
            return await text_of(event["tool"], event["arguments"]) if text_of else None

        return self._events("generate", request, answer)

    def complete(
        self, request: Mapping[str, Any], run: Run | None = None
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Yield ``column`` events, then ``end``; ``run`` returns the result of an in-stream block.

        Raises:
            ContextWindowError, ModelError, ServerError: as for ``generate``.
        """

        async def answer(event: Mapping[str, Any]) -> str | None:
            return await run(event["source"]) if run else None

        return self._events("complete", request, answer)

    async def check(self) -> list[dict[str, Any]]:
        """Run the model's self-test and return its findings (see ``agentcli.inference.selftest``).

        Raises:
            ContextWindowError, ModelError, ServerError: as for ``generate``.
        """

        async def answer(event: Mapping[str, Any]) -> str | None:
            return None

        findings: list[dict[str, Any]] = []
        async with contextlib.aclosing(self._events("check", {}, answer)) as events:
            async for event in events:
                findings = event["findings"]
        return findings

    async def _events(
        self, op: str, request: Mapping[str, Any], answer: _Answer
    ) -> AsyncGenerator[dict[str, Any], None]:
        await self.start()
        number = self._next
        self._next += 1
        answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._answers[number] = answers
        ended = False
        try:
            self._send({"op": op, "id": number, **request})
            while not ended:
                event = await answers.get()
                match event["event"]:
                    case "token" | "column":
                        yield event
                    case "proposal":
                        yield event
                        self._send({"op": "more", "id": number})
                    case "ask" | "run":
                        text = await answer(event)
                        self._send({"op": "text", "id": number, "text": text})
                    case "end":
                        ended = True
                        yield event
                    case _:
                        ended = True
                        raise _error(event)
        finally:
            if not ended:
                self._send({"op": "cancel", "id": number})
                # The engine may be waiting for one of these.
                self._send({"op": "text", "id": number, "text": None})
                self._send({"op": "more", "id": number})
            del self._answers[number]

    async def aclose(self) -> None:
        """End the process, and with an error all requests that still wait for it."""
        await self._stop()
        self._fail({"event": "error", "error": "ModelError", "message": "the model was closed"})
        await self._supervisor.aclose()

    async def _start(self) -> None:
        ours, theirs = socket.socketpair()
        try:
            launch = Launch(
                (sys.executable, "-I", "-c", _BOOT, _ROOT, str(_DESCRIPTOR)),
                env=_ENVIRONMENT,
                cwd="/",
                limits=_LIMITS,
                fds={_DESCRIPTOR: theirs.fileno()},
                confine=True,
            )
            self._process = self._supervisor.spawn(launch)
        except SandboxError as error:
            ours.close()
            raise ServerError(f"the local model cannot be started: {error.message}") from error
        finally:
            theirs.close()
        await self._connect(ours)

    async def _connect(self, link: socket.socket) -> None:
        """Have the process at the other end of ``link`` load the model."""
        try:
            reader, self._writer = await asyncio.open_connection(sock=link, limit=_LINE_BYTES)
            kernels = await built_kernels(self._supervisor)  # while the host imports torch
            self._send({"op": "load", "kernels": kernels and str(kernels), **self._settings})
            line = b""
            with contextlib.suppress(OSError):  # reset, if it died before it read the request
                line = await reader.readline()
            if not line:
                raise await self._crash()
            first = json.loads(line)
            if first["event"] != "ready":
                raise _error(first)
        except BaseException:
            await self._stop()
            raise
        self.ready = first
        self._listener = asyncio.create_task(self._listen(reader))

    async def _stop(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)
        process, self._process = self._process, None
        if process is not None:
            await process.kill()

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError, ValueError):
            while line := await reader.readline():
                event = json.loads(line)
                if (answers := self._answers.get(event["id"])) is not None:
                    answers.put_nowait(event)
        error = await self._crash()
        self._listener = None
        await self._stop()
        self._fail({"event": "crash", "message": error.message, "hint": error.hint})

    def _fail(self, event: dict[str, Any]) -> None:
        """Send all requests an event that ends them."""
        for answers in self._answers.values():
            answers.put_nowait(event)

    async def _crash(self) -> ServerError:
        """Return the error for a process that has ended, with its last line of output."""
        last = ""
        if self._process is not None:
            with contextlib.suppress(EnvironmentOpError):
                result = await self._process.wait()
                lines = result.stderr.strip().splitlines()
                last = lines[-1] if lines else result.error or f"exit status {result.exit_code}"
        return ServerError(f"{_CRASHED}: {last}" if last else _CRASHED, provider="local")

    def _send(self, message: Mapping[str, Any]) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode() + b"\n")


def _error(event: Mapping[str, Any]) -> Exception:
    message, hint = event["message"], event.get("hint") or None
    if event["event"] == "crash":
        return ServerError(message, hint=hint, provider="local")
    if event["error"] == "ContextLengthError":
        return ContextWindowError(message, hint=hint, provider="local")
    if event["error"] in ("ModelError", "CheckpointError"):
        return ModelError(message, hint=hint)
    return ServerError(f"the local model failed: {message}", provider="local")
