"""What the model knows of the files, so that it replaces none with changes it has not seen."""

from __future__ import annotations

import hashlib

from agentcli.errors import ToolError


class Seen:
    """The digest of each file as the model last read or wrote it, by ``ToolContext.place``.

    One agent has one for all its calls. It is not kept with the session: when that is resumed, the
    model reads a file again before it replaces it.
    """

    def __init__(self, digests: dict[str, bytes] | None = None) -> None:
        self._digests = dict(digests or {})

    def copy(self) -> Seen:
        """One of its own for a call that may not count."""
        return Seen(self._digests)

    def take(self, other: Seen) -> None:
        """Take over what a copy has learnt."""
        self._digests.update(other._digests)

    def note(self, path: str, data: bytes) -> None:
        """The model has read or written this as the file's content, at least in part."""
        self._digests[path] = _digest(data)

    def edited(self, path: str, before: bytes, after: bytes) -> None:
        """An edit by the model; it teaches nothing about a file that it did not know before."""
        if self._digests.get(path) == _digest(before):
            self.note(path, after)

    def check(self, path: str, data: bytes) -> None:
        """Raise ``ToolError`` if the model does not know that the file holds ``data``."""
        known = self._digests.get(path)
        if known is None and data:
            raise ToolError(f"{path} exists, and you have not read it yet: read it first")
        if known is not None and known != _digest(data):
            raise ToolError(f"{path} has changed since you read it: read it again")


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
