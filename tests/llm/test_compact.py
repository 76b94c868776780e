"""Shortened tool results for small models."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from agentcli.llm.compact import MAX_MATCHES, RESULT_CHARS, compact

PYTEST = """tests failed (exit code 1)
$ python -m pytest -q --tb=short --no-header -p no:cacheprovider
F.F                                                                      [100%]
=================================== FAILURES ===================================
__________________________________ test_mean ___________________________________
test_stats.py:6: in test_mean
    assert mean([1, 2, 3]) == 2
E   assert 3.0 == 2
E    +  where 3.0 = mean([1, 2, 3])
__________________________________ test_word ___________________________________
test_stats.py:14: in test_word
    assert word("A b") == ["a", "b"]
           ^^^^^^^^^^^
stats.py:13: in word
    return [w.lowr() for w in s.split()]
            ^^^^^^
E   AttributeError: 'str' object has no attribute 'lowr'
=========================== short test summary info ============================
FAILED test_stats.py::test_mean - assert 3.0 == 2
FAILED test_stats.py::test_word - AttributeError: 'str' object has no attribu...
2 failed, 1 passed in 0.05s"""


def test_failures_of_pytest() -> None:
    assert compact("run_tests", PYTEST).split("\n") == [
        "tests failed (exit code 1)",
        "test_mean",
        "test_stats.py:6: in test_mean",
        "    assert mean([1, 2, 3]) == 2",
        "E   assert 3.0 == 2",
        "E    +  where 3.0 = mean([1, 2, 3])",
        "test_word",
        "test_stats.py:14: in test_word",
        '    assert word("A b") == ["a", "b"]',
        "stats.py:13: in word",
        "    return [w.lowr() for w in s.split()]",
        "E   AttributeError: 'str' object has no attribute 'lowr'",
        "FAILED test_stats.py::test_mean",
        "FAILED test_stats.py::test_word",
        "2 failed, 1 passed",
    ]


def test_a_pass_is_two_lines() -> None:
    text = "tests passed\n$ python -m pytest -q\n....   [100%]\n4 passed in 0.01s"
    assert compact("run_tests", text) == "tests passed\n4 passed"


def test_unittest_reads_like_pytest(tmp_path: Path) -> None:
    (tmp_path / "calc.py").write_text("def add(a, b):\n    return a - b\n")
    (tmp_path / "test_calc.py").write_text(
        "import unittest\n\nfrom calc import add\n\n\nclass AddTest(unittest.TestCase):\n"
        "    def test_add(self):\n        self.assertEqual(add(1, 2), 3)\n\n"
        "    def test_zero(self):\n        self.assertEqual(add(1, 0), 1)\n"
    )
    run = subprocess.run(
        [sys.executable, "-m", "unittest", "discover"], cwd=tmp_path, capture_output=True, text=True
    )
    text = f"tests failed (exit code 1)\n$ python -m unittest discover\n[stderr]\n{run.stderr}"
    assert compact("run_tests", text).split("\n") == [
        "tests failed (exit code 1)",
        "test_add",
        "test_calc.py:8: in test_add",
        "    self.assertEqual(add(1, 2), 3)",
        "E   AssertionError: -1 != 3",
        "FAILED test_calc.py::AddTest::test_add",
        "1 failed, 1 passed",
    ]


def test_paths_outside_and_addresses_are_left_out() -> None:
    block = """tests failed (exit code 2)
$ x
=== ERRORS ===
____ ERROR collecting test_a.py ____
ImportError while importing test module '/home/me/w/test_a.py'.
Hint: make sure your test modules/packages have valid Python names.
Traceback:
/usr/lib/python3.12/importlib/__init__.py:90: in import_module
    return _bootstrap._gcd_import(name[level:], package, level)
test_a.py:1: in <module>
    from a import f
E   ImportError: cannot import name 'f' from 'a' (/home/me/w/a.py)
=== short test summary info ===
ERROR test_a.py
!!!!!!!!!!! Interrupted: 1 error during collection !!!!!!!!!!!
1 error in 0.06s"""
    assert compact("run_tests", block).split("\n") == [
        "tests failed (exit code 2)",
        "ERROR collecting test_a.py",
        "test_a.py:1: in <module>",
        "    from a import f",
        "E   ImportError: cannot import name 'f' from 'a' (a.py)",
        "ERROR test_a.py",
        "1 error",
    ]
    line = "E   assert <a.F object at 0x7f5d68f8bce0> == 1"
    text = f"tests failed (exit code 1)\n=== FAILURES ===\n____ test_f ____\n{line}\n1 failed in 1s"
    assert "E   assert <a.F object> == 1" in compact("run_tests", text)


def test_a_run_without_a_report_keeps_its_end() -> None:
    text = "tests failed (exit code 4)\n$ pytest\nERROR: usage: bad option\n\nno tests ran in 0.00s"
    assert compact("run_tests", text).startswith("tests failed (exit code 4)\n")
    timed_out = "tests timed out after 600 s\n$ pytest\n..."
    assert compact("run_tests", timed_out).startswith("tests timed out after 600 s")


def test_many_failures_are_counted() -> None:
    blocks = "".join(f"____ test_{n} ____\nE   assert {n}\n" for n in range(20))
    names = "".join(f"FAILED test_a.py::test_{n} - assert {n}\n" for n in range(20))
    report = f"=== FAILURES ===\n{blocks}=== s ===\n{names}20 failed in 1s"
    text = f"tests failed (exit code 1)\n$ x\n{report}"
    lines = compact("run_tests", text).split("\n")
    assert lines[1:7] == [
        "test_0",
        "E   assert 0",
        "test_1",
        "E   assert 1",
        "test_2",
        "E   assert 2",
    ]
    assert lines[-2:] == ["[15 more failed]", "20 failed"]


def test_long_results() -> None:
    rows = "\n".join(f"{n}\tx = {n}" for n in range(1, 2000))
    read = compact("read_file", rows)
    assert len(read) <= RESULT_CHARS + 40
    last = read.split("\n")[-2].split("\t")[0]
    assert read.endswith(f"\n[read on with start={int(last) + 1}]")
    shell = compact("shell", "exit code 0\n" + "y" * 100 + "\n" * 1 + "line\n" * 5000)
    assert len(shell) < RESULT_CHARS + 60 and "characters left out" in shell
    matches = compact("grep", "\n".join(f"a.py:{n}: x" for n in range(100)))
    assert matches.count("\n") == MAX_MATCHES
    assert compact("read_file", "1\tshort") == "1\tshort"


SUBTESTS = """tests failed (exit code 1)
$ python -m pytest
_______ ScoreTest.test_straights (category='small straight', dice=[1, 2]) _______
test_dice.py:10: in check
    self.assertEqual(score(dice), want)
E   AssertionError: 0 != 30
__ ScoreTest.test_straights (category='large straight', dice=[5, 2]) __
test_dice.py:10: in check
    self.assertEqual(score(dice), want)
E   AssertionError: 0 != 40
=========================== short test summary info ============================
SUBFAILED(category='small straight', dice=[1, 2]) test_dice.py::ScoreTest::test_straights - A...
SUBFAILED(category='large straight', dice=[5, 2]) test_dice.py::ScoreTest::test_straights - A...
2 failed, 8 passed, 3 subtests passed in 4.31s"""


def test_subtests_are_one_failure() -> None:
    assert compact("run_tests", SUBTESTS).split("\n") == [
        "tests failed (exit code 1)",
        "ScoreTest.test_straights",
        "test_dice.py:10: in check",
        "    self.assertEqual(score(dice), want)",
        "E   AssertionError: 0 != 30",
        "FAILED test_dice.py::ScoreTest::test_straights",
        "2 failed, 8 passed",
    ]
