"""search_replace: exactly one match, nothing else changes, and a miss explains what to do."""

from __future__ import annotations

import codecs
import os
import random
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcli.environments.host import HostEnvironment
from agentcli.messages import Outcome
from agentcli.tools.base import ToolContext
from agentcli.tools.edit import Newlines, search_replace
from tests.tools.conftest import Call

STATS = """\
def mean(values):
    return sum(values) / len(values)


def median(values):
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle]
"""


@pytest.fixture
def stats(workspace: Path) -> Path:
    path = workspace / "stats.py"
    path.write_text(STATS)
    return path


async def test_the_one_occurrence_is_replaced(stats: Path, call: Call) -> None:
    result = await call(
        "search_replace",
        path="stats.py",
        old="    middle = len(ordered) // 2\n",
        new="    middle = (len(ordered) - 1) // 2\n",
    )
    assert result.content == "replaced 1 occurrence in stats.py at line 7"
    assert result.outcome is Outcome.OK and result.paths == ("stats.py",)
    assert stats.read_text() == STATS.replace("len(ordered) //", "(len(ordered) - 1) //")
    assert result.diff == (
        "--- a/stats.py\n+++ b/stats.py\n@@ -4,5 +4,5 @@\n \n def median(values):\n"
        "     ordered = sorted(values)\n-    middle = len(ordered) // 2\n"
        "+    middle = (len(ordered) - 1) // 2\n     return ordered[middle]\n"
    )


async def test_several_occurrences_are_refused_unless_all_are_meant(
    stats: Path, call: Call
) -> None:
    result = await call("search_replace", path="stats.py", old="values", new="numbers")
    assert result.outcome is Outcome.ERROR
    assert result.content == (
        "error: old text found more than once in stats.py, at lines 1, 2, 5, 6. "
        "Add lines around it so that it is found once, or set replace_all"
    )
    assert stats.read_text() == STATS
    result = await call(
        "search_replace", path="stats.py", old="values", new="numbers", replace_all=True
    )
    assert result.content == "replaced 5 occurrences in stats.py at lines 1, 2, 5, 6"
    assert stats.read_text() == STATS.replace("values", "numbers")


async def test_overlapping_occurrences_are_not_one(workspace: Path, call: Call) -> None:
    (workspace / "a").write_text("aaa")
    result = await call("search_replace", path="a", old="aa", new="b")
    assert "more than once" in result.content and (workspace / "a").read_text() == "aaa"


async def test_text_can_be_deleted(stats: Path, call: Call) -> None:
    await call("search_replace", path="stats.py", old="    ordered = sorted(values)\n", new="")
    assert "sorted" not in stats.read_text()


@pytest.mark.parametrize(
    ("arguments", "content"),
    [
        ({"old": "", "new": "x"}, 'error: "old" is empty; use write_file to create a file'),
        ({"old": "x", "new": "x"}, 'error: "old" and "new" are the same; nothing would change'),
    ],
)
async def test_calls_that_mean_nothing(
    stats: Path, call: Call, arguments: dict[str, str], content: str
) -> None:
    result = await call("search_replace", path="stats.py", **arguments)
    assert (result.outcome, result.content) == (Outcome.ERROR, content)


async def test_a_missing_file(call: Call) -> None:
    result = await call("search_replace", path="nope.py", old="a", new="b")
    assert result.content == "error: nope.py: no such file"


# What must not change


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    ("encoding", "bom"),
    [
        ("utf-8", b""),
        ("utf-8", codecs.BOM_UTF8),
        ("utf-16-le", codecs.BOM_UTF16_LE),
        ("utf-16-be", codecs.BOM_UTF16_BE),
        ("utf-16-le", b""),
        ("latin-1", b""),
    ],
)
async def test_line_ends_byte_order_mark_and_encoding_stay(
    workspace: Path, call: Call, newline: str, encoding: str, bom: bytes
) -> None:
    before = "# caf\xe9\nif x:\n    one()\n    two()\n".replace("\n", newline)
    (workspace / "a.py").write_bytes(bom + before.encode(encoding))
    result = await call(
        "search_replace",
        path="a.py",
        old="    one()\n    two()\n",
        new="    one()\n    # \xe9\n    three()\n",
    )
    assert result.content == "replaced 1 occurrence in a.py at line 3"
    after = "# caf\xe9\nif x:\n    one()\n    # \xe9\n    three()\n".replace("\n", newline)
    assert (workspace / "a.py").read_bytes() == bom + after.encode(encoding)


async def test_mixed_line_ends_stay_line_by_line(workspace: Path, call: Call) -> None:
    (workspace / "a").write_bytes(b"one\r\ntwo\nthree\r\nfour\n")
    await call("search_replace", path="a", old="one\ntwo\nthree\n", new="one\n2\nzwei\nthree\n")
    assert (workspace / "a").read_bytes() == b"one\r\n2\nzwei\nthree\r\nfour\n"


async def test_old_with_crlf_finds_lf_and_the_other_way_round(workspace: Path, call: Call) -> None:
    (workspace / "lf").write_bytes(b"a\nb\n")
    (workspace / "crlf").write_bytes(b"a\r\nb\r\n")
    await call("search_replace", path="lf", old="a\r\nb", new="a\r\nc")
    await call("search_replace", path="crlf", old="a\r\nb", new="a\r\nc")
    assert (workspace / "lf").read_bytes() == b"a\nc\n"
    assert (workspace / "crlf").read_bytes() == b"a\r\nc\r\n"


async def test_stray_bytes_stay(workspace: Path, call: Call) -> None:
    data = "日本語\n".encode() + b"bad \xff\xfe bytes\nx = 1\n"
    (workspace / "a").write_bytes(data)
    await call("search_replace", path="a", old="x = 1", new="x = 2")
    assert (workspace / "a").read_bytes() == data.replace(b"x = 1", b"x = 2")


async def test_the_mode_stays_and_a_link_stays_a_link(workspace: Path, call: Call) -> None:
    (workspace / "run.sh").write_text("echo a\n")
    (workspace / "run.sh").chmod(0o755)
    (workspace / "link").symlink_to("run.sh")
    await call("search_replace", path="link", old="a", new="b")
    assert (workspace / "link").is_symlink()
    assert (workspace / "run.sh").read_text() == "echo b\n"
    assert (workspace / "run.sh").stat().st_mode & 0o777 == 0o755


async def test_a_character_that_the_encoding_lacks_is_refused(workspace: Path, call: Call) -> None:
    (workspace / "a").write_bytes(b"caf\xe9\n")
    result = await call("search_replace", path="a", old="caf", new="→")
    assert result.content == (
        "error: a is encoded in latin-1, which cannot hold '\\u2192' (character 1 of the text)"
    )
    assert (workspace / "a").read_bytes() == b"caf\xe9\n"


async def test_a_change_meanwhile_is_a_conflict(stats: Path, context: ToolContext) -> None:
    class Meddled(HostEnvironment):
        """An environment in which somebody else writes between a read and a write."""

        async def read(self, path: str, *, max_bytes: int | None = None) -> bytes:
            data = await super().read(path, max_bytes=max_bytes)
            stats.write_text("changed by the user\n")
            return data

    environment = Meddled(context.environment.root)
    await environment.start()
    try:
        with pytest.raises(Exception, match=r"stats\.py: changed since it was read"):
            await search_replace(ToolContext(environment), "stats.py", "sorted", "list")
    finally:
        await environment.aclose()
    assert stats.read_text() == "changed by the user\n"


PIECES = st.lists(st.sampled_from(["a", "b", "\n", "\r\n", "\r"]), max_size=30).map("".join)


@given(PIECES, st.data())
def test_only_what_was_asked_changes(text: str, data: st.DataObject) -> None:
    seen = Newlines(text)
    size = len(seen.plain)
    start = data.draw(st.integers(0, size))
    end = data.draw(st.integers(start, size))
    wanted = seen.plain[start:end]
    if not wanted:
        return
    replacement = data.draw(st.text(alphabet="ab\n", max_size=6))
    after = seen.replaced([start], wanted, replacement)
    plain = Newlines(after).plain if seen._mac == Newlines(after)._mac else after
    if "\r" not in text.replace("\r\n", ""):
        assert plain == seen.plain[:start] + replacement + seen.plain[end:]
    # The text before and after is unchanged, byte for byte.
    assert after.startswith(text[: seen._at(start)]) and after.endswith(text[seen._at(end) :])


# A miss explains what to do


@pytest.mark.parametrize(
    ("old", "says"),
    [
        (
            "   ordered = sorted(values)\n   middle = len(ordered) // 2",
            "The indentation of line 7 differs: the file has 4 spaces, old text has 3 spaces.",
        ),
        (
            "\tordered = sorted(values)",
            "The indentation of line 6 differs: the file has 4 spaces, old text has 1 tab.",
        ),
        (
            "def median(values): \n    ordered",
            "White space at the end of line 5 differs: the file has none, old text has 1 space.",
        ),
        (
            "ordered  = sorted( values )",
            "White space differs in line 6: the file has 'ordered = sorted(values)', "
            "old text has 'ordered  = sorted( values )'.",
        ),
        (
            "def Median(values):",
            "Upper and lower case differ in line 5: the file has 'def median(values):', "
            "old text has 'def Median(values):'.",
        ),
        (
            "    middle = len(ordered) / 2",
            "Line 7 differs at column 28: the file has '/', which is missing in old text.",
        ),
        (
            "    ordered = sorted(value)",
            "Line 6 differs at column 27: the file has 's', which is missing in old text.",
        ),
        (
            "    ordered = sorted(values)\n    middle = len(ordered) // 3\n    return",
            "Line 7 differs at column 30: the file has '2' where old text has '3'.",
        ),
        (
            "    middle = len(ordered) \u2212 2",
            "Characters differ in line 7 (U+2212 MINUS SIGN): the file has "
            "'middle = len(ordered) // 2', old text has 'middle = len(ordered) \u2212 2'.",
        ),
        (
            "len(ordered)  // 2",
            "White space differs in line 7: the file has 'len(ordered) // 2', "
            "old text has 'len(ordered)  // 2'.",
        ),
        (
            "    return ordered[middle]\n\n\ndef mode(values):\n    return 1",
            "The file ends after line 8; old text goes on.",
        ),
    ],
)
async def test_the_nearest_lines_and_what_differs(
    stats: Path, call: Call, old: str, says: str
) -> None:
    result = await call("search_replace", path="stats.py", old=old, new="x")
    first, *rows, last = result.content.split("\n")
    assert result.outcome is Outcome.ERROR and result.diff == ""
    assert first == "old text not found in stats.py. The nearest lines are:"
    file = STATS.split("\n")
    for row in rows:
        number, _, text = row.partition("\t")
        assert file[int(number) - 1] == text
    assert last == says
    assert stats.read_text() == STATS


async def test_indentation_alone_in_some_lines(stats: Path, call: Call) -> None:
    old = "def median(values):\n  ordered = sorted(values)\n  middle = len(ordered) // 2\n"
    result = await call("search_replace", path="stats.py", old=old, new="x")
    assert result.content == (
        "old text not found in stats.py. The nearest lines are:\n3\t\n4\t\n"
        "5\tdef median(values):\n6\t    ordered = sorted(values)\n"
        "7\t    middle = len(ordered) // 2\n8\t    return ordered[middle]\n"
        "The indentation of line 6 differs: the file has 4 spaces, old text has 2 spaces."
    )


async def test_a_missing_blank_line(stats: Path, call: Call) -> None:
    old = "    return sum(values) / len(values)\n\ndef median(values):"
    result = await call("search_replace", path="stats.py", old=old, new="x")
    assert result.content.endswith(
        "Line 4 differs: the file has '', old text has 'def median(values):'."
    )


async def test_copied_line_numbers(stats: Path, call: Call) -> None:
    old = "5\tdef median(values):\n6\t    ordered = sorted(values)"
    result = await call("search_replace", path="stats.py", old=old, new="x")
    assert result.content == (
        "error: old text not found in stats.py. It begins with line numbers, "
        "which are not part of the file: leave them out"
    )


async def test_escaped_once_too_often(stats: Path, call: Call) -> None:
    old = "def median(values):\\n    ordered = sorted(values)"
    result = await call("search_replace", path="stats.py", old=old, new="x")
    assert "It is escaped once too often" in result.content


async def test_nothing_alike(stats: Path, call: Call) -> None:
    result = await call("search_replace", path="stats.py", old="#include <stdio.h>", new="x")
    assert result.content == (
        "error: old text not found in stats.py, and no line resembles it. Read the file again"
    )


async def test_an_empty_file_resembles_nothing(workspace: Path, call: Call) -> None:
    (workspace / "a").touch()
    result = await call("search_replace", path="a", old="x\n\n", new="y")
    assert "no line resembles it" in result.content


async def test_a_miss_in_a_large_file_is_answered(workspace: Path, call: Call) -> None:
    letters = random.Random(0)
    lines = ["".join(letters.choices(string.ascii_lowercase, k=60)) for _ in range(80_000)]
    (workspace / "big").write_text("\n".join(lines))
    wanted = lines[70_000] + "\n" + lines[70_001].upper()
    result = await call("search_replace", path="big", old=wanted, new="x")
    assert f"70002\t{lines[70_001]}" in result.content
    assert "Upper and lower case differ in line 70002" in result.content


async def test_a_file_name_with_spaces_and_one_that_looks_like_an_option(
    workspace: Path, call: Call
) -> None:
    for name in ("my file.txt", "-rf"):
        (workspace / name).write_text("a\n")
        result = await call("search_replace", path=name, old="a", new="b")
        assert result.content == f"replaced 1 occurrence in {name} at line 1"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
async def test_a_read_only_file(stats: Path, call: Call) -> None:
    stats.chmod(0o444)
    result = await call("search_replace", path="stats.py", old="sorted", new="list")
    assert result.content == "error: stats.py: permission denied"
