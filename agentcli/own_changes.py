"""Separates a session's own changes from the user's in files that both have changed.

A file may have uncommitted changes of the user's, made before or during the session. Each change of
the session is recorded with the content before and after it; applying these changes to the last
commit gives the file without the user's. Texts such as ``file 644 DIGEST`` describe an entry, see
``environments/entries.py``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agentcli.agent.events import WorkspaceChanged
from agentcli.changes import Changes
from agentcli.environments.blobs import Blobs
from agentcli.environments.entries import Entry, capture

Step = tuple[str, str]
Merge = Callable[[bytes, bytes, bytes], bytes | None]
"""What is there, what stood before a change and after it: to what is there with the change made;
None where both touch the same lines."""


@dataclass(frozen=True, slots=True)
class Own:
    """Files as a commit of the session's own changes holds them.

    ``whole`` are committed as they stand, ``parts`` with the content given here. In ``mixed``
    ones the session's changes and others cannot be told apart.
    """

    whole: list[str] = field(default_factory=list)
    parts: dict[str, bytes] = field(default_factory=dict)
    mixed: list[str] = field(default_factory=list)

    @property
    def paths(self) -> list[str]:
        """What can be committed."""
        return sorted([*self.whole, *self.parts])


def own_changes(
    root: Path,
    paths: Collection[str],
    events: Iterable[WorkspaceChanged],
    changes: Changes,
    blobs: Blobs,
) -> Own:
    """Sort ``paths``; ``events`` are all changes of the session so far.

    Raises:
        UsageError: git refuses.
        SnapshotError: a content was not kept, or cannot be.
    """
    steps: dict[str, list[Step]] = {path: [] for path in sorted(paths)}
    for event in events:
        for path in {*event.before, *event.after} & steps.keys():
            if not event.outside:
                steps[path].append((event.before.get(path, ""), event.after.get(path, "")))
    found, replay = Own(), _Replay(blobs, changes.merged)
    with tempfile.TemporaryDirectory(prefix="agentcli-committed-") as folder:
        committed = changes.written_to(Path(folder), paths)
        for path, own in steps.items():
            base, now = capture(str(committed), path, blobs), capture(str(root), path, blobs)
            made = replay.made(base, own)
            if made is None:
                found.mixed.append(path)
            elif _same(made, now):
                found.whole.append(path)
            elif not _same(made, base):
                found.parts[path] = blobs.get(Entry.parse(made).digest)
    return found


class _Replay:
    """Makes changes on what a commit holds; a change is what stood before it and after it."""

    def __init__(self, blobs: Blobs, merge: Merge) -> None:
        self._blobs = blobs
        self._merge = merge

    def made(self, base: str, steps: Sequence[Step]) -> str | None:
        """``base`` with the changes made that it has not yet; None where that cannot be."""
        held = [
            place
            for place, (before, _) in enumerate(steps)
            if _same(base, before) or (place and _same(base, steps[place - 1][1]))
        ]
        if (all_made := self._all(base, steps[held[-1] if held else 0 :])) is not None:
            return all_made
        # An earlier commit of a part holds what later changes build on, and nothing that the
        # session has ever seen: those are done whose lines have become something else since.
        alone = [self._one(base, step) for step in steps]
        for count in range(len(steps), 0, -1):
            missing = [one for one in alone[: count - 1] if one is not None and one != base]
            if alone[count - 1] == base and not missing:
                return self._all(base, steps[count:])
        return None

    def _all(self, base: str, steps: Sequence[Step]) -> str | None:
        made: str | None = base
        for step in steps:
            made = None if made is None else self._one(made, step)
        return made

    def _one(self, base: str, step: Step) -> str | None:
        """With one change made; ``base`` itself where it has it already."""
        before, after = step
        if _same(base, after):
            return base
        if _same(base, before):
            return after
        texts = [_text(entry, self._blobs) for entry in (base, before, after)]
        if None in texts or (merged := self._merge(*texts)) is None:  # type: ignore[arg-type]
            return None
        if merged == texts[0]:
            return base
        return str(Entry("file", 0o644, self._blobs.put(merged)))


def _same(one: str, other: str) -> bool:
    """Whether the same content stands there, whatever its permissions."""
    first, second = (Entry.parse(text) if text else None for text in (one, other))
    if first is None or second is None:
        return first is second
    return (first.kind, first.digest) == (second.kind, second.digest)


def _text(text: str, blobs: Blobs) -> bytes | None:
    """The content of a regular file."""
    if not text.startswith("file ") or not (entry := Entry.parse(text)).kept:
        return None
    return blobs.get(entry.digest)
