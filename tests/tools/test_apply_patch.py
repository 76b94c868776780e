"""apply_patch on real files: its results, and that it applies all of a patch or nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agentcli.errors import ToolInputError
from agentcli.messages import Outcome, ToolCall, ToolResult
from agentcli.prompts import Prompts
from agentcli.tools.apply_patch import apply_patch_tool
from agentcli.tools.base import ToolContext
from agentcli.tools.patch import parse_patch
from agentcli.tools.permissions import Mode, ModePermissions
from agentcli.tools.registry import Registry
from agentcli.tools.rules import check_rules, parse_rules
from tests.tools.conftest import Call

SOURCE = "".join(f"def f{n}():\n    x = {n}\n    return x\n\n" for n in range(4))


def patch(*sections: str) -> str:
    return "\n".join(["*** Begin Patch", *sections, "*** End Patch"])


@pytest.fixture
def call(context: ToolContext) -> Call:
    registry = Registry([apply_patch_tool(Prompts.standard())])

    async def apply(*sections: str, **_: Any) -> ToolResult:
        one = ToolCall("1", "apply_patch", json.dumps({"patch": patch(*sections)}))
        return await registry.dispatch(one, context)

    return apply


async def test_all_operations_in_one_patch(call: Call, workspace: Path) -> None:
    (workspace / "a.py").write_text(SOURCE)
    (workspace / "old.sh").write_text("one\ntwo\n")
    (workspace / "old.sh").chmod(0o755)
    (workspace / "gone.bin").write_bytes(b"\0\1")
    result = await call(
        "*** Update File: a.py",
        *("@@ def f2():", "     x = 2", "-    return x", "+    return -x"),
        *("@@", " def f3():", "-    x = 3", "+    x = 33", "+    y = 3", "     return x"),
        *("*** Add File: new/b.txt", "+first", "+", "+ last"),
        *("*** Delete File: gone.bin", "*** Update File: old.sh", "*** Move to: bin/new.sh"),
        *("@@", "-two", "+three"),
    )
    assert result.outcome is Outcome.OK, result.content
    assert (workspace / "a.py").read_text() == SOURCE.replace(
        "2\n    return x", "2\n    return -x"
    ).replace("x = 3\n", "x = 33\n    y = 3\n")
    assert (workspace / "new/b.txt").read_text() == "first\n\n last\n"
    assert (workspace / "bin/new.sh").read_text() == "one\nthree\n"
    assert (workspace / "bin/new.sh").stat().st_mode & 0o777 == 0o755
    assert not (workspace / "gone.bin").exists() and not (workspace / "old.sh").exists()
    assert result.content.splitlines() == [
        "changed 5 files",
        *("updated a.py", "added new/b.txt", "deleted gone.bin", "added bin/new.sh"),
        "deleted old.sh",
    ]
    assert "+    return -x" in result.diff and "+first" in result.diff and "-two" in result.diff


async def test_it_is_all_or_nothing(call: Call, workspace: Path) -> None:
    (workspace / "a").write_text("a\n")
    (workspace / "b").write_text("b\n")
    (workspace / "locked").mkdir()
    (workspace / "file").write_text("x\n")
    edit = ("*** Update File: a", "@@", "-a", "+A")
    for bad, why in (
        (("*** Update File: b", "@@", "-nowhere", "+B"), "old text not found in b"),
        (("*** Update File: missing", "@@", "-x", "+B"), "no such file"),
        (("*** Add File: b", "+B"), "b already exists"),
        (("*** Delete File: locked",), "is a folder"),
        (("*** Add File: file/x", "+B"), "nothing was changed"),
        (("*** Add File: ../x", "+B"), "nothing was changed"),
    ):
        result = await call(*edit, *bad)
        assert result.outcome is Outcome.ERROR and why in result.content, (bad, result.content)
        assert (workspace / "a").read_text() == "a\n"
        assert (workspace / "b").read_text() == "b\n"
    assert sorted(path.name for path in workspace.iterdir()) == ["a", "b", "file", "locked"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "Größe\r\ntwo\r\nlast\r\n".encode("latin-1"),
            "Größe\r\n2\r\nnew\r\nlast\r\n".encode("latin-1"),
        ),
        (b"\xef\xbb\xbfone\ntwo\nlast", b"\xef\xbb\xbfone\n2\nnew\nlast"),
        ("one\ntwo\n".encode("utf-16"), "one\n2\nnew\n".encode("utf-16")),
        (b"one\r\ntwo", b"one\r\n2\r\nnew"),
        (b"one\rtwo\rlast\r", b"one\r2\rnew\rlast\r"),
    ],
)
async def test_encodings_and_line_ends_stay(
    before: bytes, after: bytes, call: Call, workspace: Path
) -> None:
    (workspace / "f").write_bytes(before)
    result = await call("*** Update File: f", "@@", "-two", "+2", "+new")
    assert result.outcome is Outcome.OK, result.content
    assert (workspace / "f").read_bytes() == after


async def test_lines_that_nearly_match(call: Call, workspace: Path) -> None:
    path = workspace / "f"
    path.write_text("if a:  \n\tb()\n\tc()\nend\n")
    result = await call("*** Update File: f", "@@", " if a:", "-    b()", "+\td()", "     c()")
    assert result.outcome is Outcome.OK, result.content
    assert path.read_text() == "if a:  \n\td()\n\tc()\nend\n", "kept lines are as they were"
    result = await call("*** Update File: f", "@@", "+more", "*** End of File")
    assert path.read_text().endswith("end\nmore\n")
    result = await call("*** Update File: f", "@@", "-if b:", "+if c:")
    assert "The nearest lines are:\n1\tif a:" in result.content


async def test_the_last_place_where_the_end_is_meant(call: Call, workspace: Path) -> None:
    (workspace / "f").write_text("x\ny\nx\n")
    await call("*** Update File: f", "@@", "-x", "+z", "*** End of File")
    assert (workspace / "f").read_text() == "x\ny\nz\n"
    assert "has no line 'q'" in (await call("*** Update File: f", "@@ q", "-x", "+z")).content


async def test_lines_for_the_end_may_come_first(call: Call, workspace: Path) -> None:
    (workspace / "f").write_text("a\nb\n")
    await call("*** Update File: f", "@@", "+end", "@@", "-a", "+a1", "+a2", "@@", "+last")
    assert (workspace / "f").read_text() == "a1\na2\nb\nend\nlast\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("*** Update File: a", "must begin with"),
        (patch(), "is empty"),
        (patch("x"), "line 2 of the patch is not expected"),
        (patch("*** Update File: a"), "changes nothing"),
        (patch("*** Add File: a", "no plus"), "line 3"),
        (patch("*** Delete File: a", "*** Add File: a", "+x"), "more than once"),
        (patch("*** Update File: a", "@@", "-x", "*x"), "line 5"),
    ],
)
def test_invalid_patches(text: str, why: str) -> None:
    with pytest.raises(ToolInputError, match=why):
        parse_patch(text)


async def test_rules_are_about_the_files_that_it_names() -> None:
    tool = apply_patch_tool(Prompts.standard())
    rules = parse_rules(["apply_patch(src/**)"], deny=["*(.env)"])
    check_rules(rules, [tool.spec])
    permissions = ModePermissions(Mode.ASK, rules=rules, root="/ws")

    async def permit(*names: str) -> str:
        sections = [line for name in names for line in (f"*** Add File: {name}", "+x")]
        arguments = {"patch": patch(*sections)}
        return await permissions.permit(tool.spec, ToolCall("1", "apply_patch"), arguments) or ""

    assert await permit("src/a", "src/b") == ""
    assert "nobody can be asked" in await permit("src/a", "b")
    assert "the rule *(.env) refuses" in await permit("src/a", "src/.env")
    assert "the rule *(.env) refuses" in await permit("src/a", "src/\f/../.env")
