"""Trusted folders: how trust is stored, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentcli.errors import ConfigError
from agentcli.trust import distrust, is_trusted, trust, trust_file, trusted_folders


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"AGENTCLI_CONFIG_DIR": str(tmp_path / "config")}


def test_a_folder_and_all_below_it_until_it_is_forgotten(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    project = tmp_path / "project"
    (project / "sub").mkdir(parents=True)
    assert not is_trusted(project, environ)
    assert trust(project, environ)
    assert not trust(project / "sub", environ)  # already trusted
    assert is_trusted(project / "sub", environ)
    assert not is_trusted(tmp_path / "project-evil", environ)
    assert distrust(project, environ)
    assert not distrust(project, environ)
    assert not is_trusted(project, environ)


def test_a_link_is_what_it_points_to(tmp_path: Path, environ: dict[str, str]) -> None:
    (tmp_path / "evil").mkdir()
    (tmp_path / "good").mkdir()
    trust(tmp_path / "good", environ)
    (tmp_path / "good" / "link").symlink_to(tmp_path / "evil")
    assert not is_trusted(tmp_path / "good" / "link", environ)


def test_what_cannot_be_trusted(tmp_path: Path, environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="everything"):
        trust(Path("/"), environ)
    with pytest.raises(ConfigError, match="not a folder"):
        trust(tmp_path / "absent", environ)


@pytest.mark.parametrize("text", ["{", '{"a": 1}', '["relative"]', "[1]"])
def test_a_damaged_file_is_an_error_and_trusts_nobody(
    text: str, tmp_path: Path, environ: dict[str, str]
) -> None:
    trust_file(environ).parent.mkdir(parents=True)
    trust_file(environ).write_text(text)
    with pytest.raises(ConfigError, match=r"trusted\.json"):
        trusted_folders(environ)
