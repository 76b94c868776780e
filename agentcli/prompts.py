"""Prompts: Markdown files that users can replace.

A prompt's name is its path without the suffix, such as ``system`` or ``tools/grep``. It is looked
up in the project's folder, then in the user's, then in the package; the first file found is used
whole. ``{{name}}`` in a prompt is a placeholder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from agentcli.errors import ConfigError

_PLACE = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_NAME = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*")


def packaged_folder() -> Path:
    """The folder of the prompts shipped with agentcli.

    A wheel has them next to this file in ``_prompts``. An editable install does not include
    force-included files, so there they are in the repository's ``prompts``.

    Raises:
        ConfigError: neither exists; the installation is damaged.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "_prompts", package.parent / "prompts"):
        if (folder / "system.md").is_file():
            return folder
    raise ConfigError(
        f"the prompts that belong to agentcli are missing from {package}",
        hint="Install agentcli again",
    )


class Prompts:
    """Prompts from several folders; later folders take precedence."""

    def __init__(self, *folders: Path) -> None:
        """``folders`` are in ascending precedence; missing folders count as empty."""
        self.folders = folders

    @classmethod
    def standard(cls, *, user: Path | None = None, project: Path | None = None) -> Prompts:
        """The packaged prompts, overridden by the user's folder, then by the project's."""
        return cls(*(folder for folder in (packaged_folder(), user, project) if folder))

    def find(self, name: str) -> Path | None:
        """The file of a prompt, or None.

        Raises:
            ConfigError: the name is invalid, as it could lead out of the folders.
        """
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{name!r} cannot be the name of a prompt")
        for folder in reversed(self.folders):
            path = folder / f"{name}.md"
            if path.is_file():
                return path
        return None

    def get(self, name: str) -> str:
        """A prompt's text, stripped of surrounding white space.

        Raises:
            ConfigError: there is no such prompt, or its file is empty or cannot be read.
        """
        path = self.find(name)
        if path is None:
            places = ", ".join(str(folder) for folder in reversed(self.folders))
            raise ConfigError(f"there is no prompt {name!r} in {places}")
        try:
            text = path.read_text(encoding="utf-8-sig").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"the prompt {path} cannot be read: {error}") from error
        if not text:
            raise ConfigError(f"the prompt {path} is empty", hint="Delete it to use the default")
        return text

    def render(self, name: str, values: Mapping[str, str]) -> str:
        """Fill a prompt's placeholders; inserted values are not searched for placeholders.

        Raises:
            ConfigError: as ``get``, or ``values`` lacks one of the placeholders.
        """
        text = self.get(name)
        unknown = sorted({place for place in _PLACE.findall(text) if place not in values})
        if unknown:
            raise ConfigError(
                f"the prompt {self.find(name)} has unknown placeholders: {', '.join(unknown)}",
                hint=f"Known placeholders are {', '.join(sorted(values)) or 'none'}",
            )
        return _PLACE.sub(lambda match: values[match[1]], text)

    def names(self) -> tuple[str, ...]:
        """The names of all prompts, sorted."""
        found = {
            path.relative_to(folder).with_suffix("").as_posix()
            for folder in self.folders
            for path in folder.rglob("*.md")
        }
        return tuple(sorted(name for name in found if _NAME.fullmatch(name)))
