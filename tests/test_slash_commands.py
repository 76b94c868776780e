"""A user's own commands, as ``run -p`` and the chat find them."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentcli.errors import UsageError
from agentcli.slash_commands import command_folders, expanded, is_command
from agentcli.trust import trust


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    monkeypatch.setenv("AGENTCLI_CONFIG_DIR", str(tmp_path / "config"))
    user, project = tmp_path / "config" / "commands", tmp_path / "repo" / ".agentcli" / "commands"
    for folder in (user, project):
        folder.mkdir(parents=True)
    (user / "review.md").write_text("---\ndescription: look at it\n---\nReview $ARGUMENTS well.")
    (project / "release.md").write_text("Make a release.")
    return user, project


def test_a_projects_own_are_had_where_it_is_trusted(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    user, project = folders
    workspace = tmp_path / "repo"
    assert command_folders(workspace) == (user,)
    trust(workspace)
    assert command_folders(workspace) == (user, project)
    assert expanded("/release", command_folders(workspace)) == "Make a release."


def test_a_command_becomes_its_text(folders: tuple[Path, Path]) -> None:
    assert expanded("/review a.py", folders) == "Review a.py well."
    assert expanded("/release now\nand soon", folders) == "Make a release.\n\nnow\nand soon"


def test_other_text_stays_and_a_wrong_name_is_said(folders: tuple[Path, Path]) -> None:
    for text in ("Say /review", "/etc is full", "/etc/hosts is wrong", "/server:prompt x", "/ x"):
        assert expanded(text, folders) == text
    with pytest.raises(UsageError, match="there is no command /reveiw") as error:
        expanded("/reveiw a.py", folders)
    assert error.value.hint and 'Did you mean "review"?' in error.value.hint
    with pytest.raises(UsageError, match="there is no command /reveiw"):
        expanded("/reveiw a.py", [])


def test_what_looks_like_a_command() -> None:
    for text in ("/review", "/review a.py\nb", "/my.server:do_it x=1", "/s:Prompt"):
        assert is_command(text)
    for text in ("/etc/hosts", "/", "/Review", "// a", "review", "/a/b:c"):
        assert not is_command(text)
