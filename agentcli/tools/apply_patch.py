"""apply_patch: changes several files by one patch, either all of them or none."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from agentcli.diff import unified_diff
from agentcli.environments.base import Environment
from agentcli.errors import EnvironmentOpError, ToolError
from agentcli.prompts import Prompts
from agentcli.text import counted
from agentcli.tools.base import Tool, ToolContext, ToolKind, ToolOutput
from agentcli.tools.files import load
from agentcli.tools.names import meant_name
from agentcli.tools.patch import Edit, FileChange, parse_patch, place_hunks
from agentcli.tools.registry import tool
from agentcli.tools.textfile import decode, dominant_newline, split_lines

NAME = "apply_patch"


def apply_patch_tool(prompts: Prompts) -> Tool:
    """Make the tool; raises ``ConfigError`` if its prompt is missing."""
    return tool(
        apply_patch,
        ToolKind.EDIT,
        description=prompts.get(f"tools/{NAME}"),
        requires=frozenset({"files"}),
        patch_argument="patch",
        only_writes=True,
    )


async def apply_patch(context: ToolContext, patch: str) -> ToolOutput:
    """Change files by a patch.

    Args:
        patch: From *** Begin Patch to *** End Patch.
    """
    changes = parse_patch(patch)
    writes = [one for change in changes for one in await _writes(context, change)]
    await _carry_out(context.environment, writes)
    added = {meant_name(change.path) for change in changes if change.kind == "add"}
    for one in writes:
        if one.after is not None and one.path in added:
            context.seen.note(context.place(one.path), one.after)
        elif one.after is not None and one.before is not None:
            context.seen.edited(context.place(one.path), one.before, one.after)
    diffs = [
        await asyncio.to_thread(unified_diff, one.text_before, one.text_after or "", one.path)
        for one in writes
    ]
    told = "\n".join(f"{one.verb} {one.path}" for one in writes)
    return ToolOutput(
        f"changed {counted(len(writes), 'file')}\n{told}",
        diff="".join(diffs),
        paths=tuple(one.path for one in writes),
    )


@dataclass(frozen=True, slots=True)
class _Write:
    """A change of one file: its bytes before and after, None if there is no such file."""

    path: str
    before: bytes | None
    after: bytes | None
    text_before: str | None
    text_after: str | None
    mode: int | None = None

    @property
    def verb(self) -> str:
        if self.before is None:
            return "added"
        return "deleted" if self.after is None else "updated"


async def _writes(context: ToolContext, change: FileChange) -> list[_Write]:
    """Compute the writes of a change: to its file, and to the file that it moves to."""
    environment, path = context.environment, meant_name(change.path)
    if change.kind == "add":
        await _must_be_free(environment, path)
        return [_Write(path, None, change.text.encode(), None, change.text)]
    before = await load(context, path)
    if change.kind == "delete":
        with suppress(ToolError):  # a file that is not text is deleted without a diff
            return [_Write(path, before, None, decode(before, path).shown, None)]
        return [_Write(path, before, None, "", None)]
    if change.move_to and not change.hunks:
        data, old, new = before, "", ""
    else:
        file = decode(before, path)
        new = _edited(file.text, place_hunks(change, split_lines(file.text)))
        data, old = file.encode(new, path), file.text
        if not change.move_to and data == before:
            raise ToolError(f"nothing in {path} would change")
    if not change.move_to:
        return [_Write(path, before, data, old, new)]
    target = meant_name(change.move_to)
    await _must_be_free(environment, target)
    found = await environment.stat(path)
    mode = found.mode if found else None
    return [_Write(target, None, data, None, new, mode), _Write(path, before, None, old, None)]


async def _must_be_free(environment: Environment, path: str) -> None:
    if await environment.stat(path) is not None:
        raise ToolError(f"{path} already exists: update it, or delete it first")


def _edited(text: str, edits: list[Edit]) -> str:
    """Apply edits of lines to a text. New lines get the text's dominant line ending.

    If the last line has no line ending, the result has none either.
    """
    newline = dominant_newline(text)
    lines = text.split(newline[-1])
    last = lines.pop()  # the text after the last line ending
    whole = [line + newline[-1] for line in lines] + ([last] if last else [])
    for edit in reversed(edits):
        if edit.new and edit.start == len(whole) and whole and last:
            whole[-1] += newline
        whole[edit.start : edit.end] = [line + newline for line in edit.new]
    after = "".join(whole)
    return after.removesuffix(newline) if last else after


async def _carry_out(environment: Environment, writes: list[_Write]) -> None:
    """Write all files; if one fails, the previous ones are rolled back."""
    done: list[_Write] = []
    try:
        for one in writes:
            if one.after is None:
                await environment.remove(one.path, expect=one.before)
            else:
                await environment.write(one.path, one.after, expect=one.before, mode=one.mode)
            done.append(one)
    except EnvironmentOpError as error:
        left = [one.path for one in reversed(done) if not await _rolled_back(environment, one)]
        state = f"; {', '.join(left)} could not be put back" if left else "; nothing was changed"
        raise EnvironmentOpError(f"{error.message}{state}", code=error.code) from error


async def _rolled_back(environment: Environment, one: _Write) -> bool:
    try:
        if one.before is None:
            await environment.remove(one.path, expect=one.after)
        else:
            await environment.write(one.path, one.before, expect=one.after)
    except EnvironmentOpError:
        return False
    return True
