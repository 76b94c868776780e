"""``agentcli run --mode ask`` in a real terminal, and without one."""

from __future__ import annotations

import time
from pathlib import Path

from tests.conftest import Serve
from tests.e2e.test_terminal import read_all, screen, spawn
from tests.running import Cli, repository
from tests.server import Reply

COMMAND = "sed -i s/old/new/ notes.txt && pwd"


def test_tried_on_a_copy_and_brought_over(cli: Cli, serve: Serve, workspace: Path) -> None:
    repository(workspace, {"notes.txt": "old\n"})
    cli.server = serve([Reply(calls=[("shell", {"command": COMMAND})]), Reply(text="Done.")]).url
    child = spawn(cli, workspace, "--mode", "ask")
    child.expect("Allow it.*on a copy")
    child.send("y")  # pressed before the question could be read
    time.sleep(0.5)
    assert (workspace / "notes.txt").read_text() == "old\n"
    child.send("c")
    child.expect("Bring over what it did on the copy")
    assert (workspace / "notes.txt").read_text() == "old\n"
    time.sleep(0.4)
    child.send("y")
    shown = screen((child.before or "") + read_all(child))
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
    time.sleep(0.4)
    child.send("p")
    assert "Done." in screen(read_all(child))
    # Nobody can be asked here, and nobody need be; what is not saved is denied.
    (workspace / "notes.txt").touch()
    other = Reply(calls=[("shell", {"command": "touch notes.txt && rm notes.txt"})])
    cli.server = serve([call, other, Reply(text="Done.")]).url
    ended = cli.run("run", "-p", "x", "--model", "openai:scripted", "--mode", "ask", cwd=workspace)
    assert ended.code == 0, ended.err
    assert (workspace / "notes.txt").stat().st_mtime == 1
    assert "needs approval in ask mode, and nobody can be asked" in ended.err
