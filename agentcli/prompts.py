"""The prompts: Markdown files that a user can replace.

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
    """Where the prompts shipped with agentcli are.

    A wheel carries them beside this file in ``_prompts``; an editable install does not show
    files that were force-included, so there they are the repository's own ``prompts``.

    Raises:
        ConfigError: neither exists: the installation is damaged.
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
    """Prompts from several folders; a later folder goes before an earlier one."""

    def __init__(self, *folders: Path) -> None:
        """``folders`` from the weakest to the strongest; those that do not exist are empty."""
        self.folders = folders

    @classmethod
    def standard(cls, *, user: Path | None = None, project: Path | None = None) -> Prompts:
        """The packaged prompts under the user's folder under the project's."""
        return cls(*(folder for folder in (packaged_folder(), user, project) if folder))

    def find(self, name: str) -> Path | None:
        """The file that holds a prompt, or None.

        Raises:
            ConfigError: the name could lead out of the folders.
        """
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{name!r} cannot be the name of a prompt")
        for folder in reversed(self.folders):
            path = folder / f"{name}.md"
            if path.is_file():
                return path
        return None

    def get(self, name: str) -> str:
        """A prompt's text as it stands in its file, without the white space around it.

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
        """A prompt with its places filled; text that is filled in is not searched for places.

        Raises:
            ConfigError: as ``get``, or the prompt has a place that ``values`` does not name.
        """
        text = self.get(name)
        unknown = sorted({place for place in _PLACE.findall(text) if place not in values})
        if unknown:
            raise ConfigError(
                f"the prompt {self.find(name)} has unknown places: {', '.join(unknown)}",
                hint=f"Known places are {', '.join(sorted(values)) or 'none'}",
            )
        return _PLACE.sub(lambda match: values[match[1]], text)

    def names(self) -> tuple[str, ...]:
        """All prompts there are, sorted."""
        found = {
            path.relative_to(folder).with_suffix("").as_posix()
            for folder in self.folders
            for path in folder.rglob("*.md")
        }
        return tuple(sorted(name for name in found if _NAME.fullmatch(name)))
