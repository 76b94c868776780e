"""execute_code: the fields of the result, limits, and what the code can reach."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentcli.sandbox.execute import execute_code
from agentcli.sandbox.limits import MIB
from agentcli.sandbox.process import Supervisor


async def test_success(supervisor: Supervisor) -> None:
    result = await execute_code("print('hello', 6 * 7)", supervisor=supervisor)
    assert result.success and result.stdout == "hello 42\n" and result.error is None
    assert not result.timeout and not result.memory_exceeded


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def", "SyntaxError: invalid syntax"),
        ("raise SystemExit(3)", "exit code 3"),
    ],
)
async def test_failure(code: str, error: str, supervisor: Supervisor) -> None:
    result = await execute_code(code, supervisor=supervisor)
    assert not result.success and result.error == error


async def test_timeout(supervisor: Supervisor) -> None:
    code = "print('before', flush=True)\nwhile True: pass"
    for patience_s in (2.0, 30.0):  # on a busy machine, 2 s may end too early
        result = await execute_code(code, patience_s, supervisor=supervisor)
        assert not result.success and result.timeout
        if result.stdout:
            break
    assert result.stdout == "before\n"


@pytest.mark.parametrize(
    "code", ["x = bytearray(400 * 2**20)", "x = []\nwhile True: x.append('y' * 10**6)"]
)
async def test_memory(code: str, supervisor: Supervisor) -> None:
    result = await execute_code(code, 20, 128 * MIB, supervisor=supervisor)
    assert not result.success and result.memory_exceeded and not result.timeout


async def test_nothing_outside_changes(supervisor: Supervisor, tmp_path: Path) -> None:
    target = tmp_path / "kept"
    target.write_text("kept")
    code = f"import os, shutil\nprint(os.listdir('.'))\nos.remove({str(target)!r})"
    result = await execute_code(code, supervisor=supervisor)
    assert not result.success and target.read_text() == "kept"
    assert result.stdout == "[]\n"


async def test_no_input_and_no_exit(supervisor: Supervisor) -> None:
    assert (await execute_code("input()", supervisor=supervisor)).error is not None
    killed = await execute_code("import os; os.kill(os.getppid(), 9); os._exit(0)")
    assert not killed.timeout  # and this process was not killed


async def test_output_is_bounded(supervisor: Supervisor) -> None:
    result = await execute_code("print('x' * 10**8)", 20, supervisor=supervisor)
    assert len(result.stdout) < 2 * MIB


async def test_a_minimal_environment(supervisor: Supervisor, monkeypatch: Any) -> None:
    monkeypatch.setenv("MY_API_KEY", "secret")
    code = "import os, sys\nprint(sorted(os.environ), os.environ['OMP_NUM_THREADS'], sys.argv)"
    result = await execute_code(code, supervisor=supervisor)
    assert "'OMP_NUM_THREADS'" in result.stdout and "] 1 [" in result.stdout, result.stderr
    assert "MY_API_KEY" not in result.stdout
