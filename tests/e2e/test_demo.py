"""The script of ``make demo``."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.running import Cli

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(320)
def test_the_demo(cli: Cli) -> None:
    ended = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "demo.py")],
        cwd=cli.home,
        env={**cli.env, "OPENAI_API_KEY": ""},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    for expected in (
        "$ agentcli run examples/fix-share/task.md --model embedded --offline",
        "tests failed (exit code 1)",
        "solved · ",
        "$ git --no-pager diff\n",
        "\n-    return sum(costs.values()) / len(costs) - 1\n",
        "$ python -m pytest",
        "\n8 passed in ",
    ):
        assert expected in ended.stdout


def test_a_recorded_session_is_replayed(cli: Cli, tmp_path: Path) -> None:
    example = ROOT / "examples" / "fix-median"
    shutil.copytree(example / "repo", tmp_path / "repo")
    arguments = [str(example / "task.md"), "--workspace", str(tmp_path / "repo")]
    ended = cli.run("run", *arguments, "--model", f"replay:{example / 'recording.jsonl'}")
    assert ended.code == 0, ended.err
    mended = (tmp_path / "repo" / "quickstats" / "averages.py").read_text()
    assert "return (ordered[middle - 1] + ordered[middle]) / 2" in mended


def test_the_recording_names_no_place_and_no_key_of_its_maker() -> None:
    text = (ROOT / "examples" / "fix-median" / "recording.jsonl").read_text()
    for trace in ("/root", "/tmp/", "/Users/", "sk-"):
        assert trace not in text
