"""The edits of a run, so that they can be undone if the tests still fail in the end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from agentcli.agent.edit_calls import EditCalls
from agentcli.agent.trying import read
from agentcli.diff import unified_diff
from agentcli.environments.base import Environment
from agentcli.errors import EnvironmentOpError
from agentcli.messages import ToolCall, ToolResult


@dataclass(frozen=True)
class _Edited:
    """A file before the run's first edit of it, None if absent, and as the last one made it."""

    before: bytes | None
    after: bytes | None


@dataclass
class RunEdits:
    """Keeps account of the edits that are made in ``environment`` in one run."""

    environment: Environment
    edits: EditCalls
    _files: dict[str, _Edited] = field(default_factory=dict, init=False)  # by path
    _found: set[str] = field(default_factory=set, init=False)  # arguments of the edits found
    _announced: dict[str, Mapping[str, bytes | None]] = field(default_factory=dict, init=False)
    """The files before edits that were made without a search, by the edits' arguments."""
    _noted: set[str] = field(default_factory=set, init=False)  # arguments of those made since

    def clear(self) -> None:
        """Forget them all."""
        self._files.clear()
        self._found.clear()
        self._announced.clear()
        self._noted.clear()

    @property
    def any_found(self) -> bool:
        """Whether a search has found one."""
        return bool(self._found)

    def is_found(self, call: ToolCall | None) -> bool:
        """Whether a search has found this edit."""
        return call is not None and call.arguments in self._found

    def is_known(self, call: ToolCall | None) -> bool:
        """Whether the edit will be undone with the others."""
        return call is not None and call.arguments in self._found | self._noted

    async def find(self, call: ToolCall, made: Mapping[str, bytes | None]) -> None:
        """Add an edit that a search has found, and the files as it will make them."""
        self._found.add(call.arguments)
        for path, after in made.items():
            data = await read(self.environment, path)
            if data is not None or await self.environment.stat(path) is None:
                self._merge(path, _Edited(data, after))

    async def announce(self, call: ToolCall) -> None:
        """Note how the files are before an edit that no search has found."""
        paths = self.edits.paths(call)
        files = {path: await read(self.environment, path) for path in paths}
        self._announced[call.arguments] = files

    async def note(self, results: Iterable[tuple[ToolCall | None, ToolResult]]) -> None:
        """Add those of the announced edits that were made, in the order in which they were.

        A file that is not exactly as the edit's diff says was changed by something else, too.
        """
        for call, result in results:
            made = "" if call is None else call.arguments
            for path, before in self._announced.pop(made, {}).items():
                after = await read(self.environment, path)
                if after is None or after == before:
                    continue
                if result.diff and _diff(before, after, path) in result.diff:
                    self._merge(path, _Edited(before, after))
                    self._noted.add(made)

    def _merge(self, path: str, edited: _Edited) -> None:
        known = self._files.get(path)
        if known is None:
            self._files[path] = edited
        elif known.after == edited.before:
            self._files[path] = _Edited(known.before, edited.after)

    async def undo(self) -> list[str]:
        """Undo them; return the files that are not as they left them, and stay so."""
        left = []
        for path, edited in self._files.items():
            if await read(self.environment, path) == edited.before:
                continue
            try:
                if edited.before is None:
                    await self.environment.remove(path, expect=edited.after)
                else:
                    await self.environment.write(path, edited.before, expect=edited.after)
            except EnvironmentOpError as error:
                if error.code != "CONFLICT":
                    raise
                left.append(path)
        self._files.clear()
        return left


def _diff(before: bytes | None, after: bytes, path: str) -> str:
    text = None if before is None else before.decode("utf-8", "replace")
    return unified_diff(text, after.decode("utf-8", "replace"), path)
