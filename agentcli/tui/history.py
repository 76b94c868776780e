"""The prompt's history, kept in a file that only the user can read."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

_MOST = 2000
_MAX_CHARS = 100_000


class PromptHistory:
    """Texts, oldest first, without adjacent duplicates.

    If the file cannot be read or written, the history lasts only as long as the process.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.texts: list[str] = []
        self._at: int | None = None  # position while stepping through the history
        self._draft = ""
        with contextlib.suppress(OSError):
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                with contextlib.suppress(ValueError, TypeError, KeyError):
                    self.texts.append(str(json.loads(line)["text"]))
        if len(self.texts) > 2 * _MOST:
            self.texts = self.texts[-_MOST:]
            self._rewrite()

    def add(self, text: str) -> None:
        """Append a text."""
        self._at = None
        if not text.strip() or len(text) > _MAX_CHARS or (self.texts and self.texts[-1] == text):
            return
        self.texts.append(text)
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            with open(os.open(self.path, flags, 0o600), "a", encoding="utf-8") as file:
                file.write(json.dumps({"text": text}) + "\n")

    def earlier(self, current: str) -> str | None:
        """Step back; None at the start. ``current`` is kept as the draft to return to."""
        if self._at is None:
            self._at, self._draft = len(self.texts), current
        if self._at == 0:
            return None
        self._at -= 1
        return self.texts[self._at]

    def later(self) -> str | None:
        """Step forward, at last to the draft; None while not stepping."""
        if self._at is None:
            return None
        self._at += 1
        if self._at >= len(self.texts):
            self._at = None
            return self._draft
        return self.texts[self._at]

    def leave(self) -> None:
        """Stop stepping, because the text was edited."""
        self._at = None

    def _rewrite(self) -> None:
        with contextlib.suppress(OSError):
            fresh = self.path.with_name(f"{self.path.name}.{os.getpid()}")
            with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.writelines(json.dumps({"text": text}) + "\n" for text in self.texts)
            os.replace(fresh, self.path)
