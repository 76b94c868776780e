"""A run in a real terminal: its final screen, and Ctrl+C."""

from __future__ import annotations

from pathlib import Path

import pexpect
import pyte

from agentcli.agent.events import RunFinished
from tests.conftest import Serve
from tests.running import BIN, Cli, repository, running_with, some_seconds, survivors
from tests.server import Reply

COLUMNS, LINES = 90, 60


def spawn(cli: Cli, workspace: Path, *more: str) -> pexpect.spawn[str]:
    """Start a run in a pseudo-terminal."""
    return pexpect.spawn(
        str(BIN / "agentcli"),
        ["run", "-p", "Do it.", "--model", "openai:scripted", *more],
        cwd=str(workspace),
        env={**cli.env, "TERM": "xterm-256color"},
        dimensions=(LINES, COLUMNS),
        encoding="utf-8",
        timeout=60,
    )


def screen(written: str) -> str:
    """The screen of a terminal after this output."""
    display = pyte.Screen(COLUMNS, LINES)
    pyte.Stream(display).feed(written)
    return "\n".join(line.rstrip() for line in display.display).rstrip()


def read_all(child: pexpect.spawn[str]) -> str:
    """Read everything until the process ends."""
    child.expect(pexpect.EOF)
    child.close()
    return child.before or ""


def test_what_is_left_on_the_screen(cli: Cli, serve: Serve, workspace: Path) -> None:
    repository(workspace, {"notes.txt": "old\n"})
    edit = {"path": "notes.txt", "old": "old", "new": "new"}
    cli.server = serve(
        [
            Reply(text="I change the **notes**.", calls=[("search_replace", edit)]),
            Reply(
                calls=[("shell", {"command": "printf '\\033[2J\\033]0;owned\\007'; cat notes.txt"})]
            ),
            Reply(text="Done: `notes.txt` says *new*.", split=8, pause_s=0.005),
        ]
    ).url
    written = read_all(spawn(cli, workspace, "--check", "grep -q new notes.txt"))
    shown = screen(written)
    assert "● search_replace notes.txt\n  replaced 1 occurrence in notes.txt at line 1" in shown
    assert "  -old\n  +new" in shown
    assert "● shell printf" in shown
    assert "Done: notes.txt says new." in shown, "Markdown is rendered"
    assert "check passed: grep -q new notes.txt" in shown
    assert "solved · 3 steps" in shown
    assert shown.count("Done:") == 1, "the answer is not said twice"
    assert "thinking" not in shown and "⠋" not in shown
    assert "\x1b]0;" not in written
    assert written.rfind("\x1b[?25h") > written.rfind("\x1b[?25l") >= 0


def test_ctrl_c(cli: Cli, serve: Serve, workspace: Path) -> None:
    word = some_seconds()
    cli.server = serve([Reply(calls=[("shell", {"command": f"echo busy; sleep {word}"})])]).url
    child = spawn(cli, workspace)
    child.expect("busy")
    child.sendintr()
    shown = screen(read_all(child))
    assert child.exitstatus == 130
    assert "cancelled · " in shown
    assert "Traceback" not in shown
    assert isinstance(cli.journal()[-1], RunFinished)
    assert survivors(running_with(word)) == []


def test_no_colour_when_it_is_not_wanted(cli: Cli, serve: Serve, workspace: Path) -> None:
    cli.server = serve([Reply(calls=[("list_dir", {})]), Reply(text="Done.")]).url
    cli.extra = {"NO_COLOR": "1"}
    written = read_all(spawn(cli, workspace))
    assert "Done." in written
    for colour in ("\x1b[31m", "\x1b[32m", "\x1b[1;32m", "\x1b[36m"):
        assert colour not in written
