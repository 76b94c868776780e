"""read_file, list_dir, write_file."""

from __future__ import annotations

import asyncio
import posixpath
from typing import Annotated

from agentcli.diff import unified_diff
from agentcli.errors import EnvironmentOpError, ToolError, ToolInputError
from agentcli.image_formats import described, media_type, unfit
from agentcli.messages import Image, Outcome
from agentcli.text import clip_line, counted
from agentcli.tools.base import ToolContext, ToolOutput
from agentcli.tools.names import meant_name, obeyed_note, shown_name
from agentcli.tools.textfile import TextFile, decode, dominant_newline, split_lines

MAX_FILE_BYTES = 32 * 1024 * 1024
"""Larger files are not loaded; grep and the shell can look into them."""

LINE_CHARS = 2000
"""The most characters shown of one line."""


async def read_file(
    context: ToolContext,
    path: str,
    start: Annotated[int, {"minimum": 1}] = 1,
    limit: Annotated[int, {"minimum": 1}] = 400,
) -> ToolOutput:
    """Read a text file with line numbers, or show an image to a model that accepts images.

    Args:
        path: The file, relative to the workspace.
        start: The first line to show, counted from 1.
        limit: The most lines to show.
    """
    path = meant_name(path)
    data = await load(context, path)
    if context.sees_images() and (kind := media_type(data)):
        return _shown_image(path, data, kind)
    file = decode(data, path)
    context.seen.note(context.place(path), data)
    lines = split_lines(file.shown)
    total = len(lines)
    if not total:
        return ToolOutput("[empty file]", paths=(path,), data=_lines(0, 0))
    if start > total:
        text = f"start={start} is past the end: {path} has {counted(total, 'line')}"
        return ToolOutput(text, Outcome.ERROR, paths=(path,), data=_lines(0, total))
    notes = _encoding_notes(file)
    # What does not fit is left for the next call: a gap in the middle would be misleading.
    room = context.output_chars - sum(len(note) + 1 for note in notes) - 100
    shown: list[str] = []
    for number, line in enumerate(lines[start - 1 : start - 1 + limit], start):
        row = f"{number}\t{clip_line(line, LINE_CHARS)}"
        room -= len(row) + 1
        if room < 0 and shown:
            break
        shown.append(row)
    end = start + len(shown) - 1
    if end < total:
        notes.append(f"[lines {start}-{end} of {total}; read on with start={end + 1}]")
    return ToolOutput("\n".join(shown + notes), paths=(path,), data=_lines(len(shown), total))


def _shown_image(path: str, data: bytes, kind: str) -> ToolOutput:
    name, about = posixpath.basename(path), described(data)
    if reason := unfit(data):
        raise ToolError(f"{path} cannot be shown ({about}): {reason}")
    image = Image(data, kind, name)
    return ToolOutput(f"[image {shown_name(name)}: {about}]", paths=(path,), images=(image,))


def _lines(shown: int, total: int) -> dict[str, int]:
    return {"lines": shown, "total_lines": total}


def _encoding_notes(file: TextFile) -> list[str]:
    if file.errors != "strict":
        return [f"[not valid UTF-8: {counted(file.stray_bytes, 'byte')} shown as \ufffd]"]
    return [] if file.encoding == "utf-8" else [f"[encoding: {file.encoding}]"]


async def list_dir(context: ToolContext, path: str = ".") -> ToolOutput:
    """List the names in one folder.

    Args:
        path: The folder, relative to the workspace.
    """
    path = meant_name(path)
    try:
        entries = await context.environment.list_dir(path)
    except EnvironmentOpError as error:
        reasons = {"ENOENT": "no such folder", "ENOTDIR": "not a folder; use read_file"}
        message = f"{path}: {reasons[error.code]}" if error.code in reasons else error.message
        raise EnvironmentOpError(message, code=error.code) from error
    entries.sort(key=lambda entry: (entry.kind != "dir", entry.name))
    names = [shown_name(e.name) + ("/" if e.kind == "dir" else "") for e in entries]
    text = "\n".join(names) or "[empty folder]"
    return ToolOutput(text, paths=(path,), data={"entries": len(names)})


async def write_file(context: ToolContext, path: str, content: str) -> ToolOutput:
    """Create a file or replace one whole.

    Args:
        path: The file, relative to the workspace.
        content: All of the file's text.
    """
    if not path:
        raise ToolInputError('"path" is empty', path="path")
    path = meant_name(path)
    if path.endswith("/"):
        raise ToolInputError(f"{path} is a folder's path, not a file's", path="path")
    lines = counted(len(split_lines(content)), "line")
    if await context.environment.stat(path) is None:
        data = content.encode("utf-8")
        await context.environment.write(path, data)
        context.seen.note(context.place(path), data)
        diff = unified_diff(None, content, path)
        text = f"created {shown_name(path)} ({lines}){obeyed_note(path)}"
        return ToolOutput(text, diff=diff, paths=(path,))
    before = await load(context, path)
    file = decode(before, path)
    context.seen.check(context.place(path), before)
    after = like(file, content.removeprefix("\ufeff") if file.bom else content)
    try:
        data = file.encode(after, path)
    except ToolError:
        # The new text has characters that the old encoding lacks. Nothing of the old text is left.
        data = after.encode("utf-8")
    await context.environment.write(path, data, expect=before)
    context.seen.note(context.place(path), data)
    diff = await asyncio.to_thread(unified_diff, file.shown, after, path)
    text = f"wrote {shown_name(path)} ({lines}){obeyed_note(path)}"
    return ToolOutput(text, diff=diff, paths=(path,))


def like(file: TextFile, content: str) -> str:
    """``content`` with the line endings of the file, if these were all of one kind."""
    newline = dominant_newline(file.text)
    mixed = newline == "\r\n" and file.text.count("\n") > file.text.count("\r\n")
    if newline == "\n" or mixed or "\r" in content:
        return content
    return content.replace("\n", newline)


async def load(context: ToolContext, path: str) -> bytes:
    """Read a whole file.

    Raises:
        ToolError: it is not a regular file, or too large.
        EnvironmentOpError: it does not exist, is a folder, or cannot be read.
    """
    stat = await context.environment.stat(path)
    if stat is None:
        raise EnvironmentOpError(f"{path}: no such file", code="ENOENT")
    if stat.kind == "dir":
        raise EnvironmentOpError(f"{path}: is a folder, not a file", code="EISDIR")
    if stat.kind == "other":
        raise ToolError(f"{path}: not a regular file")
    if stat.size > MAX_FILE_BYTES:
        raise ToolError(
            f"{path}: has {stat.size:,} bytes, more than can be loaded at once "
            f"({MAX_FILE_BYTES:,}); look into it with grep or the shell"
        )
    return await context.environment.read(path)
