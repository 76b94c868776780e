"""glob and grep: the form of the result, limits, and invalid patterns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentcli.messages import Outcome, ToolCall
from agentcli.tools.approval import Answer, Approval, Reply
from agentcli.tools.base import ToolContext
from agentcli.tools.permissions import ModePermissions
from agentcli.tools.registry import Registry
from agentcli.tools.rules import parse_rules
from tests.tools.conftest import TOOLS, Call


@pytest.fixture
def tree(workspace: Path) -> Path:
    files = {
        "main.py": "import os\nprint('Main')\n",
        "src/app/core.py": "def core():\n    return 'main'\n",
        "src/app/notes.txt": "main things\r\n",
        "docs/a file.md": "# Main\n",
        ".gitignore": "build/\n",
        "build/out.py": "main = 1\n",
    }
    for name, text in files.items():
        path = workspace / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    (workspace / "image.bin").write_bytes(b"\0main\0")
    return workspace


async def test_glob_gives_one_path_a_line(tree: Path, call: Call) -> None:
    assert (await call("glob", pattern="**/*.py")).content == "main.py\nsrc/app/core.py"
    assert (await call("glob", pattern="*.{md,txt}", path="docs")).content == "docs/a file.md"


async def test_glob_finds_nothing(tree: Path, call: Call) -> None:
    result = await call("glob", pattern="**/*.rs")
    assert (result.outcome, result.content) == (Outcome.OK, "no file matches **/*.rs")


async def test_glob_says_when_paths_are_left_out(workspace: Path, call: Call) -> None:
    for number in range(502):
        (workspace / f"{number:04}").touch()
    rows = (await call("glob", pattern="*")).content.split("\n")
    assert rows[-2:] == ["0499", "[only the first 500 files are shown]"]


async def test_grep_gives_path_line_and_text(tree: Path, call: Call) -> None:
    result = await call("grep", pattern="main")
    assert (
        result.content == "src/app/core.py:2:     return 'main'\nsrc/app/notes.txt:1: main things"
    )
    assert result.paths == ("src/app/core.py", "src/app/notes.txt")


async def test_grep_can_be_narrowed(tree: Path, call: Call) -> None:
    result = await call("grep", pattern="^.*MAIN", glob="*.py", ignore_case=True)
    assert result.content == "main.py:2: print('Main')\nsrc/app/core.py:2:     return 'main'"
    result = await call("grep", pattern="Main", path="docs/a file.md")
    assert result.content == "docs/a file.md:1: # Main"


async def test_grep_finds_nothing(tree: Path, call: Call) -> None:
    result = await call("grep", pattern="absent")
    assert (result.outcome, result.content) == (Outcome.OK, "no match for absent")


async def test_grep_leaves_out_files_that_rules_guard(tree: Path, context: ToolContext) -> None:
    async def once(approval: Approval) -> Reply:
        return Reply(Answer.ONCE)

    rules = parse_rules(deny=["*(*.txt)"], ask=["grep(docs/**)"])
    permissions = ModePermissions(ask=once, rules=rules, root=str(tree))

    async def grep(path: str) -> str:
        arguments = json.dumps({"pattern": "main", "path": path, "ignore_case": True})
        registry = Registry(TOOLS, permissions)
        return (await registry.dispatch(ToolCall("1", "grep", arguments), context)).content

    left_out = "[1 match left out, as rules guard the files]"
    assert (await grep("src")).split("\n") == ["src/app/core.py:2:     return 'main'", left_out]
    assert (await grep("docs")).split("\n") == ["no match for main", left_out]
    assert await grep("docs/a file.md") == "docs/a file.md:1: # Main"


async def test_grep_says_when_matches_are_left_out(workspace: Path, call: Call) -> None:
    (workspace / "a").write_text("x\n" * 201)
    rows = (await call("grep", pattern="x")).content.split("\n")
    assert rows[-2:] == ["a:200: x", "[only the first 200 matches are shown]"]
    (workspace / "a").write_text("x\n" * 200)
    assert (await call("grep", pattern="x")).content.endswith("a:200: x")


async def test_a_long_line_is_clipped(workspace: Path, call: Call) -> None:
    (workspace / "a").write_text("x" * 900)
    content = (await call("grep", pattern="x")).content
    assert content == f"a:1: {'x' * 400} [... 500 characters left out ...]"


@pytest.mark.parametrize(
    ("name", "arguments", "start"),
    [
        ("grep", {"pattern": "("}, "error: pattern: "),
        ("grep", {"pattern": ""}, 'error: "pattern" is empty'),
        ("grep", {"pattern": "x", "path": "nowhere"}, "error: nowhere: no such file"),
        ("grep", {"pattern": "a\0b"}, "error: pattern: cannot hold a zero byte"),
        ("grep", {"pattern": "x", "path": "/dev/zero"}, "error: /dev/zero: not a regular file"),
        ("glob", {"pattern": ""}, 'error: "pattern" is empty'),
        ("glob", {"pattern": "*", "path": "nowhere"}, "error: nowhere: "),
    ],
)
async def test_faults(call: Call, name: str, arguments: dict[str, str], start: str) -> None:
    result = await call(name, **arguments)
    assert result.outcome is Outcome.ERROR and result.content.startswith(start)


async def test_a_pattern_that_looks_like_an_option(workspace: Path, call: Call) -> None:
    (workspace / "a").write_text("run --help\n")
    assert (await call("grep", pattern="--help")).content == "a:1: run --help"


async def test_totals_for_the_screen(workspace: Path, call: Call) -> None:
    (workspace / "a").write_text("x\n" * 201)
    (workspace / "b").write_text("y\n" * 200)
    assert (await call("grep", pattern="x")).data == {"matches": 200, "more": True}
    assert (await call("grep", pattern="y")).data == {"matches": 200, "more": False}
    assert (await call("grep", pattern="z")).data == {"matches": 0, "more": False}
    assert (await call("glob", pattern="*")).data == {"entries": 2, "more": False}
