"""``make demo``'s script, as it stands in the repository."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.running import Cli

ROOT = Path(__file__).parents[2]


def test_the_demo(cli: Cli) -> None:
    ended = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "demo.py")],
        cwd=cli.home,
        env={**cli.env, "OPENAI_API_KEY": ""},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    for expected in (
        "REPLAYED from examples/fix-median/recording.jsonl; no model is asked",
        "$ agentcli run examples/fix-median/task.md --model replay:",
        "tests failed (exit code 1)",
        "solved · ",
        "$ git --no-pager diff\n",
        "\n+    return (ordered[middle - 1] + ordered[middle]) / 2\n",
        "$ python -m pytest",
        "\n14 passed in ",
    ):
        assert expected in ended.stdout


def test_the_recording_names_no_place_and_no_key_of_its_maker() -> None:
    text = (ROOT / "examples" / "fix-median" / "recording.jsonl").read_text()
    for trace in ("/root", "/tmp/", "/Users/", "sk-"):
        assert trace not in text
