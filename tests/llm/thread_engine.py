"""The engine in a thread: the same host and socket, without the cost of a new process."""

from __future__ import annotations

import socket
import threading

from agentcli.inference.host import serve
from agentcli.inference.wire import Closed
from agentcli.llm.engine import EngineProcess


class ThreadEngine(EngineProcess):
    """An ``EngineProcess`` that runs in a thread."""

    async def _start(self) -> None:
        ours, theirs = socket.socketpair()

        def run() -> None:
            try:
                serve(theirs)
            except Closed:
                pass
            finally:
                theirs.close()

        threading.Thread(target=run, daemon=True).start()
        await self._connect(ours)
