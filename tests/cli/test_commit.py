"""``run --commit`` in real repositories: it commits the session's changes, never the user's."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentcli.agent.events import WorkspaceChanged
from tests.conftest import Serve
from tests.running import BIN, Cli, Ended, git, repository
from tests.server import Reply

READ = ("read_file", {"path": "sub/a.txt"})
EDIT = Reply(calls=[READ, ("write_file", {"path": "sub/a.txt", "content": "new\n"})])
SHELL = Reply(calls=[("shell", {"command": "echo b > made.txt; rm gone.txt; echo x > out.log"})])
FILES = {"sub/a.txt": "old\n", "gone.txt": "x\n", "mine.txt": "1\n", ".gitignore": "*.log\n"}


@pytest.fixture
def repo(workspace: Path, cli: Cli) -> Path:
    (cli.home / ".gitconfig").write_text("[user]\nname = A User\nemail = user@localhost\n")
    return repository(workspace, FILES)


def run(cli: Cli, serve: Serve, repo: Path, *replies: Reply) -> Ended:
    cli.server = serve(list(replies)).url
    given = ["-p", "# Renew the texts", "--model", "openai:m", "--workspace", str(repo)]
    return cli.run("run", *given, "--commit", "--output", "json")


def test_exactly_what_the_session_changed(cli: Cli, serve: Serve, repo: Path) -> None:
    hook = repo / ".git/hooks/pre-commit"
    hook.write_text("#!/bin/sh\ntouch ran; exit 1\n")
    hook.chmod(0o755)
    (repo / "mine.txt").write_text("2\n")
    git(repo, "add", "mine.txt")
    (repo / "mine.txt").write_text("3\n")
    (repo / "draft.txt").write_text("unknown to git\n")
    message = "```\nRenew the texts\n\nThey were old.\n```"
    ended = run(cli, serve, repo, EDIT, SHELL, Reply(text="Done."), Reply(text=message))
    assert ended.code == 0, ended.err
    assert "Renew the texts" in ended.err
    assert git(repo, "log", "-1", "--format=%an: %B").strip() == (
        "A User: Renew the texts\n\nThey were old."
    )
    names = git(repo, "show", "--name-status", "--format=", "HEAD").split()
    assert names == ["D", "gone.txt", "A", "made.txt", "M", "sub/a.txt"]
    assert git(repo, "status", "--porcelain") == "MM mine.txt\n?? draft.txt\n"
    assert git(repo, "diff", "--cached", "mine.txt").endswith("-1\n+2\n")
    drafted = [e for e in cli.journal() if type(e).__name__ == "ModelUsed"]
    answered = [e for e in cli.journal() if type(e).__name__ == "ModelAnswered"]
    total = sum(e.usage.input_tokens for e in (*drafted, *answered))  # type: ignore[attr-defined]
    assert len(drafted) == 1 and ended.json["usage"]["input_tokens"] == total


def test_redirected_output_is_no_change_of_the_session(cli: Cli, serve: Serve, repo: Path) -> None:
    cli.server = serve([EDIT, Reply(text="Done."), Reply(text="Renew")]).url
    options = "--model openai:m --commit"
    ended = cli.shell(f"{BIN}/agentcli run -p renew {options} >out.txt 2>progress.txt", repo)
    assert ended.code == 0
    names = git(repo, "show", "--name-only", "--format=", "HEAD").split()
    assert names == ["sub/a.txt"]
    assert "Done." in (repo / "out.txt").read_text()
    changed = {path for e in cli.journal() if isinstance(e, WorkspaceChanged) for path in e.after}
    assert changed == {"sub/a.txt"}


def test_changes_of_the_users_are_not_mixed_in(cli: Cli, serve: Serve, repo: Path) -> None:
    (repo / "sub/a.txt").write_text("mine\n")
    head = git(repo, "rev-parse", "HEAD")
    ended = run(cli, serve, repo, EDIT, Reply(text="Done."))
    assert ended.code == 1 and ended.json["status"] == "solved"
    assert "sub/a.txt had changes of yours before the run" in ended.error
    assert git(repo, "rev-parse", "HEAD") == head


def test_no_repository_is_said_before_anything_is_asked(
    cli: Cli, serve: Serve, workspace: Path
) -> None:
    ended = run(cli, serve, workspace)
    assert ended.code == 2 and "not a git repository" in ended.error


def test_a_workspace_within_a_repository_of_no_commits(
    cli: Cli, serve: Serve, repo: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "fresh"
    (folder / "sub").mkdir(parents=True)
    git(folder, "init", "-q")
    (folder / "other").touch()
    edit = Reply(calls=[("write_file", {"path": "a[1] ü.txt", "content": "new\n"})])
    ended = run(cli, serve, folder / "sub", edit, Reply(text="Done."), Reply(text=" "))
    assert ended.code == 0, ended.err
    assert git(folder, "-c", "core.quotePath=no", "show", "--name-only", "--format=%s") == (
        "Renew the texts\n\nsub/a[1] ü.txt\n"
    )
    assert git(folder, "status", "--porcelain") == "?? other\n"
