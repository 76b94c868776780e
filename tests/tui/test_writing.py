"""Help for writing a prompt: fuzzy matching, history and custom commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentcli.tui.candidates import candidates, wants_files
from agentcli.tui.commands import is_command, own_commands, split
from agentcli.tui.files import FileIndex
from agentcli.tui.fuzzy import best
from agentcli.tui.history import PromptHistory

PATHS = [
    "src/app/main.py",
    "src/app/domain.py",
    "README.md",
    "tests/test_main.py",
    "docs/main/a.md",
]


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("main", "src/app/main.py"),
        ("READ", "README.md"),
        ("tm", "tests/test_main.py"),
        ("sam", "src/app/main.py"),
        ("docs/", "docs/main/a.md"),
    ],
)
def test_the_best_match_comes_first(query: str, first: str) -> None:
    assert best(query, PATHS, 3)[0] == first


def test_what_does_not_match_is_left_out() -> None:
    assert best("zzz", PATHS, 3) == []
    assert len(best("", PATHS, 3)) == 3


def test_history_leads_back_and_forth_and_keeps_the_draft(tmp_path: Path) -> None:
    history = PromptHistory(tmp_path / "h" / "history.jsonl")
    for text in ("one", "two\nlines", "two\nlines", "  "):
        history.add(text)
    assert history.texts == ["one", "two\nlines"]
    assert history.earlier("draft") == "two\nlines"
    assert history.earlier("x") == "one"
    assert history.earlier("x") is None
    assert history.later() == "two\nlines"
    assert history.later() == "draft"
    assert history.later() is None
    again = PromptHistory(tmp_path / "h" / "history.jsonl")
    assert again.texts == ["one", "two\nlines"]
    assert (tmp_path / "h" / "history.jsonl").stat().st_mode & 0o777 == 0o600


def test_a_damaged_history_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_bytes(b'{"text": "good"}\n\xff\xfe{\n[1]\n{"text": "also"}\n{"te')
    assert PromptHistory(path).texts == ["good", "also"]


def test_commands_and_paths_are_told_apart() -> None:
    assert is_command("/help") and is_command("/model openai:x")
    assert not is_command("/usr/bin/python is missing") and not is_command("a /help")
    assert split("/model  openai:x ") == ("model", "openai:x")


def test_commands_of_ones_own_come_from_markdown_files(tmp_path: Path) -> None:
    user, project = tmp_path / "user", tmp_path / "project"
    for folder in (user, project):
        folder.mkdir()
    (user / "review.md").write_text("---\ndescription: look at it\n---\nReview $ARGUMENTS well.")
    (user / "plan.md").write_text("Make a plan")
    (project / "plan.md").write_text("Make our plan")
    (project / "help.md").write_text("not this one")
    (project / "Bad Name.md").write_text("nor this")
    (project / "empty.md").write_text("  ")
    (project / "bytes.md").write_bytes(b"\xff\xff")
    found = {c.name: c for c in own_commands([user, project, tmp_path / "missing"])}
    assert sorted(found) == ["plan", "review"]
    assert found["review"].summary == "look at it"
    assert found["review"].filled("a.py") == "Review a.py well."
    assert found["plan"].filled("of b") == "Make our plan\n\nof b"


def test_candidates_depend_on_what_stands_before_the_cursor() -> None:
    files = FileIndex()
    files.paths = PATHS
    commands = own_commands([])
    found, typed = candidates("see @dom", "see @dom", commands, files)
    assert (found[0].text, typed) == ("@src/app/domain.py", 4)
    assert candidates("mail@dom", "mail@dom", commands, files) == ([], 0)
    assert wants_files("@") and not wants_files("a@b")
