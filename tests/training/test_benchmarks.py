"""Public benchmarks as tasks: real tests fail on the faulty files and pass on the right ones."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from training.benchmarks import humanevalfix, quixbugs
from training.cases import Task

RECORD = {
    "task_id": "Python/7",
    "entry_point": "double_all",
    "prompt": "def half(x):\n    return x / 2\n\n\ndef double_all(values):\n",
    "canonical_solution": '    """Doubles."""\n    return [2 * v for v in values]\n',
    "buggy_solution": '    """Doubles."""\n    return [2 + v for v in values]\n',
}
ASSERTIONS = """
METADATA = {'author': 'x'}
def check(candidate):
    # simple
    assert True, "This prints if this assert fails"
    assert candidate([2]) == [4]
    assert candidate([]) == []
    assert candidate([3, 5]) == [6, 10], "several"
check(double_all)
"""
LOOP = """
def check(double_all):
    for x in range(5):
        assert half(double_all([x])[0]) == x
"""


def outcome(files: Mapping[str, str], folder: Path) -> tuple[int, int]:
    """(failed, passed) of a real test run."""
    folder.mkdir()
    for path, text in files.items():
        (folder / path).write_text(text)
    report = folder / "report.xml"
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    subprocess.run(argv, cwd=folder, capture_output=True, timeout=60)
    text = report.read_text()
    failed, tests = (
        int(text.split(f'{name}="')[1].split('"')[0]) for name in ("failures", "tests")
    )
    return failed, tests - failed


def results(task: Task, folder: Path) -> tuple[tuple[int, int], tuple[int, int]]:
    return outcome(task.files, folder / "wrong"), outcome(task.files_after, folder / "right")


@pytest.mark.parametrize(
    ("checks", "wrong", "right"), [(ASSERTIONS, (1, 2), (0, 3)), (LOOP, (1, 0), (0, 1))]
)
def test_humanevalfix(
    tmp_path: Path, checks: str, wrong: tuple[int, int], right: tuple[int, int]
) -> None:
    source = tmp_path / "humanevalpack.jsonl"
    source.write_text(json.dumps({**RECORD, "test": checks}) + "\n")
    ((name, task),) = humanevalfix(source)
    assert name == "humanevalfix-007"
    assert set(task.files) == {"double_all.py", "test_double_all.py"}
    assert results(task, tmp_path) == (wrong, right)


def test_quixbugs(tmp_path: Path) -> None:
    files = {
        "python_programs/gcd.py": "def gcd(a, b):\n    return gcd(b, a) if b else a\n",
        "correct_python_programs/gcd.py": "def gcd(a, b):\n    return gcd(b, a % b) if b else a\n",
        "json_testcases/gcd.json": "[[17, 0], 17]\n[[13, 26], 13]\n[[624129, 2061517], 18913]\n",
        "python_testcases/test_gcd.py": (
            "import pytest\n"
            "from load_testdata import load_json_testcases\n\n"
            "if pytest.use_correct:\n"
            "    from correct_python_programs.gcd import gcd\n"
            "else:\n"
            "    from python_programs.gcd import gcd\n\n"
            "testdata = load_json_testcases(gcd.__name__)\n\n\n"
            '@pytest.mark.parametrize("input_data,expected", testdata)\n'
            "def test_gcd(input_data, expected):\n"
            "    if not pytest.run_slow and input_data == [13, 26]:\n"
            '        pytest.skip("slow")\n'
            "    assert gcd(*input_data) == expected\n"
        ),
        "python_programs/no_tests.py": "",
    }
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    ((name, task),) = quixbugs(tmp_path)
    assert name == "quixbugs-001"
    assert results(task, tmp_path) == ((1, 2), (0, 3))  # the slow one is skipped, not failed
