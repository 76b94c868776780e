"""Custom slash commands, as ``run -p`` and the chat find them."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentcli.errors import UsageError
from agentcli.skills import PROJECT_FOLDERS
from agentcli.slash_commands import command_folders, expanded, is_command, own_commands, split
from agentcli.trust import trust
from tests.test_skills import write


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    monkeypatch.setenv("AGENTCLI_CONFIG_DIR", str(tmp_path / "config"))
    user, project = tmp_path / "config" / "commands", tmp_path / "repo" / ".agentcli" / "commands"
    for folder in (user, project):
        folder.mkdir(parents=True)
    (user / "review.md").write_text("---\ndescription: look at it\n---\nReview $ARGUMENTS well.")
    (project / "release.md").write_text("Make a release.")
    return user, project


def test_commands_of_a_trusted_project_are_available(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    user, project = folders
    workspace = tmp_path / "repo"
    skills = user.parent / "skills"
    write(workspace / ".claude" / "skills", "tidy", body="Tidy up.")
    assert command_folders(workspace) == (skills, user)
    trust(workspace)
    theirs = [workspace / name for name in PROJECT_FOLDERS]
    assert command_folders(workspace) == (skills, *theirs, user, project)
    assert expanded("/release", command_folders(workspace)) == "Make a release."
    assert expanded("/tidy", command_folders(workspace)) == "Tidy up."


def test_a_skill_is_a_command_unless_there_is_one_of_its_name(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    skills = tmp_path / "config" / "skills"
    folder = write(skills, "tidy", body="Tidy $ARGUMENTS up.")
    (folder / "more.md").write_text("more")
    write(skills, "review", body="Never read.")
    (skills / "README.md").write_text("No command.")
    found = own_commands([skills, *folders])
    assert sorted(command.name for command in found) == ["release", "review", "tidy"]
    assert expanded("/tidy a.py", [skills, *folders]) == (
        "Tidy a.py up.\n\n[further files of this skill: more.md]"
    )
    assert expanded("/review a.py", [skills, *folders]) == "Review a.py well."


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


def test_a_command_ends_at_white_space_of_any_kind() -> None:
    assert split("/review  the tests ") == ("review", "the tests")
    assert split("/review\nthe tests\nand docs") == ("review", "the tests\nand docs")
    assert split("/review\tthe tests") == ("review", "the tests")
    assert split("/review") == ("review", "")
    assert split("/") == ("", "")
