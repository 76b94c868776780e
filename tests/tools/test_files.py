"""read_file, list_dir and write_file: what the model reads, and what is on disk afterwards."""

from __future__ import annotations

import codecs
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from agentcli.image_formats import MAX_BYTES
from agentcli.messages import Image, Outcome, ToolCall, ToolResult
from agentcli.tools.base import ToolContext
from agentcli.tools.files import read_file
from agentcli.tools.registry import Registry
from tests.test_images import GIF, jpeg, png
from tests.tools.conftest import TOOLS, Call


async def test_lines_are_numbered(workspace: Path, call: Call) -> None:
    (workspace / "a.py").write_text("import os\n\nprint(1)\n")
    result = await call("read_file", path="a.py")
    assert result.content == "1\timport os\n2\t\n3\tprint(1)"
    assert result.outcome is Outcome.OK and result.paths == ("a.py",)


async def test_a_range_says_how_to_read_on(workspace: Path, call: Call) -> None:
    (workspace / "a.txt").write_text("".join(f"line {n}\n" for n in range(1, 421)))
    result = await call("read_file", path="a.txt", start=31, limit=3)
    assert result.content == (
        "31\tline 31\n32\tline 32\n33\tline 33\n[lines 31-33 of 420; read on with start=34]"
    )


async def test_the_last_range_says_nothing(workspace: Path, call: Call) -> None:
    (workspace / "a.txt").write_text("one\ntwo\nthree")
    assert (await call("read_file", path="a.txt", start=3)).content == "3\tthree"


async def test_a_range_past_the_end(workspace: Path, call: Call) -> None:
    (workspace / "stats.py").write_text("x\n" * 420)
    result = await call("read_file", path="stats.py", start=500)
    assert result.outcome is Outcome.ERROR
    assert result.content == "start=500 is past the end: stats.py has 420 lines"


async def test_an_empty_file(workspace: Path, call: Call) -> None:
    (workspace / "empty").touch()
    assert (await call("read_file", path="empty")).content == "[empty file]"


async def test_faults_are_named(workspace: Path, call: Call) -> None:
    (workspace / "src").mkdir()
    os.mkfifo(workspace / "pipe")
    (workspace / "huge").touch()
    os.truncate(workspace / "huge", 40 * 1024 * 1024)
    contents = [
        (await call("read_file", path=path)).content
        for path in ("stats.py", "src", "pipe", "huge", "a\0b")
    ]
    assert contents == [
        "error: stats.py: no such file",
        "error: src: is a folder, not a file",
        "error: pipe: not a regular file",
        "error: huge: has 41,943,040 bytes, more than can be loaded at once (33,554,432); "
        "look into it with grep or the shell",
        "error: a path cannot hold a zero byte",
    ]


async def test_what_lies_outside_is_neither_read_nor_written(workspace: Path, call: Call) -> None:
    secret = workspace.parent / "secret"
    secret.write_text("sesame")
    (workspace / "link").symlink_to(secret)
    for path in ("../secret", str(secret), "link"):
        for result in (
            await call("read_file", path=path),
            await call("write_file", path=path, content="x"),
            await call("search_replace", path=path, old="sesame", new="x"),
        ):
            assert result.outcome is Outcome.ERROR and "sesame" not in result.content, path
    assert (await call("write_file", path="../new", content="x")).outcome is Outcome.ERROR
    assert secret.read_text() == "sesame"
    assert sorted(workspace.parent.iterdir()) == [secret, workspace]


async def test_an_absolute_path_in_the_workspace(workspace: Path, call: Call) -> None:
    (workspace / "a").write_text("x")
    assert (await call("read_file", path=str(workspace / "a"))).content == "1\tx"


async def test_a_binary_file_is_described(workspace: Path, call: Call) -> None:
    (workspace / "logo.png").write_bytes(b"\x89PNG\r\n\x1a\n".ljust(1234, b"\0"))
    (workspace / "blob").write_bytes(bytes(range(256)))
    assert (await call("read_file", path="logo.png")).content == (
        "error: logo.png is a binary file (PNG image, 1,234 bytes)"
    )
    assert (await call("read_file", path="blob")).content == (
        "error: blob is a binary file (256 bytes)"
    )


async def test_a_model_that_accepts_images_sees_an_image(
    workspace: Path, context: ToolContext
) -> None:
    (workspace / "shots").mkdir()
    (workspace / "shots" / "a.txt").write_bytes(png(640, 3))
    (workspace / "wide.jpg").write_bytes(jpeg(9000, 2))
    (workspace / "large.gif").write_bytes(GIF + bytes(2 * MAX_BYTES))
    (workspace / "old.bmp").write_bytes(b"BM".ljust(70, b"\0"))
    (workspace / "text.md").write_text("GIF is a format")
    (workspace.parent / "secret.png").write_bytes(png())
    (workspace / "link.png").symlink_to(workspace.parent / "secret.png")
    registry = Registry(TOOLS)
    seeing = replace(context, sees_images=lambda: True)

    async def read(path: str) -> ToolResult:
        call = ToolCall("1", "read_file", json.dumps({"path": path, "start": 3}))
        return await registry.dispatch(call, seeing)

    assert await read("shots/a.txt") == ToolResult(
        "1",
        "read_file",
        "[image a.txt: PNG, 640x3, 95 bytes]",
        paths=("shots/a.txt",),
        images=(Image(png(640, 3), "image/png", "a.txt"),),
    )
    refused = [await read(path) for path in ("wide.jpg", "large.gif", "old.bmp")]
    assert [result.content for result in refused] == [
        "error: wide.jpg cannot be shown (JPEG, 9000x2, 23 bytes): "
        "models accept at most 8,000 pixels a side",
        "error: large.gif cannot be shown (GIF, 1x1, 7,800,037 bytes): "
        "7.8 MB is more than the 3.9 MB that models accept",
        "error: old.bmp is a binary file (BMP image, 70 bytes)",
    ]
    outside = [await read(path) for path in ("link.png", "../secret.png")]
    for result in (*refused, *outside, await read("text.md")):
        assert result.outcome is Outcome.ERROR and result.images == ()


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (codecs.BOM_UTF8 + "é\n".encode(), "1\té"),
        (codecs.BOM_UTF16_LE + "é\r\n".encode("utf-16-le"), "1\té\n[encoding: utf-16-le]"),
        ("plain utf-16\n".encode("utf-16-be"), "1\tplain utf-16\n[encoding: utf-16-be]"),
        ("caf\xe9\n".encode("latin-1"), "1\tcafé\n[encoding: latin-1]"),
        ("5 €\n".encode("cp1252"), "1\t5 €\n[encoding: cp1252]"),
        (
            "日本語 ".encode() + b"\xff\xfe ok\n",
            "1\t日本語 \ufffd\ufffd ok\n[not valid UTF-8: 2 bytes shown as \ufffd]",
        ),
        (b"a\r\nb\r\n", "1\ta\n2\tb"),
        (b"a\rb\r", "1\ta\n2\tb"),
        (b"a\x0cb\nc\n", "1\ta\x0cb\n2\tc"),
    ],
)
async def test_encodings_and_line_ends(
    workspace: Path, call: Call, data: bytes, shown: str
) -> None:
    (workspace / "file").write_bytes(data)
    assert (await call("read_file", path="file")).content == shown


async def test_a_long_line_is_clipped(workspace: Path, call: Call) -> None:
    (workspace / "min.js").write_text("x" * 7120 + "\nshort\n")
    content = (await call("read_file", path="min.js")).content
    assert content == f"1\t{'x' * 2000} [... 5120 characters left out ...]\n2\tshort"


async def test_what_does_not_fit_is_left_for_the_next_call(
    workspace: Path, context: ToolContext
) -> None:
    lines = [f"line {n} " + "x" * 1000 for n in range(1, 5001)]  # 5 MB
    (workspace / "big").write_text("\n".join(lines))
    start, seen = 1, 0
    for _ in range(3):
        output = await read_file(context, "big", start=start)
        *rows, note = output.content.split("\n")
        assert len(output.content) <= context.output_chars
        assert [int(row.split("\t")[0]) for row in rows] == list(range(start, start + len(rows)))
        seen += len(rows)
        start = seen + 1
        assert note.endswith(f"of 5000; read on with start={start}]")


async def test_a_folder_is_listed_folders_first(workspace: Path, call: Call) -> None:
    for name in ("zeta", ".git", "a folder"):
        (workspace / name).mkdir()
    for name in ("README.md", ".hidden", "b.py"):
        (workspace / name).touch()
    content = (await call("list_dir")).content
    assert content == ".git/\na folder/\nzeta/\n.hidden\nREADME.md\nb.py"
    assert (await call("list_dir", path="zeta")).content == "[empty folder]"
    missing = await call("list_dir", path="nowhere")
    assert (missing.outcome, missing.content) == (Outcome.ERROR, "error: nowhere: no such folder")
    not_folder = await call("list_dir", path="b.py")
    assert not_folder.content == "error: b.py: not a folder; use read_file"


async def test_a_file_is_created_with_its_folders(workspace: Path, call: Call) -> None:
    result = await call("write_file", path="src/new file.py", content="a = 1\nb = 2\n")
    assert result.content == "created src/new file.py (2 lines)"
    assert (workspace / "src/new file.py").read_text() == "a = 1\nb = 2\n"
    assert result.diff == (
        "--- /dev/null\n+++ b/src/new file.py\n@@ -0,0 +1,2 @@\n+a = 1\n+b = 2\n"
    )


async def test_a_replaced_file_keeps_mode_encoding_and_line_ends(
    workspace: Path, call: Call
) -> None:
    path = workspace / "run.cmd"
    path.write_bytes("caf\xe9\r\ntwo\r\n".encode("latin-1"))
    path.chmod(0o750)
    await call("read_file", path="run.cmd")
    result = await call("write_file", path="run.cmd", content="th\xe9\nthree\n")
    assert result.content == "wrote run.cmd (2 lines)"
    assert path.read_bytes() == "th\xe9\r\nthree\r\n".encode("latin-1")
    assert path.stat().st_mode & 0o777 == 0o750
    assert "-caf\xe9\r\n" in result.diff and "+th\xe9\r\n" in result.diff


async def test_text_that_the_old_encoding_lacks_makes_it_utf8(workspace: Path, call: Call) -> None:
    (workspace / "a").write_bytes(b"caf\xe9\n")
    await call("read_file", path="a")
    await call("write_file", path="a", content="→\n")
    assert (workspace / "a").read_text(encoding="utf-8") == "→\n"


async def test_a_byte_order_mark_stays_and_is_not_doubled(workspace: Path, call: Call) -> None:
    (workspace / "a").write_bytes(codecs.BOM_UTF8 + b"old\n")
    await call("read_file", path="a")
    await call("write_file", path="a", content="\ufeffnew\n")
    assert (workspace / "a").read_bytes() == codecs.BOM_UTF8 + b"new\n"


async def test_a_binary_file_is_not_overwritten_by_text(workspace: Path, call: Call) -> None:
    (workspace / "db").write_bytes(b"SQLite format 3\0")
    result = await call("write_file", path="db", content="text")
    assert result.content == "error: db is a binary file (SQLite database, 16 bytes)"


async def test_an_empty_content(workspace: Path, call: Call) -> None:
    assert (await call("write_file", path="a", content="")).content == "created a (0 lines)"
    assert (workspace / "a").read_bytes() == b""


async def test_writing_where_nothing_can_be_written(workspace: Path, call: Call) -> None:
    (workspace / "folder").mkdir()
    (workspace / "file").touch()
    contents = [
        (await call("write_file", path=path, content="x")).content
        for path in ("folder", "file/below", "")
    ]
    assert contents == [
        "error: folder: is a folder, not a file",
        "error: file/below: not a directory",
        'error: "path" is empty',
    ]


async def test_totals_for_the_screen(workspace: Path, call: Call) -> None:
    (workspace / "long").write_text("x\n" * 20)
    (workspace / "none").touch()
    assert (await call("read_file", path="long", start=5, limit=3)).data == {
        "lines": 3,
        "total_lines": 20,
    }
    assert (await call("read_file", path="long", start=21)).data["total_lines"] == 20
    assert (await call("read_file", path="none")).data == {"lines": 0, "total_lines": 0}
    assert (await call("list_dir")).data == {"entries": 2}


async def test_a_name_cannot_forge_another(workspace: Path, call: Call) -> None:
    for name in ("new\nline", "\x1b[31mred", 'a"b', "ünï code"):
        (workspace / name).write_text("x\n")
    listed = (await call("list_dir")).content.split("\n")
    assert sorted(listed) == sorted(['"new\\nline"', '"\\u001b[31mred"', '"a\\"b"', "ünï code"])
    assert sorted((await call("glob", pattern="*")).content.split("\n")) == sorted(listed)
    assert '"new\\nline":1: x' in (await call("grep", pattern="x")).content.split("\n")
    for name in listed:  # the shown names can be read
        assert (await call("read_file", path=name)).content == "1\tx"


async def test_a_folder_path_is_no_file(workspace: Path, call: Call) -> None:
    result = await call("write_file", path="trail/", content="x")
    assert result.outcome is Outcome.ERROR and "trail/ is a folder's path" in result.content
    assert not (workspace / "trail").exists()


@pytest.mark.parametrize("path", [".envrc", "a/.vscode/tasks.json"])
async def test_what_the_host_obeys_is_pointed_out(path: str, call: Call) -> None:
    result = await call("write_file", path=path, content="x")
    assert "[note: the user's shell, editor or git may run or obey this file]" in result.content
    assert "note" not in (await call("write_file", path="a/b.py", content="x")).content


async def test_a_change_that_the_model_has_not_seen_is_not_overwritten(
    workspace: Path, call: Call
) -> None:
    file = workspace / "a.txt"
    file.write_text("one\n")
    unread = await call("write_file", path="a.txt", content="two\n")
    assert unread.content == "error: a.txt exists, and you have not read it yet: read it first"
    await call("read_file", path=str(file), limit=1)
    assert (await call("write_file", path="./a.txt", content="two\n")).outcome is Outcome.OK
    assert (await call("write_file", path="a.txt", content="three\n")).outcome is Outcome.OK
    file.write_text("by hand\nthree\n")
    for _ in range(2):  # an edit of another part does not show the model what has changed
        refused = await call("write_file", path="a.txt", content="four\n")
        assert refused.content == "error: a.txt has changed since you read it: read it again"
        await call("search_replace", path="a.txt", old="three", new="3")
    assert file.read_text() == "by hand\n3\n"
    await call("read_file", path="a.txt")
    await call("search_replace", path="a.txt", old="3", new="three")
    assert (await call("write_file", path="a.txt", content="four\n")).outcome is Outcome.OK


async def test_an_empty_file_need_not_be_read(workspace: Path, call: Call) -> None:
    (workspace / "a.txt").touch()
    assert (await call("write_file", path="a.txt", content="one\n")).outcome is Outcome.OK
