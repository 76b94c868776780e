"""One output stream of a command, in the supervisor.

Standard library only.
"""

from __future__ import annotations

import time

SAMPLE_EVERY_S = 0.1
SAMPLE_BYTES = 8192


class Stream:
    """One output stream: passes its start through and keeps its end."""

    def __init__(self, descriptor: int, kind: int, keep: int) -> None:
        self.descriptor = descriptor
        self.kind = kind
        self.head_left = keep - keep // 2
        self.tail_size = keep // 2
        self.tail = bytearray()
        self.dropped = 0
        self.sampled_at = 0.0

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """Split new bytes into those to pass through now and a sample of the rest for display."""
        head, rest = data[: self.head_left], data[self.head_left :]
        self.head_left -= len(head)
        if not rest:
            return head, b""
        self.tail += rest
        excess = len(self.tail) - self.tail_size
        if excess > self.tail_size:  # cut rarely: each cut moves the whole tail
            del self.tail[:excess]
            self.dropped += excess
        now = time.monotonic()
        if now - self.sampled_at < SAMPLE_EVERY_S:
            return head, b""
        self.sampled_at = now
        return head, rest[-SAMPLE_BYTES:]

    def end(self) -> bytes:
        """The end that was kept; ``dropped`` is final afterwards."""
        excess = len(self.tail) - self.tail_size
        if excess > 0:
            del self.tail[:excess]
            self.dropped += excess
        return bytes(self.tail)
