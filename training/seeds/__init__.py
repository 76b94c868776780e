"""Hand-written seed projects: small Python repositories whose tests pass.

Each `*.txt` next to this file is a container of several projects. Two kinds of marker lines divide
it: `##### project: NAME` starts a project, `##### file: PATH` starts one of its files. Everything
else is the text of the current file; blank lines before a marker do not count.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

PROJECT_MARK = "##### project: "
FILE_MARK = "##### file: "
HELD_OUT_PERCENT = 12

Split = Literal["train", "held_out"]


@dataclass(frozen=True)
class Seed:
    """One project: a unique name and the text of each file, by its path with `/`."""

    name: str
    files: dict[str, str] = field(default_factory=dict)

    @property
    def split(self) -> Split:
        """The project's split, fixed by its name, so that it stays when others are added."""
        digest = hashlib.sha256(self.name.encode()).digest()
        return "held_out" if int.from_bytes(digest[:4], "big") % 100 < HELD_OUT_PERCENT else "train"


def parse_container(text: str) -> list[Seed]:
    """Split the text of a container into its projects.

    Raises ValueError if there is text outside a file, or a name or path is used twice.
    """
    seeds: dict[str, Seed] = {}
    current: Seed | None = None
    path: str | None = None
    lines: list[str] = []

    def close() -> None:
        if current is not None and path is not None:
            body = "\n".join(lines).strip("\n")
            current.files[path] = body + "\n" if body else ""
        lines.clear()

    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith(PROJECT_MARK):
            close()
            name, path = line.removeprefix(PROJECT_MARK).strip(), None
            if name in seeds:
                raise ValueError(f"line {number}: project {name} stands here twice")
            current = seeds[name] = Seed(name)
        elif line.startswith(FILE_MARK):
            close()
            path = line.removeprefix(FILE_MARK).strip()
            if current is None or path in current.files:
                raise ValueError(f"line {number}: file {path} has no project or stands twice")
        elif path is not None:
            lines.append(line)
        elif line.strip():
            raise ValueError(f"line {number}: text outside a file")
    close()
    return list(seeds.values())


def load_seeds(split: Split | None = None) -> list[Seed]:
    """All seed projects, or those of one split, sorted by name.

    Raises ValueError if a container is malformed or two of them share a project's name.
    """
    seeds: dict[str, Seed] = {}
    for container in sorted(Path(__file__).parent.glob("*.txt")):
        for seed in parse_container(container.read_text(encoding="utf-8")):
            if seed.name in seeds:
                raise ValueError(f"{container.name}: project {seed.name} stands in two containers")
            seeds[seed.name] = seed
    return [seeds[name] for name in sorted(seeds) if split in (None, seeds[name].split)]
