"""``make demo``: the main job on a small repository, without a key and without a network.

The embedded model, which is shipped with agentcli, mends a fresh git repository whose tests fail.
Nothing is replayed: it runs the tests, finds the line, tries its edits on a copy.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = Path("examples/fix-share")
BIN = Path(sys.executable).parent


def show(*lines: str) -> None:
    """Print lines of our own, before anything that a child prints later."""
    print(*lines, sep="\n", flush=True)


def shown(command: list[str], folder: Path) -> int:
    """Show a command and run it, as a person would with the virtual environment active."""
    show("", f"$ {shlex.join(command)}")
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"}
    environment["VIRTUAL_ENV"] = str(BIN.parent)
    return subprocess.run(command, cwd=folder, env=environment, check=False).returncode


def fresh_copy(folder: Path) -> Path:
    """A git repository of its own with the example's files in its one commit."""
    copy = folder / "roadtrip"
    shutil.copytree(ROOT / EXAMPLE / "repo", copy, ignore=shutil.ignore_patterns("__pycache__"))
    git = ["git", "-c", "user.name=agentcli demo", "-c", "user.email=demo@localhost"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "Start"]):
        subprocess.run([*git, *arguments], cwd=copy, check=True)
    return copy


def main() -> int:
    """Run the demo; 0 when the agent solved the task and the tests pass."""
    with tempfile.TemporaryDirectory(prefix="agentcli-demo-") as folder:
        copy = fresh_copy(Path(folder).resolve())
        show(
            f"A fresh copy of {EXAMPLE}/repo, whose tests fail, is in {copy}.",
            "The model is the embedded one; it runs on this machine, without a network.",
            "Every call and every edit is its own; every tool runs in the sandbox.",
        )
        code = shown(
            [
                *("agentcli", "run", f"{EXAMPLE}/task.md"),
                *("--model", "embedded", "--offline", "--workspace", str(copy)),
            ],
            ROOT,
        )
        if code:
            show("", f"The run ended with exit code {code}.")
            return code
        shown(["git", "--no-pager", "diff"], copy)
        return shown(["python", "-m", "pytest", "-q", "-p", "no:cacheprovider"], copy)


if __name__ == "__main__":
    sys.exit(main())
