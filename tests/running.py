"""Run ``agentcli`` as users do, in a separate process with its own home folder."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil

from agentcli.agent.events import Event
from agentcli.cli.main import main
from agentcli.folders import cache_folder
from agentcli.session.journal import read_events

BIN = Path(sys.executable).parent
KEY = "sk-test-0123456789abcdef"


def without_level(err: str) -> str:
    """Remove the note that the sandbox does not run at its full level here."""
    lines = err.splitlines(keepends=True)
    return "".join(one for one in lines if not one.startswith("agentcli: note: sandbox level "))


@dataclass
class Ended:
    """A finished command: its exit code and output."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The last line of stdout, parsed."""
        return json.loads(self.out.splitlines()[-1])

    @property
    def events(self) -> list[dict[str, Any]]:
        """Every line of stdout, parsed."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self) -> str:
        """The error line. Fails unless there is exactly one, and no traceback."""
        lines = [line for line in self.err.splitlines() if line.startswith("agentcli: error: ")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err + self.out, self.err
        print(self.code, lines[0])
        return lines[0].removeprefix("agentcli: error: ")


@dataclass
class Cli:
    """Runs ``agentcli`` with an environment that inherits nothing from the developer's."""

    home: Path
    server: str = ""
    extra: Mapping[str, str] = field(default_factory=dict)

    @property
    def env(self) -> dict[str, str]:
        """The environment of the process; an empty value in ``extra`` removes a variable."""
        keep = {name: os.environ[name] for name in ("LANG", "TZ") if name in os.environ}
        env = {
            **keep,
            "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "HOME": str(self.home),
            "AGENTCLI_DATA_DIR": str(self.home / "data"),
            "OPENAI_API_KEY": KEY,
        }
        if self.server:
            env["OPENAI_BASE_URL"] = self.server
        env.update(self.extra)
        return {name: value for name, value in env.items() if value}

    def start(self, *arguments: str, cwd: Path | None = None, **popen: Any) -> Popen:
        """Start the command and leave it running."""
        popen = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **popen}
        return subprocess.Popen(
            [str(BIN / "agentcli"), *arguments],
            cwd=cwd or self.home,
            env=self.env,
            text=True,
            stdin=popen.pop("stdin", subprocess.DEVNULL),
            **popen,
        )

    def run(
        self, *arguments: str, stdin: bytes = b"", cwd: Path | None = None, timeout: float = 90
    ) -> Ended:
        """Run the command and wait for it to finish."""
        ended = subprocess.run(
            [str(BIN / "agentcli"), *arguments],
            cwd=cwd or self.home,
            env=self.env,
            input=stdin,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        return Ended(ended.returncode, ended.stdout.decode(), ended.stderr.decode())

    def shell(self, command: str, cwd: Path) -> Ended:
        """Run a line of shell, for redirections and pipes; ``{BIN}/agentcli`` is the command."""
        ended = subprocess.run(
            ["sh", "-c", command],
            cwd=cwd,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    def call(self, *arguments: str, stdin: bytes = b"", cwd: Path | None = None) -> Ended:
        """Run the command in this process, which saves the half second that a new one needs.

        Use ``run`` where the test is about the process: signals, real streams, modules loaded.
        """
        out, err = BytesIO(), BytesIO()
        with (
            patch.dict(os.environ, self.env, clear=True),
            patch("sys.stdin", TextIOWrapper(BytesIO(stdin), encoding="utf-8")),
            redirect_stdout(TextIOWrapper(out, encoding="utf-8", write_through=True)),
            redirect_stderr(TextIOWrapper(err, encoding="utf-8", write_through=True)),
            chdir(cwd or self.home),
        ):
            code = main(list(arguments))
            return Ended(code, out.getvalue().decode(), err.getvalue().decode())

    def journals(self) -> list[Path]:
        """All session journals, oldest first."""
        return sorted((self.home / "data" / "sessions").glob("*/events.jsonl"))

    def journal(self) -> list[Event]:
        """The events of the only session."""
        (path,) = self.journals()
        return list(read_events(path))


Popen = subprocess.Popen[str]


def descendants(pid: int) -> list[psutil.Process]:
    """All descendants of a process."""
    return psutil.Process(pid).children(recursive=True)


def survivors(processes: Sequence[psutil.Process], patience_s: float = 30.0) -> list[str]:
    """Describe the processes that still run after ``patience_s``; zombies count as dead."""
    end = time.monotonic() + patience_s
    while True:
        alive = [process for process in processes if _runs(process)]
        if not alive or time.monotonic() > end:
            return [_describe(process) for process in alive]
        time.sleep(0.05)


def some_seconds() -> str:
    """A random number of seconds for ``sleep``, by which its process can be found."""
    return str(secrets.randbelow(9 * 10**7) + 10**7)


def running_with(word: str) -> list[psutil.Process]:
    """All processes on the machine whose command line contains a word."""
    found = []
    for process in psutil.process_iter():
        try:
            if any(word in part for part in process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _describe(process: psutil.Process) -> str:
    try:
        return f"{process.pid}: {' '.join(process.cmdline())}"
    except psutil.Error:
        return str(process.pid)


def end(process: Popen, number: int = signal.SIGTERM) -> Ended:
    """Send a signal and wait for the process to end."""
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    return Ended(process.returncode, out or "", err or "")


def git(folder: Path, *arguments: str) -> str:
    """Run git and return its output; commits get a fixed identity."""
    identity = ["-c", "user.name=A Developer", "-c", "user.email=developer@localhost"]
    return subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout


def pytest_ini(pythonpath: str = ".") -> dict[str, str]:
    """A pytest.ini that disables the plugins of this test suite, which take seconds to import."""
    plugins = "inline_snapshot hypothesispytest anyio asyncio xdist xdist.looponfail timeout"
    without = " ".join(f"-p no:{plugin}" for plugin in plugins.split())
    return {"pytest.ini": f"[pytest]\naddopts = {without}\npythonpath = {pythonpath}\n"}


def repository(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    """Make a git repository with these files in a single commit."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "Start")
    return folder


def share_kernels(home: Path) -> None:
    """Link the cached kernels into ``home``: building the local model's kernels takes seconds."""
    built = cache_folder() / "kernels"
    built.mkdir(parents=True, exist_ok=True)
    kept = home / ".cache" / "agentcli"
    kept.mkdir(parents=True)
    (kept / "kernels").symlink_to(built)
