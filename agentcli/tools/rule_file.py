"""The rules that a user has saved permanently, one file per project.

The files are in the user's configuration folder, where no project and no tool can write. Only this
module writes them; users may read them, delete lines, or delete a file.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path

from agentcli.errors import ConfigError
from agentcli.tools.rules import Rule, Rules, parse_rule

_HEAD = """\
# Rules for calls that you chose to always allow. Delete a line to be asked again.
# agentcli rewrites this file: put rules of your own into config.toml.
"""


class RuleFile:
    """The saved rules of one workspace below ``folder``."""

    def __init__(self, folder: Path, workspace: str) -> None:
        name = re.sub(r"[^A-Za-z0-9._-]", "_", os.path.basename(workspace))[:40]
        digest = hashlib.sha256(os.fsencode(workspace)).hexdigest()[:12]
        self.path = folder / "permissions" / f"{name}-{digest}.toml"
        self._workspace = workspace

    def read(self) -> Rules:
        """The saved rules; empty if there is no file.

        Raises:
            ConfigError: the file cannot be read.
        """
        try:
            found = tomllib.loads(self.path.read_bytes().decode())
            allow = found.get("allow", [])
            if not isinstance(allow, list) or not all(isinstance(rule, str) for rule in allow):
                raise ValueError('"allow" should be a list of rules')
        except FileNotFoundError:
            return Rules()
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{self.path}: {error}", hint="Fix it, or delete it to be asked again"
            ) from error
        return Rules(allow=tuple(parse_rule(rule) for rule in allow))

    def add(self, rule: Rule) -> None:
        """Save one more rule.

        Raises:
            ConfigError: the file cannot be read or written.
        """
        self._change(lambda rules: rules if rule in rules else (*rules, rule))

    def remove(self, rule: Rule) -> None:
        """Remove a rule, if it is saved.

        Raises:
            ConfigError: the file cannot be read or written.
        """
        if rule not in self.read().allow:  # nothing to write, even where that is impossible
            return
        self._change(lambda rules: tuple(other for other in rules if other != rule))

    def _change(self, change: Callable[[tuple[Rule, ...]], tuple[Rule, ...]]) -> None:
        """Replace the file atomically, under a lock against other sessions."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with open(f"{self.path}.lock", "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                before = self.read().allow
                if (after := change(before)) != before:
                    self._write(after)
        except OSError as error:
            raise ConfigError(f"{self.path}: {error.strerror or error}") from error

    def _write(self, rules: tuple[Rule, ...]) -> None:
        lines = "".join(f"    {_quoted(str(rule))},\n" for rule in rules)
        text = f"{_HEAD}workspace = {_quoted(self._workspace)}\nallow = [\n{lines}]\n"
        descriptor, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=".")
        try:
            with open(descriptor, "w", encoding="utf-8", errors="replace") as file:
                file.write(text)
                file.flush()
                os.fsync(descriptor)
            os.replace(temporary, self.path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise


def _quoted(text: str) -> str:
    """A TOML basic string; it is a JSON string except that DEL must be escaped."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
