"""Separates a session's changes from the user's in files that both have changed.

A file may have uncommitted changes by the user, made before or during the session. Each change by
the session is recorded with the content before and after it; applying only these changes to the
last commit gives the file without the user's. Strings such as ``file 644 DIGEST`` describe entries;
see ``environments/entries.py``.
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
"""(current, before, after) → the current content with the change applied; None on a conflict."""


@dataclass(frozen=True, slots=True)
class Own:
    """The files for a commit of the session's own changes.

    ``whole`` files are committed as they are, ``parts`` with the given content. In ``mixed`` files
    the session's changes cannot be separated from others.
    """

    whole: list[str] = field(default_factory=list)
    parts: dict[str, bytes] = field(default_factory=dict)
    mixed: list[str] = field(default_factory=list)

    @property
    def paths(self) -> list[str]:
        """The files that can be committed."""
        return sorted([*self.whole, *self.parts])


def own_changes(
    root: Path,
    paths: Collection[str],
    events: Iterable[WorkspaceChanged],
    changes: Changes,
    blobs: Blobs,
) -> Own:
    """Classify ``paths``; ``events`` are all changes of the session so far.

    Raises:
        UsageError: git failed.
        SnapshotError: a content was not kept or cannot be stored.
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
    """Applies changes to a commit's content. A change is a pair of entries, before and after."""

    def __init__(self, blobs: Blobs, merge: Merge) -> None:
        self._blobs = blobs
        self._merge = merge

    def made(self, base: str, steps: Sequence[Step]) -> str | None:
        """Apply the changes that ``base`` does not have yet; None if that is not possible."""
        held = [
            place
            for place, (before, _) in enumerate(steps)
            if _same(base, before) or (place and _same(base, steps[place - 1][1]))
        ]
        if (all_made := self._all(base, steps[held[-1] if held else 0 :])) is not None:
            return all_made
        # An earlier partial commit has a content that the session never saw. Count those changes
        # as done that leave ``base`` unchanged when applied.
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
        """Apply one change; return ``base`` itself if it already contains it."""
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
    """Whether two entries have the same content, whatever their permissions."""
    first, second = (Entry.parse(text) if text else None for text in (one, other))
    if first is None or second is None:
        return first is second
    return (first.kind, first.digest) == (second.kind, second.digest)


def _text(text: str, blobs: Blobs) -> bytes | None:
    """The content of a regular file; None for anything else."""
    if not text.startswith("file ") or not (entry := Entry.parse(text)).kept:
        return None
    return blobs.get(entry.digest)
