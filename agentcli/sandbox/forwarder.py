"""Runs inside the sandbox: passes connections to a loopback port out to agentcli's proxy.

Run as ``python -I -S -c CODE FD PORT COMMAND...``. It listens on the port, leaves a process behind
that accepts connections, and becomes the command. That process sends each accepted connection
through the socket FD and closes its own copy. It ends with the sandbox, or when the far end closes.

Standard library only, since inside there is nothing but the text of this file.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys


def forward(link: socket.socket, listener: socket.socket) -> None:
    """Serve until the far end of ``link`` is closed."""
    while True:
        connection, _ = listener.accept()
        with connection:
            socket.send_fds(link, [b"."], [connection.fileno()])


def main(descriptor: int, port: int, command: list[str]) -> None:
    """Start the forwarder in the background and become the command."""
    link = socket.socket(fileno=descriptor)
    listener = socket.create_server(("127.0.0.1", port), backlog=128)
    child = os.fork()
    if child == 0:
        # Fork twice, so that the command has no child that it did not start.
        if os.fork() == 0:
            null = os.open(os.devnull, os.O_RDWR)
            for number in range(3):
                os.dup2(null, number)
            with contextlib.suppress(OSError):
                forward(link, listener)
        os._exit(0)
    os.waitpid(child, 0)
    link.close()
    listener.close()
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
