"""Hand-written mistakes in the seed projects, as people make them.

Each `*.txt` next to this file holds mistakes by project and file, under the marker lines of the
seeds. A mistake is a group of lines up to a blank one: the right lines, each after `-`, then the
wrong ones, each after `+`. The right lines occur exactly once in the file. Those in held-out
projects are for the evaluation.

    python -m training.mistakes FILE...     # says which mistakes cannot be used, and why
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from training.quick_session import Unsupported, is_test_file
from training.quick_tests import QuickTests
from training.seeds import FILE_MARK, PROJECT_MARK, Seed


@dataclass(frozen=True)
class Mistake:
    """The lines ``right`` of a file became ``wrong``; both without a final line break."""

    project: str
    path: str
    right: str
    wrong: str

    def made(self, files: Mapping[str, str]) -> dict[str, str]:
        """The project's files with the mistake.

        Raises ValueError if the file is missing, or the right lines do not occur exactly once.
        """
        if self.path not in files:
            raise ValueError(f"there is no file {self.path}")
        lines, right = files[self.path].split("\n"), self.right.split("\n")
        places = [i for i in range(len(lines)) if lines[i : i + len(right)] == right]
        if len(places) != 1:
            raise ValueError(f"the right lines occur {len(places)} times")
        wrong = self.wrong.split("\n") if self.wrong else []
        lines[places[0] : places[0] + len(right)] = wrong
        return {**files, self.path: "\n".join(lines)}


def parse(text: str) -> Iterator[tuple[int, Mistake]]:
    """Yield the mistakes of a container, each with the number of its first line.

    Raises ValueError if a line is neither a marker nor part of a mistake.
    """
    project = path = ""
    begun = 0
    right: list[str] = []
    wrong: list[str] = []
    for number, line in enumerate([*text.splitlines(), ""], start=1):
        if right and not line.startswith(("-", "+")):
            yield begun, Mistake(project, path, "\n".join(right), "\n".join(wrong))
            right, wrong = [], []
        if line.startswith(PROJECT_MARK):
            project, path = line.removeprefix(PROJECT_MARK).strip(), ""
        elif line.startswith(FILE_MARK):
            path = line.removeprefix(FILE_MARK).strip()
        elif line.startswith("-") and path and not wrong:
            begun = begun if right else number
            right.append(line[1:])
        elif line.startswith("+") and right:
            wrong.append(line[1:])
        elif line.strip():
            raise ValueError(f"line {number}: neither a marker nor part of a mistake: {line}")


def load_mistakes() -> dict[str, list[Mistake]]:
    """All mistakes by the name of their project."""
    found: dict[str, list[Mistake]] = {}
    for container in sorted(Path(__file__).parent.glob("*.txt")):
        for _, mistake in parse(container.read_text(encoding="utf-8")):
            found.setdefault(mistake.project, []).append(mistake)
    return found


def problem(mistake: Mistake, seeds: Mapping[str, Seed], runner: QuickTests) -> str | None:
    """Why a mistake cannot be used; None if it can."""
    seed = seeds.get(mistake.project)
    if seed is None:
        return f"there is no project {mistake.project}"
    if is_test_file(mistake.path):
        return "it is in a test"
    try:
        files = mistake.made(seed.files)
        run = runner.run(files)
    except (ValueError, SyntaxError, Unsupported) as error:
        return str(error)
    return "the tests still pass" if run.ok else None
