"""``agentcli run --mode ask``, with and without a terminal."""

from __future__ import annotations

from pathlib import Path

import pexpect

from tests.conftest import Serve
from tests.e2e.test_terminal import screen, spawn
from tests.running import Cli, repository
from tests.server import Reply

COMMAND = "sed -i s/old/new/ notes.txt && pwd"


def answer(child: pexpect.spawn[str], key: str, then: str | type[pexpect.EOF] = pexpect.EOF) -> str:
    """Press a key until ``then`` appears (early keys are ignored); return the text before it."""
    for _ in range(60):
        child.send(key)
        if child.expect([then, pexpect.TIMEOUT], timeout=1) == 0:
            return child.before or ""
    raise AssertionError(f"{key} answers nothing: {child.before}")


def test_tried_on_a_copy_and_brought_over(cli: Cli, serve: Serve, workspace: Path) -> None:
    repository(workspace, {"notes.txt": "old\n"})
    cli.server = serve([Reply(calls=[("shell", {"command": COMMAND})]), Reply(text="Done.")]).url
    child = spawn(cli, workspace, "--mode", "ask")
    child.expect("Run this.*on a copy")
    written = answer(child, "c", "Apply its changes")
    assert (workspace / "notes.txt").read_text() == "old\n"
    shown = screen(written + answer(child, "y"))
    child.close()
    assert child.exitstatus == 0, shown
    assert (workspace / "notes.txt").read_text() == "new\n"
    assert "-old" in shown and "+new" in shown and "Done." in shown
    assert str(workspace) in shown, "on a copy, the workspace keeps its name"


def test_always_is_read_back_by_another_process(cli: Cli, serve: Serve, workspace: Path) -> None:
    repository(workspace, {"notes.txt": "old\n"})
    call = Reply(calls=[("shell", {"command": "touch -d @1 notes.txt"})])
    cli.server = serve([call, Reply(text="Done.")]).url
    child = spawn(cli, workspace, "--mode", "ask")
    child.expect(r"always: shell\(touch:\*\)")
    assert "Done." in screen(answer(child, "p"))
    # Without a terminal, the saved rule allows one command; any other is denied.
    (workspace / "notes.txt").touch()
    other = Reply(calls=[("shell", {"command": "touch notes.txt && rm notes.txt"})])
    cli.server = serve([call, other, Reply(text="Done.")]).url
    ended = cli.run("run", "-p", "x", "--model", "openai:scripted", "--mode", "ask", cwd=workspace)
    assert ended.code == 0, ended.err
    assert (workspace / "notes.txt").stat().st_mtime == 1
    assert "needs approval in ask mode, and nobody can be asked" in ended.err
