"""Removing folders that commands have filled, however deep and whatever their modes."""

from __future__ import annotations

import os
from pathlib import Path

from agentcli.sandbox.removal import remove


def test_deep_closed_and_linked(tmp_path: Path) -> None:
    root, other = tmp_path / "root", tmp_path / "other"
    for folder in (root, other):
        folder.mkdir()
    (other / "kept").write_text("x")
    (root / "link").symlink_to(other)
    os.mkfifo(root / "pipe")
    (root / "closed" / "inner").mkdir(parents=True)
    (root / "closed" / "inner" / "file").write_text("x")
    (root / "closed" / "inner").chmod(0)
    (root / "closed").chmod(0)
    here = os.open(root, os.O_RDONLY)
    for _ in range(3000):  # deeper than a path can be long
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    remove(str(root))
    assert not root.exists() and (other / "kept").exists()


def test_what_is_not_there(tmp_path: Path) -> None:
    remove(str(tmp_path / "missing"))
