"""Skills (agentskills.io): folders of instructions that a model reads when it needs them.

A skill is ``skills/NAME/SKILL.md`` in the configuration folder or, if the project is trusted, in
one of its ``PROJECT_FOLDERS``. It has front matter with ``name`` and ``description``, followed by
instructions. The model reads further files of the folder when the instructions name them. A
project's skill overrides the user's skill of the same name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from agentcli.errors import ConfigError
from agentcli.text import one_line

FILE = "SKILL.md"
SKILLS = "skills"
"""The name of the folders with skills."""
PROJECT_FOLDERS = (".claude/skills", ".agents/skills", ".agentcli/skills")
"""Folders that other assistants use too; later ones take precedence."""
MAX_BYTES = 200_000
"""The limit for one file."""
_MOST_DESCRIPTION = 1024
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_FRONT = re.compile(r"---\r?\n(.*?)^---[ \t]*\r?\n?(.*)", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Skill:
    """A skill. ``description`` says what it is for and when to use it."""

    name: str
    description: str
    folder: Path

    def instructions(self) -> str:
        """The text below the front matter.

        Raises:
            ConfigError: the file can no longer be read.
        """
        return _parts(self.folder / FILE)[1]

    def text(self, root: Path | None = None) -> str:
        """The instructions, with a list of the skill's other files; ``root`` is the workspace.

        Raises:
            ConfigError: the file can no longer be read.
        """
        inside = root is not None and self.folder.is_relative_to(root)
        where = f" ({self.folder.relative_to(root)})" if root and inside else ""
        files = self.files()
        more = f"\n\n[further files of this skill{where}: {', '.join(files)}]" if files else ""
        return f"{self.instructions()}{more}"

    def files(self) -> list[str]:
        """The skill's other files, relative to its folder, sorted; links to outside are skipped."""
        root = self.folder.resolve()
        found = (path for path in self.folder.rglob("*") if path.is_file())
        inside = (path for path in found if path.resolve().is_relative_to(root))
        names = (path.relative_to(self.folder).as_posix() for path in inside)
        return sorted(name for name in names if name != FILE)

    def file(self, name: str) -> str:
        """The text of one of the skill's files.

        Raises:
            ConfigError: there is no such file in the folder, or it is not text.
        """
        if name not in self.files():
            there = ", ".join(self.files()) or "none"
            raise ConfigError(f"skill {self.name} has no file {name}; there are: {there}")
        return _read(self.folder / name)


def found_in(folders: Iterable[Path], notices: list[str]) -> list[Skill]:
    """The skills in these folders, sorted by name; invalid ones are reported in ``notices``."""
    found: dict[str, Skill] = {}
    for folder in folders:
        for file in sorted(folder.glob(f"*/{FILE}")):
            try:
                skill = _skill(file)
            except ConfigError as error:
                notices.append(f"a skill is left out: {error.message}")
            else:
                found[skill.name] = skill
    return sorted(found.values(), key=lambda skill: skill.name)


def _skill(file: Path) -> Skill:
    fields, body = _parts(file)
    name, description = fields.get("name"), fields.get("description")
    folder = file.parent
    if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > 64:
        raise ConfigError(f"{file}: name should be a word of a-z, 0-9 and -")
    if name != folder.name:
        raise ConfigError(f"{file}: name is {name}, and its folder is {folder.name}")
    if not isinstance(description, str) or not description.strip():
        raise ConfigError(f"{file}: description is missing")
    if not body:
        raise ConfigError(f"{file}: there are no instructions below the front matter")
    return Skill(name, one_line(description, _MOST_DESCRIPTION), folder)


def _parts(file: Path) -> tuple[dict[str, object], str]:
    import yaml  # takes 20 ms, which sessions without skills should not pay

    match = _FRONT.fullmatch(_read(file))
    if match is None:
        raise ConfigError(f"{file}: it does not begin with front matter between --- lines")
    try:
        fields = yaml.safe_load(match[1])
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"{file}: {one_line(str(error), 200)}") from error
    if not isinstance(fields, dict):
        raise ConfigError(f"{file}: the front matter is not a list of keys and values")
    return fields, match[2].strip()


def _read(file: Path) -> str:
    try:
        if not file.is_file():
            raise ConfigError(f"{file}: not a regular file")
        with file.open("rb") as opened:
            data = opened.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ConfigError(f"{file}: larger than {MAX_BYTES // 1000} kB")
        return data.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8") from error
