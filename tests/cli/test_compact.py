"""``agentcli sessions compact``: preview, compaction, continuing and undo."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import Serve
from tests.running import Cli
from tests.server import Reply


def test_a_session_is_compacted_and_that_is_undone(cli: Cli, serve: Serve, workspace: Path) -> None:
    (workspace / "a.txt").write_text("words " * 3000)
    reads = [Reply(calls=[("read_file", {"path": "a.txt"})]) for _ in range(8)]
    cli.server = serve([*reads, Reply(text="All read.")]).url
    arguments = ["--model", "openai:m", "--workspace", str(workspace), "--output", "json"]
    session = str(cli.run("run", "-p", "Read.", *arguments).json["session_id"])
    (journal,) = cli.journals()
    before = journal.read_bytes()

    looked = cli.run("sessions", "compact", session[:-1], "--preview")
    assert looked.code == 0, looked.err
    assert "read_file: 1 words words" in looked.out and "would be" in looked.out
    assert journal.read_bytes() == before

    done = cli.run("sessions", "compact", session)
    assert "the journal keeps everything" in done.out, done.err
    assert journal.read_bytes().startswith(before)
    assert f"{session}  " in (listed := cli.run("sessions", "list").out) and "solved" in listed

    server = serve([Reply(text="More.")])
    cli.server = server.url
    assert cli.run("run", "-p", "More.", "--session", session, "--output", "json").code == 0
    assert len(server.requests[0].raw) < 60_000 < 8 * 18_000

    undone = cli.run("sessions", "compact", session, "--undo")
    assert undone.out.startswith("undone: about "), undone.err
