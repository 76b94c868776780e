"""Unified diffs, verified by applying them with git."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unidiff.patch import PatchSet

from agentcli.diff import changed_tokens, unified_diff


def test_no_change_is_no_diff() -> None:
    assert unified_diff("a\n", "a\n", "x") == ""


def test_a_new_file() -> None:
    assert unified_diff(None, "a\n", "x") == "--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+a\n"


def test_a_last_line_without_an_end() -> None:
    assert unified_diff("a", "a\n", "x") == (
        "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+a\n"
    )


def test_a_changed_line_end_is_a_change() -> None:
    assert "-a\r\n+a\n" in unified_diff("a\r\n", "a\n", "x")


def test_changes_far_apart_are_two_hunks() -> None:
    before = [f"{n}\n" for n in range(5000)]
    after = list(before)
    after[10] = after[4990] = "changed\n"
    patch = PatchSet(unified_diff("".join(before), "".join(after), "x"))
    assert [(hunk.source_start, hunk.source_length) for hunk in patch[0]] == [(8, 7), (4988, 7)]


@pytest.mark.parametrize("lines", [10_000, 200_000])
def test_a_huge_change_is_cut_and_can_still_be_read(lines: int) -> None:
    before = "".join(f"old {n}\n" for n in range(lines))
    after = "".join(f"new {n}\n" for n in range(lines + 1))
    diff = unified_diff(before, after, "x")
    assert len(diff) <= 200_200
    assert PatchSet(diff)[0].removed > 1000


LINES = st.lists(st.sampled_from(["a\n", "b\n", "c\n", "\n", "a\r\n"]), max_size=25).map("".join)


@given(LINES, LINES, st.booleans())
def test_hunks_say_what_they_hold(before: str, after: str, cut: bool) -> None:
    if cut:
        after = after.rstrip("\n")
    diff = unified_diff(before, after, "x")
    if before == after:
        assert diff == ""
        return
    removed = [row[1:] for row in diff.split("\n")[2:] if row.startswith("-")]
    added = [row[1:] for row in diff.split("\n")[2:] if row.startswith("+")]
    patch = PatchSet(io.StringIO(diff, newline="\n"))
    assert sum(file.removed for file in patch) == len(removed)
    assert sum(file.added for file in patch) == len(added)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a\nb\nc\n", "a\nx\nc\n"),
        ("a\n" * 50, "a\n" * 20 + "b\n" + "a\n" * 31),
        ("", "a\nb"),
        ("a\nb", ""),
        ("1\n2\n3\n4\n5\n6\n7\n8\n9\n", "1\n2\n3\n4\nfive\n6\n7\n8\n9"),
    ],
)
def test_git_applies_it(tmp_path: Path, before: str, after: str) -> None:
    (tmp_path / "x").write_text(before)
    diff = unified_diff(before, after, "x")
    subprocess.run(["git", "apply", "-"], input=diff, text=True, cwd=tmp_path, check=True)
    assert (tmp_path / "x").read_text() == after


@pytest.mark.parametrize(
    ("old", "new", "gone", "come"),
    [
        ("a - 1", "a - 1", 0, 0),
        ("a - 1", "a  -\n1", 0, 0),  # whitespace is not a token
        ("return a - 1", "return a", 2, 0),
        ("return a - 1", "return a + 1", 1, 1),
        ("return a - 1", "return a if a else 0.0", 2, 6),
        ("f(a, b)", "f(b, a)", 0, 0),  # moved tokens do not count as changed
        ("a", "a + a", 0, 2),
        ("", "a", 0, 1),
    ],
)
def test_changed_tokens(old: str, new: str, gone: int, come: int) -> None:
    assert changed_tokens(old, new) == (gone, come)
    assert changed_tokens(new, old) == (come, gone)
