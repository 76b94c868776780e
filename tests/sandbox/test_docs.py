"""docs/sandbox.md matches the code: its commands run and its settings are the defaults."""

from __future__ import annotations

import re
import shlex
import shutil
import tomllib
from pathlib import Path

import pytest

from agentcli.cli.main import main
from agentcli.sandbox.destinations import Destinations
from agentcli.settings import LimitSettings, Settings

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "sandbox.md").read_text("utf-8")
COMMANDS = [
    (line, int(code))
    for block in re.findall(r"```sh\n(.+?)```", TEXT, re.DOTALL)
    for line, code in re.findall(r"^(agentcli .+?) +# (\d+): ", block, re.MULTILINE)
]


def test_all_commands_are_found() -> None:
    assert len(COMMANDS) == TEXT.count("\nagentcli ") > 5


@pytest.mark.parametrize(("line", "code"), COMMANDS, ids=lambda value: str(value)[:60])
def test_commands(
    line: str,
    code: int,
    workspace: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("AGENTCLI_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("AGENTCLI_DATA_DIR", str(tmp_path / "data"))
    words = shlex.split(line)[1:]
    if "curl" in words and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    found = main(words)
    if found == 4:
        pytest.skip(capfd.readouterr().err)
    assert found == code, capfd.readouterr()


def test_settings() -> None:
    network, limits = (
        tomllib.loads(block) for block in re.findall(r"```toml\n(.+?)```", TEXT, re.DOTALL)
    )
    Destinations(Settings.model_validate(network).domains)
    assert LimitSettings.model_validate(limits["limits"]) == LimitSettings()
    assert "check_time_s = 600" in TEXT and LimitSettings().check_time_s == 600
