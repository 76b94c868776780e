"""run_tests, run_build and run_lint choose and run the right command for each project."""

from __future__ import annotations

import json
import re
import shutil
import sys
import venv as venv_module
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from agentcli.messages import Outcome, ToolCall, ToolResult
from agentcli.tools.base import Checks, ToolContext
from agentcli.tools.commands import command_to_build, command_to_lint, command_to_test
from agentcli.tools.registry import Registry
from tests.running import pytest_ini
from tests.tools.conftest import TOOLS, Call

Fill = Callable[[Mapping[str, str]], None]
PYTEST = "$ python -m pytest -q --tb=short --no-header -p no:cacheprovider"
TEST = "from calc import double\n\n\ndef test_double():\n    assert double(2) == 4\n"
CALC = "def double(x):\n    return x + x\n"
UNITTEST = """\
import unittest

from calc import double


class DoubleTest(unittest.TestCase):
    def test_double(self):
        self.assertEqual(double(2), 4)


if __name__ == "__main__":
    unittest.main()
"""


@pytest.fixture
def fill(workspace: Path) -> Fill:
    """Writes files to the workspace."""

    def write(files: Mapping[str, str]) -> None:
        for name, text in files.items():
            path = workspace / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return write


def lines(result: ToolResult) -> list[str]:
    return result.content.split("\n")


async def planned(context: ToolContext, path: str | None = None) -> str:
    """The command that run_tests would run."""
    command = await command_to_test(context.environment, path)
    assert command is not None
    return command.shown or " ".join(command.argv)


# Python


async def test_pytest_passes(workspace: Path, fill: Fill, call: Call) -> None:
    fill({"calc.py": CALC, "test_calc.py": TEST})
    result = await call("run_tests")
    assert result.outcome is Outcome.OK
    assert lines(result)[:2] == ["tests passed", PYTEST]
    assert "1 passed" in lines(result)[-1]
    assert not list(workspace.rglob("__pycache__")) and not (workspace / ".pytest_cache").exists()


async def test_pytest_fails(fill: Fill, call: Call) -> None:
    fill({"calc.py": CALC.replace("x + x", "x"), "tests/test_calc.py": TEST, **pytest_ini()})
    result = await call("run_tests", path="tests/test_calc.py::test_double")
    assert result.outcome is Outcome.FAILED and result.data["exit_code"] == 1
    assert lines(result)[:2] == [
        "tests failed (exit code 1)",
        f"{PYTEST} tests/test_calc.py::test_double",
    ]
    assert "assert 2 == 4" in result.content


async def test_an_edit_within_the_same_second_is_seen(fill: Fill, call: Call) -> None:
    # Python reuses bytecode if second and size match, so the tests must not write any.
    wrong = "def double(x):\n    return x * 3\n"
    fill({"calc.py": wrong, "test_calc.py": TEST, **pytest_ini()})
    assert (await call("run_tests")).outcome is Outcome.FAILED
    fill({"calc.py": wrong.replace("3", "2")})
    assert (await call("run_tests")).outcome is Outcome.OK


async def test_a_package_in_src_is_found(fill: Fill, call: Call) -> None:
    fill({"src/calc/__init__.py": CALC, "tests/test_calc.py": TEST, "pyproject.toml": ""})
    result = await call("run_tests")
    assert lines(result)[:2] == ["tests passed", f"$ PYTHONPATH=src {PYTEST.removeprefix('$ ')}"]


@pytest.mark.parametrize(
    ("files", "arguments"),
    [
        (["test_calc.py"], "discover"),
        (["tests/test_calc.py"], "discover -s tests"),
        (["tests/__init__.py", "tests/test_calc.py"], "discover -s tests -t ."),
        (["checks/calc_test.py"], "discover -s checks -p '*_test.py'"),
    ],
)
async def test_unittest_finds_its_tests(
    fill: Fill, call: Call, files: list[str], arguments: str
) -> None:
    fill(
        {
            "calc.py": CALC,
            **{name: UNITTEST if "test_" in name or "_test" in name else "" for name in files},
        }
    )
    fill({name: "" for name in files if name.endswith("__init__.py")})
    result = await call("run_tests")
    assert lines(result)[:2] == ["tests passed", f"$ python -m unittest {arguments}"]
    assert "Ran 1 test" in result.content


@pytest.mark.parametrize(
    ("path", "arguments"),
    [
        ("tests/test_calc.py", "tests/test_calc.py"),
        ("tests/test_calc.py::DoubleTest", "tests.test_calc.DoubleTest"),
        ("tests/test_calc.py::DoubleTest::test_double", "tests.test_calc.DoubleTest.test_double"),
        ("tests", "discover -s tests"),
    ],
)
async def test_unittest_of_one_path(fill: Fill, call: Call, path: str, arguments: str) -> None:
    fill({"calc.py": CALC, "tests/test_calc.py": UNITTEST})
    result = await call("run_tests", path=path)
    assert lines(result)[:2] == ["tests passed", f"$ python -m unittest {arguments}"]
    assert "Ran 1 test" in result.content


@pytest.mark.parametrize(
    ("files", "runs"),
    [
        (["tests/unit/test_a.py"], ["-s tests/unit"]),
        (["alpha/tests/test_a.py", "beta/tests/test_a.py"], ["-s alpha/tests", "-s beta/tests"]),
        (["test_a.py", "tests/test_b.py"], ["", "-s tests"]),
        (["test_a.py", "more/__init__.py", "more/test_b.py"], [""]),
        (
            ["a/test_a.py", "a/sub/__init__.py", "a/sub/test_b.py", "b/test_c.py"],
            ["-s a", "-s b"],
        ),
        (
            ["p/q/__init__.py", "p/q/test_a.py", "t/a_test.py"],
            ["-s p/q -t p", "-s t -p '*_test.py'"],
        ),
        (["-t/u/test_a.py"], ["-s ./-t/u"]),
    ],
)
async def test_unittest_finds_tests_in_folders_that_are_no_packages(
    fill: Fill, call: Call, files: list[str], runs: list[str]
) -> None:
    fill({"calc.py": CALC, **{name: UNITTEST for name in files}})
    fill({name: "" for name in files if name.endswith("__init__.py")})
    result = await call("run_tests")
    shown = "; ".join(f"python -m unittest discover {run}".rstrip() for run in runs)
    assert lines(result)[:2] == ["tests passed", f"$ {shown}"]
    count = sum("test_" in name or "_test" in name for name in files)
    assert sum(int(n) for n in re.findall(r"Ran (\d+) test", result.content)) == count


async def test_one_failure_among_several_runs_fails(fill: Fill, call: Call) -> None:
    fill({"calc.py": CALC, "b/tests/test_b.py": UNITTEST})
    fill({"a/tests/test_a.py": UNITTEST.replace("4", "5")})
    result = await call("run_tests")
    assert lines(result)[0] == "tests failed (exit code 1)"
    assert result.outcome is Outcome.FAILED and result.content.count("Ran 1 test") == 2
    result = await call("run_tests", path="b")
    assert lines(result)[:2] == ["tests passed", "$ python -m unittest discover -s b/tests"]


@pytest.mark.parametrize(
    ("files", "path"),
    [
        ({"test_calc.py": "import unittest\n"}, None),
        ({"test_calc.py": UNITTEST, "docs/x": ""}, "docs"),
        ({"test_calc.py": "x = 1\n"}, None),  # for pytest
        ({"test_calc.py": TEST, "calc.py": CALC, "conftest.py": "", "docs/x": ""}, "docs"),
        ({"Makefile": "test:\n\t@python -m unittest discover\n"}, None),
    ],
)
async def test_no_test_was_run(
    fill: Fill, call: Call, files: dict[str, str], path: str | None
) -> None:
    fill(files)
    result = await call("run_tests", **({"path": path} if path else {}))
    assert result.outcome is Outcome.FAILED
    assert lines(result)[0] == "tests failed (no tests were run)"


CARGO = "running {} test{}\n\ntest result: ok. {} passed; 0 failed; 0 ignored; 0 measured\n"


@pytest.mark.parametrize(
    ("printed", "some"),
    [
        (CARGO.format(0, "s", 0) * 2, False),
        (CARGO.format(0, "s", 0) + CARGO.format(1, "", 1), True),
        ("?   \tx.org/a\t[no test files]\nok  \tx.org/b\t0.002s [no tests to run]\n", False),
        ("?   \tx.org/a\t[no test files]\nok  \tx.org/b\t0.002s\n", True),
        ("?   \tx.org/a\t[no test files]\nok  \tx.org/b\t(cached)\n", True),
        ("TAP version 13\n1..0\n# tests 0\n# suites 0\n# pass 0\n", False),
        ("\u2139 tests 2\n\u2139 suites 0\n\u2139 pass 2\n", True),
        ("Test project /x\nNo tests were found!!!\n", False),
        ("No tests were found!!!\n100% tests passed, 0 tests failed out of 2\n", True),
    ],
)
async def test_no_test_was_run_in_another_language(
    fill: Fill, call: Call, printed: str, some: bool
) -> None:
    fill({"Makefile": "test:\n\t@cat printed\n", "printed": printed})
    verdict = "tests passed" if some else "tests failed (no tests were run)"
    assert lines(await call("run_tests"))[0] == verdict


async def test_skipped_tests_are_no_failure(fill: Fill, call: Call) -> None:
    skipped = "import unittest\n\n\n@unittest.skip('later')\nclass T(unittest.TestCase):\n"
    fill({"test_a.py": skipped + "    def test_a(self):\n        pass\n"})
    assert lines(await call("run_tests"))[0] == "tests passed"
    broken = "    @classmethod\n    def setUpClass(cls):\n        raise ValueError\n"
    fill({"test_a.py": UNITTEST.replace("    def", broken + "    def", 1), "calc.py": CALC})
    assert lines(await call("run_tests"))[0] == "tests failed (exit code 1)"


# A virtual environment in the workspace that cannot run the tests


@pytest.fixture
def venv(workspace: Path) -> Path:
    """A virtual environment without pytest, but with a module of its own."""
    folder = workspace / ".venv"
    venv_module.create(folder, symlinks=True)
    (next(folder.glob("lib/python*/site-packages")) / "own.py").write_text("")
    return folder


async def test_unittest_runs_with_the_workspaces_own_interpreter(
    venv: Path, fill: Fill, call: Call
) -> None:
    fill({"test_calc.py": f"import own\n{UNITTEST}", "calc.py": CALC, "conftest.py": ""})
    result = await call("run_tests")
    assert lines(result)[:3] == [
        "tests passed",
        "$ .venv/bin/python -m unittest discover",
        "[pytest is not installed in .venv]",
    ]


@pytest.mark.parametrize("broken", [False, True])
async def test_another_interpreter_than_the_workspaces_own_is_named(
    venv: Path, fill: Fill, call: Call, broken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentcli.tools.python._OTHERS", (sys.executable,))
    fill({"test_calc.py": TEST, "calc.py": CALC, **pytest_ini()})
    if broken:
        (venv / "bin/python").unlink()
        (venv / "bin/python").symlink_to("nowhere")
    result = await call("run_tests")
    reason = ".venv/bin/python does not start" if broken else "pytest is not installed in .venv"
    assert lines(result)[:3] == [
        "tests passed",
        PYTEST.replace("python", sys.executable, 1),
        f"[{reason}; ran with {sys.executable}]",
    ]


async def test_unittest_fails(fill: Fill, call: Call) -> None:
    fill({"calc.py": CALC.replace("x + x", "x"), "test_calc.py": UNITTEST})
    result = await call("run_tests")
    assert result.outcome is Outcome.FAILED and lines(result)[0] == "tests failed (exit code 1)"
    assert "AssertionError: 2 != 4" in result.content


async def test_a_configured_pytest_runs_unittest_cases_too(
    fill: Fill, context: ToolContext
) -> None:
    fill({"test_calc.py": UNITTEST, "pyproject.toml": "[tool.pytest.ini_options]\n"})
    assert (await planned(context)).startswith("python -m pytest")


# Which files decide the command


@pytest.mark.parametrize(
    ("files", "command"),
    [
        ({"Cargo.toml": ""}, "cargo test"),
        ({"go.mod": ""}, "go test ./..."),
        ({"package.json": '{"scripts": {"test": "jest"}}'}, "npm run test"),
        ({"package.json": '{"scripts": {"test": "jest"}}', "yarn.lock": ""}, "yarn run test"),
        ({"Makefile": "all:\n\ntest: all\n\t./check\n"}, "make test"),
        ({"Cargo.toml": "", "Makefile": "test:\n"}, "cargo test"),
        ({"package.json": '{"scripts": {"test": "jest"}}', "tools/test_x.py": ""}, "npm run test"),
        ({"tox.ini": "[pytest]\n", "package.json": '{"scripts": {"test": "jest"}}'}, PYTEST[2:]),
        ({"package.json": "not json", "pyproject.toml": "[not toml", "test_x.py": ""}, PYTEST[2:]),
    ],
)
async def test_the_kind_of_project_decides(
    fill: Fill, context: ToolContext, files: dict[str, str], command: str
) -> None:
    fill(files)
    assert await planned(context) == command


@pytest.mark.parametrize(
    ("files", "path", "command"),
    [
        ({"go.mod": "", "pkg/a/a_test.go": ""}, "pkg/a/a_test.go", "go test ./pkg/a"),
        ({"go.mod": "", "pkg/a/a_test.go": ""}, "pkg", "go test ./pkg/..."),
        (
            {"package.json": '{"scripts": {"test": "jest"}}', "a.test.js": ""},
            "a.test.js",
            "npm run test -- a.test.js",
        ),
    ],
)
async def test_a_path_narrows_other_tests(
    fill: Fill, context: ToolContext, files: dict[str, str], path: str, command: str
) -> None:
    fill(files)
    assert await planned(context, path) == command


@pytest.mark.parametrize(
    ("files", "note"),
    [
        ({"pyproject.toml": "", "test_x.py": ""}, "also found: npm run test (not run)"),
        ({"test_x.py": ""}, "also found: 1 Python test file (not run)"),
        ({"pyproject.toml": ""}, None),
    ],
)
async def test_tests_of_another_language_are_named(
    fill: Fill, context: ToolContext, files: dict[str, str], note: str | None
) -> None:
    fill({"package.json": '{"scripts": {"test": "jest"}}', **files})
    command = await command_to_test(context.environment)
    assert command is not None and command.notes == ((note,) if note else ())


async def test_the_answer_says_what_was_not_run(fill: Fill, call: Call) -> None:
    fill({"package.json": '{"scripts": {"test": "jest"}}', "setup.cfg": "", "calc.py": CALC})
    fill({"test_calc.py": UNITTEST})
    result = await call("run_tests")
    assert lines(result)[2] == "[also found: npm run test (not run)]"


@pytest.mark.parametrize(
    ("makefile", "found"),
    [
        ("test check: build\n", True),
        ("check \\\n  test: build\n", True),
        ("$(BIN) test::\n", True),
        ("test check := build\n", False),
        ("test ::= build\n", False),
        ("check: test\n\ttest: x\n", False),
    ],
)
async def test_rules_with_several_targets(
    fill: Fill, context: ToolContext, makefile: str, found: bool
) -> None:
    fill({"Makefile": makefile})
    command = await command_to_test(context.environment)
    assert (command is not None and command.argv == ("make", "test")) is found


async def test_make_takes_no_path(fill: Fill, call: Call) -> None:
    fill({"Makefile": "test:\n\ttrue\n", "a.c": ""})
    result = await call("run_tests", path="a.c")
    assert result.content == "error: make test cannot be limited to a.c; leave path out"


async def test_no_tests_at_all(fill: Fill, call: Call) -> None:
    fill({"README.md": "", "package.json": '{"scripts": {"test": "echo no test specified"}}'})
    result = await call("run_tests")
    assert result.outcome is Outcome.ERROR and result.content.startswith("error: no tests found:")


async def test_a_path_that_is_not_there(fill: Fill, call: Call) -> None:
    fill({"test_calc.py": TEST})
    result = await call("run_tests", path="tests/test_calc.py::test_double")
    assert result.content == ("error: tests/test_calc.py::test_double: no such file")


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
async def test_make_runs(fill: Fill, call: Call) -> None:
    fill({"Makefile": "build:\n\t@echo built\ntest:\n\t@echo broken; false\nlint:\n\t@echo ok\n"})
    assert (await call("run_build")).content == "build passed\n$ make build\nbuilt"
    assert (await call("run_lint")).content == "lint passed\n$ make lint\nok"
    tests = await call("run_tests")
    assert lines(tests)[:3] == ["tests failed (exit code 2)", "$ make test", "broken"]


# Hanging tests and configured commands


async def test_a_hanging_test_is_ended(fill: Fill, context: ToolContext) -> None:
    fill({"Makefile": "test:\n\t@echo started; sleep 600\n"})
    for patience_s in (1, 20):  # on a busy machine, 1 s may end too early
        short = replace(context, check=replace(context.check, time_s=patience_s))
        result = await Registry(TOOLS).dispatch(ToolCall("1", "run_tests", "{}"), short)
        assert result.outcome is Outcome.FAILED and result.data["timed_out"] is True
        if "started" in result.content:
            break
    assert lines(result) == [f"tests timed out after {patience_s} s", "$ make test", "started"]


async def configured(context: ToolContext, name: str, path: str | None = None) -> ToolResult:
    own = Checks(test=("echo", "my tests"), build=("false",), lint=("echo", "my lint"))
    arguments = {"path": path} if path else {}
    call = ToolCall("1", name, json.dumps(arguments))
    return await Registry(TOOLS).dispatch(call, replace(context, checks=own))


async def test_the_configuration_goes_first(fill: Fill, context: ToolContext) -> None:
    fill({"test_calc.py": TEST, "Cargo.toml": ""})
    result = await configured(context, "run_tests", "test_calc.py")
    assert result.content == "tests passed\n$ echo 'my tests' test_calc.py\nmy tests test_calc.py"
    assert (await configured(context, "run_build")).content == "build failed (exit code 1)\n$ false"
    assert (await configured(context, "run_lint")).content == (
        "lint passed\n$ echo 'my lint'\nmy lint"
    )


async def test_a_program_that_is_not_there(context: ToolContext) -> None:
    missing = replace(context, checks=Checks(test=("no-such-program", "--all")))
    result = await Registry(TOOLS).dispatch(ToolCall("1", "run_tests"), missing)
    assert (result.outcome, result.content) == (
        Outcome.ERROR,
        "error: no-such-program --all cannot be run: no-such-program: no such program",
    )


# Build and lint


async def test_python_is_compiled_and_nothing_is_left_behind(
    workspace: Path, fill: Fill, call: Call
) -> None:
    fill({"a.py": CALC, ".venv/lib/broken.py": "def"})
    result = await call("run_build")
    assert (
        result.content == r"build passed"
        "\n"
        r"$ python -m compileall -q -f -x '/\.|/node_modules/' ."
    )
    fill({"b.py": "def broken(:\n"})
    result = await call("run_build")
    assert result.outcome is Outcome.FAILED and "b.py" in result.content
    assert not list(workspace.rglob("*.pyc"))


async def test_nothing_to_build(call: Call) -> None:
    result = await call("run_build")
    assert result.content.startswith("error: nothing to build was found:")


async def test_ruff_runs(workspace: Path, fill: Fill, call: Call) -> None:
    fill({"ruff.toml": "", "a.py": "import os\n", "b.py": CALC})
    result = await call("run_lint")
    assert result.outcome is Outcome.FAILED and "F401" in result.content
    assert lines(result)[0] == "lint failed (exit code 1)"
    assert (await call("run_lint", path="b.py")).outcome is Outcome.OK
    assert not (workspace / ".ruff_cache").exists()


@pytest.mark.parametrize(
    ("files", "command"),
    [
        ({"package.json": '{"scripts": {"lint": "eslint ."}}'}, "npm run lint"),
        ({"eslint.config.mjs": ""}, "npx --no-install eslint ."),
        ({"Cargo.toml": ""}, "cargo clippy"),
        ({"go.mod": ""}, "go vet ./..."),
        ({"Makefile": "lint:\n", "go.mod": ""}, "make lint"),
    ],
)
async def test_linters_of_other_projects(
    fill: Fill, context: ToolContext, files: dict[str, str], command: str
) -> None:
    fill(files)
    found = await command_to_lint(context.environment)
    assert found is not None and " ".join(found.argv) == command


@pytest.mark.parametrize(
    ("files", "command"),
    [
        ({"Cargo.toml": ""}, "cargo build"),
        ({"go.mod": ""}, "go build ./..."),
        ({"package.json": '{"scripts": {"build": "tsc"}}'}, "npm run build"),
        ({"Makefile": "all: x\n"}, "make"),
    ],
)
async def test_builds_of_other_projects(
    fill: Fill, context: ToolContext, files: dict[str, str], command: str
) -> None:
    fill(files)
    found = await command_to_build(context.environment)
    assert found is not None and " ".join(found.argv) == command


async def test_no_linter(call: Call) -> None:
    assert (await call("run_lint")).content.startswith("error: no linter found:")
