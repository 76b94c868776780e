"""Starting the command line loads no model, no terminal interface and no provider's SDK."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = (
    "torch",
    "textual",
    "openai",
    "anthropic",
    "mcp",
    "transformers",
    "numpy",
    "httpx2",
    "tree_sitter",
)

PROGRAM = """
import sys
from agentcli.cli.main import main
try:
    code = main(sys.argv[1:])
finally:
    print("LOADED", *sorted({name.partition(".")[0] for name in sys.modules}))
sys.exit(code)
"""


def loaded(*arguments: str, home: Path) -> tuple[int, set[str], str]:
    """Run a command line; return its exit code, the packages it loaded, and its output."""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={"HOME": str(home), "PATH": "/usr/bin:/bin", "AGENTCLI_DATA_DIR": str(home / "data")},
        stdin=subprocess.DEVNULL,
        check=False,
    )
    out, _, modules = ended.stdout.rpartition("LOADED ")
    return ended.returncode, set(modules.split()), out + ended.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--version"],
        ["--help"],
        ["run", "--help"],
        ["chat", "--help"],
        ["generate", "--help"],
        ["models", "--help"],
        ["generate", "x", "--temperature", "-1"],
        ["sessions", "list"],
        ["tools"],
        ["run", "missing.md", "--model", "openai:x"],
    ],
    ids=" ".join,
)
def test_nothing_heavy_is_loaded(arguments: list[str], tmp_path: Path) -> None:
    _, modules, out = loaded(*arguments, home=tmp_path)
    assert "agentcli" in modules, out
    assert modules.isdisjoint(HEAVY)


def test_help_loads_no_command(tmp_path: Path) -> None:
    code, modules, out = loaded("--help", home=tmp_path)
    assert code == 0
    assert modules.isdisjoint({"pydantic", "rich", "asyncio", "jsonschema_rs"})
    for command in ("run", "sessions", "tools", "doctor"):
        assert f"\n  {command} " in out


def test_version(tmp_path: Path) -> None:
    code, _, out = loaded("--version", home=tmp_path)
    assert (code, out.startswith("agentcli ")) == (0, True)


def test_the_doctor_looks_for_torch_without_loading_it(tmp_path: Path) -> None:
    _, modules, out = loaded("doctor", home=tmp_path)
    assert "torch" in out
    assert modules.isdisjoint(HEAVY)


def test_the_screen_loads_no_agent() -> None:
    """The modules that open an agent are loaded in the background, after the screen appears."""
    program = "import sys, agentcli.tui.app; sys.exit('agentcli.wiring' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
