"""Diffs as rows, unified and side by side."""

from __future__ import annotations

from agentcli.diff import unified_diff
from agentcli.tui.diff import counts, rows_of, side_by_side, unified

BEFORE = "a = 1\nb = 2\nc = 3\n"
AFTER = "a = 1\nb = 20\nbb = 2\nc = 3\n"


def test_rows_have_signs_and_numbers_of_both_sides() -> None:
    rows = rows_of(unified_diff(BEFORE, AFTER, "x.py"))
    assert [(row.sign, row.left, row.right, row.text.plain) for row in rows] == [
        ("f", 0, 0, "x.py"),
        (" ", 1, 1, "a = 1"),
        ("-", 2, 0, "b = 2"),
        ("+", 0, 2, "b = 20"),
        ("+", 0, 3, "bb = 2"),
        (" ", 3, 4, "c = 3"),
    ]


def test_a_removed_line_that_looks_like_a_header_is_a_line() -> None:
    rows = rows_of(unified_diff("-- old\n++ x\nend\n", "new\nend\n", "q.sql"))
    assert [row.text.plain for row in rows if row.sign == "-"] == ["-- old", "++ x"]


def test_a_renamed_file_has_one_title() -> None:
    renamed = (
        "diff --git a/short.py b/a/longer.py\nsimilarity index 90%\n"
        "rename from short.py\nrename to a/longer.py\nindex 0fdf397..72ce94f 100644\n"
    )
    hunk = "--- a/short.py\n+++ b/a/longer.py\n@@ -1 +1 @@\n-x\n+y\n"
    titles = [("f", "a/longer.py"), ("n", "renamed from short.py")]
    assert [(row.sign, row.text.plain) for row in rows_of(renamed)] == titles
    rows = [(row.sign, row.text.plain) for row in rows_of(renamed + hunk)]
    assert rows == [*titles, ("-", "x"), ("+", "y")]


def test_a_quoted_name_is_shown_without_its_quotes() -> None:
    quoted = 'diff --git "a/a \\"b" "b/a \\"b"\nnew file mode 100755\n'
    rows = [(row.sign, row.text.plain) for row in rows_of(quoted)]
    assert rows == [("f", 'a \\"b'), ("n", "new file mode 100755")]


def test_hunks_are_set_apart_and_files_named() -> None:
    before = "".join(f"line {n}\n" for n in range(60))
    after = before.replace("line 5\n", "five\n").replace("line 50\n", "fifty\n")
    rows = rows_of(unified_diff(before, after, "a.txt") + unified_diff("x\n", "y\n", "b.txt"))
    assert [row.text.plain for row in rows if row.sign == "f"] == ["a.txt", "b.txt"]
    assert sum(row.sign == "@" for row in rows) == 1


def test_a_huge_diff_says_that_it_is_not_whole() -> None:
    rows = rows_of(unified_diff(None, "x\n" * 5000, "x.py"))
    assert rows[-1].text.plain == "… more lines, which are not shown here"


def test_every_line_is_as_wide_as_it_may_be() -> None:
    rows = rows_of(unified_diff(BEFORE, AFTER + "漢字" * 60 + "\n", "x.py"))
    for line in unified([row for row in rows if row.sign not in "f@"], 40):
        assert line.cell_length == 40
    for line in side_by_side([row for row in rows if row.sign not in "f@"], 81):
        assert line.cell_length == 81


def test_nothing_of_a_long_line_is_out_of_sight() -> None:
    long = " ".join(f"word{number}" for number in range(40))
    rows = rows_of(unified_diff(BEFORE, f"{BEFORE}{long}\n", "x.py"))
    lines = [line.plain for line in unified(rows, 40) if " + " in line.plain]
    assert len(lines) > 6 and [line[:3].strip() for line in lines[:2]] == ["4 +", "+"]
    assert "".join(line.partition("+ ")[2] for line in lines).split() == long.split()


def test_side_by_side_puts_what_belongs_together_in_one_line() -> None:
    lines = [line.plain for line in side_by_side(rows_of(unified_diff(BEFORE, AFTER, "x.py")), 60)]
    (changed,) = [line for line in lines if "- b = 2 " in line]
    assert "b = 20" in changed


def test_control_characters_are_shown_not_sent() -> None:
    rows = rows_of(unified_diff("a\n", "\x1b[2Jb\u202e\n", "x\x1b.py"))
    text = "".join(row.text.plain for row in rows)
    assert "\x1b" not in text and "\u202e" not in text and "\\x1b" in text


def test_counts() -> None:
    assert counts(unified_diff(BEFORE, AFTER, "x.py")) == (2, 1)
    assert counts(unified_diff("-- old\nend\n", "++ new\nend\n", "q.sql")) == (1, 1)
    assert counts(unified_diff("x\n", "y\n", "a") + unified_diff(None, "z", "b")) == (2, 1)


def test_what_has_no_lines_is_told_and_each_file_named_once() -> None:
    diff = (
        "new folder made\n"
        "diff --git a/made/it b/made/it\nnew file mode 100644\n"
        "diff --git a/run.sh b/run.sh\nold mode 100644\nnew mode 100755\n"
        "--- a/run.sh\n+++ b/run.sh\n@@ -1 +1 @@\n-a\n+b\n"
        "diff --git a/gone.txt b/gone.txt\ndeleted file mode 100644\n"
        "--- a/gone.txt\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n"
        "diff --git a/raw b/raw\nBinary files a/raw and b/raw differ\n"
    )
    assert [(row.sign, row.text.plain) for row in rows_of(diff)] == [
        ("n", "new folder made"),
        ("f", "made/it"),
        ("n", "new file"),
        ("f", "run.sh"),
        ("n", "old mode 100644"),
        ("n", "new mode 100755"),
        ("-", "a"),
        ("+", "b"),
        ("f", "gone.txt"),
        ("n", "deleted file"),
        ("-", "x"),
        ("f", "raw"),
        ("n", "Binary files a/raw and b/raw differ"),
    ]
