"""Many kinds of repositories: edits keep the form of a file, and the checks decide."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Serve
from tests.running import Cli, pytest_ini, repository
from tests.server import Reply

PYTEST = "python -m pytest -q -p no:cacheprovider"
Calls = Sequence[tuple[str, Mapping[str, Any]]]


def nothing(folder: Path) -> None:
    """The default of ``prepare`` and ``look``."""


@dataclass(frozen=True)
class Case:
    """A repository, the calls of a model that fixes it, and the expected outcome.

    ``results`` are the first words of the tool results, in the order of the calls.
    """

    name: str
    files: Mapping[str, str | bytes]
    answers: Sequence[Calls]
    changed: Sequence[str]
    check: str = PYTEST
    results: Sequence[str] = ()
    after: Mapping[str, str | bytes] = field(default_factory=dict)
    prepare: Callable[[Path], None] = nothing
    look: Callable[[Path], None] = nothing


def replace(path: str, old: str, new: str) -> tuple[str, Mapping[str, Any]]:
    """A call to search_replace."""
    return ("search_replace", {"path": path, "old": old, "new": new})


TESTS: tuple[str, Mapping[str, Any]] = ("run_tests", {})

TWO_FILES = Case(
    "two files, edited in one answer",
    {
        "shapes.py": "SIDES = {'square': 3}\n",
        "area.py": "def area(side):\n    return side + side\n",
        "test_all.py": (
            "from area import area\nfrom shapes import SIDES\n\n\n"
            "def test_both():\n    assert SIDES['square'] == 4\n    assert area(3) == 9\n"
        ),
    },
    [
        [
            replace("shapes.py", "'square': 3", "'square': 4"),
            replace("area.py", "side + side", "side * side"),
        ],
        [TESTS],
    ],
    ["shapes.py", "area.py"],
    results=["replaced 1", "replaced 1", "tests passed"],
)

CRLF = Case(
    "CRLF line ends",
    {
        "dos.py": b"def one():\r\n    value = 2\r\n    return value\r\n",
        "test_dos.py": "import dos\n\n\ndef test_one():\n    assert dos.one() == 1\n",
    },
    [[replace("dos.py", "    value = 2\n    return value", "    value = 1\n    return value")]],
    ["dos.py"],
    after={"dos.py": b"def one():\r\n    value = 1\r\n    return value\r\n"},
)

TABS = Case(
    "tabs",
    {
        "tabs.py": "def pick(a, b):\n\tif a > b:\n\t\treturn b\n\treturn b\n",
        "test_tabs.py": "import tabs\n\n\ndef test_pick():\n    assert tabs.pick(2, 1) == 2\n",
    },
    [
        [replace("tabs.py", "        return b\n    return b", "x")],
        [replace("tabs.py", "\t\treturn b\n", "\t\treturn a\n")],
    ],
    ["tabs.py"],
    results=["old text not found in tabs.py", "replaced 1 occurrence in tabs.py at line 3"],
    after={"tabs.py": "def pick(a, b):\n\tif a > b:\n\t\treturn a\n\treturn b\n"},
)

SPACES = Case(
    "names with spaces and other letters",
    {
        "my data/größe 1.txt": "wrong\n",
        "test_data.py": (
            "from pathlib import Path\n\n\n"
            "def test_it():\n    assert Path('my data/größe 1.txt').read_text() == 'right\\n'\n"
        ),
    },
    [
        [("glob", {"pattern": "**/*.txt"})],
        [replace("my data/größe 1.txt", "wrong", "right"), TESTS],
    ],
    ["my data/größe 1.txt"],
    results=["my data/größe 1.txt", "replaced 1"],
)

SRC = Case(
    "a package in src",
    {
        **pytest_ini("src"),
        "src/greeter/__init__.py": "from greeter.words import hello\n\n__all__ = ['hello']\n",
        "src/greeter/words.py": "def hello(name):\n    return f'Hello {name}'\n",
        "tests/test_hello.py": (
            "from greeter import hello\n\n\n"
            "def test_hello():\n    assert hello('A') == 'Hello, A!'\n"
        ),
    },
    [
        [("run_tests", {"path": "tests/test_hello.py"})],
        [replace("src/greeter/words.py", "f'Hello {name}'", "f'Hello, {name}!'")],
        [("run_tests", {"path": "tests/test_hello.py"})],
    ],
    ["src/greeter/words.py"],
    results=["tests failed (exit code 1)", "replaced 1", "tests passed"],
)

HANGING = Case(
    "a test that hangs",
    {
        "wait.py": "def wait(flag):\n    while not flag:\n        pass\n    return True\n",
        "test_wait.py": "import wait\n\n\ndef test_wait():\n    assert wait.wait([]) is False\n",
    },
    [
        [("shell", {"command": PYTEST, "timeout_s": 4})],
        [("read_file", {"path": "wait.py"})],
        [
            (
                "write_file",
                {"path": "wait.py", "content": "def wait(flag):\n    return bool(flag)\n"},
            )
        ],
    ],
    ["wait.py"],
    results=["timed out after 4 s", "1\tdef wait(flag):", "wrote wait.py (2 lines)"],
)

UNITTEST = Case(
    "unittest instead of pytest",
    {
        "calc.py": "def double(n):\n    return n + n + 1\n",
        "test_calc.py": (
            "import unittest\n\nfrom calc import double\n\n\n"
            "class Double(unittest.TestCase):\n"
            "    def test_it(self):\n        self.assertEqual(double(2), 4)\n"
        ),
    },
    [[replace("calc.py", "n + n + 1", "n + n")]],
    ["calc.py"],
    check="python -m unittest -q",
)

LATIN = Case(
    "a latin-1 file",
    {
        "menu.txt": "café 3\nthé 2\n".encode("latin-1"),
        "test_menu.py": (
            "from pathlib import Path\n\n\ndef test_menu():\n"
            "    assert Path('menu.txt').read_text('latin-1') == 'café 4\\nthé 2\\n'\n"
        ),
    },
    [[("read_file", {"path": "menu.txt"})], [replace("menu.txt", "café 3", "café 4")]],
    ["menu.txt"],
    results=["1\tcafé 3\n2\tthé 2"],
    after={"menu.txt": "café 4\nthé 2\n".encode("latin-1")},
)

UTF16 = Case(
    "a UTF-16 file with its byte order mark",
    {
        "names.csv": "id;name\r\n1;Zoë\r\n".encode("utf-16"),
        "test_names.py": (
            "from pathlib import Path\n\n\ndef test_names():\n"
            "    assert '1;Chloë' in Path('names.csv').read_text('utf-16')\n"
        ),
    },
    [[replace("names.csv", "1;Zoë", "1;Chloë")]],
    ["names.csv"],
    after={"names.csv": "id;name\r\n1;Chloë\r\n".encode("utf-16")},
)


def _executable(folder: Path) -> None:
    (folder / "tool.sh").chmod(0o750)


def _still_executable(folder: Path) -> None:
    assert stat.S_IMODE((folder / "tool.sh").stat().st_mode) == 0o750


MODE = Case(
    "a script keeps its mode",
    {"tool.sh": "#!/bin/sh\nexit 3\n"},
    [[replace("tool.sh", "exit 3", "exit 0"), ("shell", {"command": "./tool.sh"})]],
    ["tool.sh"],
    check="./tool.sh",
    results=["replaced 1", "exit code 0"],
    prepare=_executable,
    look=_still_executable,
)


def _link(folder: Path) -> None:
    (folder / "config.ini").symlink_to("real/config.ini")


def _still_a_link(folder: Path) -> None:
    assert os.readlink(folder / "config.ini") == "real/config.ini"


SYMLINK = Case(
    "an edit through a symbolic link",
    {"real/config.ini": "[a]\non = no\n"},
    [[replace("config.ini", "on = no", "on = yes")]],
    ["config.ini", "real/config.ini"],
    check="grep -q 'on = yes' real/config.ini",
    after={"real/config.ini": "[a]\non = yes\n"},
    prepare=_link,
    look=_still_a_link,
)

MAKE = Case(
    "a project with make",
    {
        "Makefile": "all:\n\t@test -f done.txt\n\ntest: all\n\t@grep -q yes done.txt\n",
        "README": "make, then make test\n",
    },
    [
        [("run_build", {})],
        [("write_file", {"path": "done.txt", "content": "yes\n"})],
        [("run_build", {}), TESTS],
    ],
    ["done.txt"],
    check="make test",
    results=[
        "build failed (exit code 2)",
        "created done.txt (1 line)",
        "build passed",
        "tests passed",
    ],
)

CASES = [
    *(TWO_FILES, CRLF, TABS, SPACES, SRC, HANGING, UNITTEST, LATIN, UTF16, MODE, SYMLINK, MAKE),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_kind(case: Case, cli: Cli, serve: Serve, workspace: Path) -> None:
    ini = pytest_ini() if case.check == PYTEST else {}
    repository(workspace, {**ini, **case.files})
    case.prepare(workspace)
    server = serve([*(Reply(calls=calls) for calls in case.answers), Reply(text="Done.")])
    cli.server = server.url
    ended = cli.run(
        *("run", "-p", "Make it work.", "--model", "openai:scripted", "--output", "json"),
        *("--workspace", str(workspace), "--check", case.check),
    )
    results = [
        message["content"]
        for message in server.requests[-1].json["messages"]
        if message["role"] == "tool"
    ]
    assert ended.code == 0, (ended.out, ended.err, results)
    assert sorted(ended.json["files_changed"]) == sorted(case.changed)
    for result, beginning in zip(results, case.results, strict=False):
        assert result.startswith(beginning)
    for name, content in case.after.items():
        expected = content.encode() if isinstance(content, str) else content
        assert (workspace / name).read_bytes() == expected
    case.look(workspace)
    assert server.faults == [] and server.left == 0
