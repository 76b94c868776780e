"""Shell completion: bash loads the script and calls it."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.running import Cli


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("agentcli", "se"), "sessions"),
        (("agentcli", "run", "--output-"), "--output-schema"),
        (("agentcli", "run", "--mode", ""), "plan"),
        (("agentcli", "sessions", "ex"), "export"),
    ],
)
def test_bash_completes(words: tuple[str, ...], found: str, cli: Cli) -> None:
    script = cli.run("completion", "bash").out
    quoted = " ".join(f"'{word}'" for word in words)
    asked = f"COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _agentcli_completion agentcli"
    ended = subprocess.run(
        ["bash", "-c", f'{script}\n{asked}\nprintf "%s\\n" "${{COMPREPLY[@]}}"'],
        env=cli.env,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert found in ended.stdout.splitlines(), ended


def test_a_bare_zsh_completes(cli: Cli) -> None:
    def zsh(line: str) -> str:
        ended = subprocess.run(
            ["zsh", "-f", "-c", line],
            env=cli.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return ended.stdout

    if not shutil.which("zsh") or not zsh("autoload -Uz compinit && compinit && whence compdef"):
        pytest.skip("there is no zsh that can complete")
    script = cli.run("completion", "zsh").out
    assert zsh(f"{script}\nprint $_comps[agentcli]") == "_agentcli_completion\n"


@pytest.mark.skipif(not shutil.which("fish"), reason="there is no fish")
def test_fish_completes(cli: Cli) -> None:
    line = f"{cli.run('completion', 'fish').out}\ncomplete -C 'agentcli se'"
    ended = subprocess.run(
        ["fish", "-N", "-c", line], env=cli.env, capture_output=True, text=True, timeout=60
    )
    assert "sessions" in ended.stdout.split(), ended


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_have_a_script(shell: str, cli: Cli) -> None:
    assert "_AGENTCLI_COMPLETE" in cli.run("completion", shell).out
    assert "tcsh" in cli.run("completion", "tcsh").error
