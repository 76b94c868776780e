"""The client of a supervisor whose commands see an overlay of a folder; see ``overlay.py``."""

from __future__ import annotations

import os
import socket

from agentcli.errors import SandboxError
from agentcli.sandbox import protocol
from agentcli.sandbox.process import Supervisor

_PATIENCE_S = 30.0


class LayerSupervisor(Supervisor):
    """A supervisor whose commands see an overlay of ``root`` at ``place``.

    ``base`` is an empty folder outside the workspace. Unlike other supervisors, this one cannot be
    restarted.
    """

    module = "overlay"

    def __init__(self, root: str, base: str) -> None:
        self.upper = os.path.join(base, "upper")
        """The folder with everything that was written."""
        self.place = os.path.join(base, "workspace")
        super().__init__(root, self.upper, os.path.join(base, "work"), self.place)
        for folder in self._arguments[1:]:
            os.mkdir(folder)
        self._mount = -1

    @property
    def seen(self) -> str:
        """Where this process finds the mount, once it exists."""
        return f"/proc/self/fd/{self._mount}"

    def start(self) -> None:
        """Start the supervisor and wait for the mount; blocks.

        Raises:
            SandboxError: the kernel refuses the mount, or the process has ended.
        """
        if self._mount >= 0:
            if self._link is None:
                raise SandboxError("the copy has gone with its supervisor")
            return
        super().start()
        assert self._link is not None
        self._link.settimeout(_PATIENCE_S)
        try:
            self._mount = _receive_mount(self._link)
        except (OSError, SandboxError) as error:
            self.close()
            said = error.message if isinstance(error, SandboxError) else error
            raise SandboxError(f"an overlay cannot be mounted: {said}") from error
        self._link.setblocking(False)

    def close(self) -> None:
        """See ``Supervisor.close``."""
        self._let_go()
        super().close()

    async def aclose(self) -> None:
        """See ``Supervisor.aclose``."""
        self._let_go()
        await super().aclose()

    def _let_go(self) -> None:
        mount, self._mount = self._mount, -1
        if mount >= 0:
            os.close(mount)


def _receive_mount(link: socket.socket) -> int:
    """The descriptor sent with the first frame; leaves what follows unread."""
    head, fds, _, _ = socket.recv_fds(link, protocol.HEAD_BYTES, 1)
    size, kind, _ = protocol.head(head) if head else (0, 0, 0)
    if kind == protocol.MOUNTED and fds:
        return fds[0]
    reason = link.recv(size).decode("utf-8", "replace") if size else "the process ended"
    raise SandboxError(reason)
