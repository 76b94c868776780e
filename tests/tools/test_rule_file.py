"""Saved rules: shared between processes, safe for concurrent writers, never half-written."""

from __future__ import annotations

import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agentcli.errors import ConfigError
from agentcli.tools.rule_file import RuleFile
from agentcli.tools.rules import Rule, Rules

READ = """
import sys
from pathlib import Path
from agentcli.tools.rule_file import RuleFile
print(*RuleFile(Path(sys.argv[1]), sys.argv[2]).read().allow, sep="\\n")
"""


def test_read_back_in_a_new_process(tmp_path: Path) -> None:
    file = RuleFile(tmp_path, "/home/me/a project")
    assert file.read() == Rules()
    file.add(Rule("shell", "git commit -m 'it''s \"x\"\\ é\x7f':*"))
    file.add(Rule("python"))
    file.add(Rule("python"))
    line = (sys.executable, "-c", READ, str(tmp_path), "/home/me/a project")
    ended = subprocess.run(line, capture_output=True, text=True, check=True)
    assert ended.stdout == "shell(git commit -m 'it''s \"x\"\\ é\x7f':*)\npython\n"
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert RuleFile(tmp_path, "/home/me/other").read() == Rules()


def test_several_sessions_lose_nothing(tmp_path: Path) -> None:
    rules = [Rule("shell", f"x{number}:*") for number in range(30)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda rule: RuleFile(tmp_path, "/w").add(rule), rules))
    assert set(RuleFile(tmp_path, "/w").read().allow) == set(rules)
    assert len(list((tmp_path / "permissions").glob(".*"))) == 0, "nothing half-written is left"


@pytest.mark.parametrize("text", ["allow = [", "allow = 3", 'allow = ["a b"]', "\xff"])
def test_a_file_that_cannot_be_read_is_said_so_and_kept(text: str, tmp_path: Path) -> None:
    file = RuleFile(tmp_path, "/w")
    file.path.parent.mkdir()
    file.path.write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError):
        file.read()
    with pytest.raises(ConfigError):
        file.add(Rule("x"))
    assert file.path.read_text(encoding="latin-1") == text
