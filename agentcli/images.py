"""Reads the images that are sent with the user's message; their content decides the type."""

from __future__ import annotations

import re
from pathlib import Path

from agentcli.errors import TaskError
from agentcli.image_formats import MAX_BYTES, MAX_IMAGES, media_type
from agentcli.messages import Image
from agentcli.task import Task
from agentcli.text import clip

_LINK = re.compile(r"!\[[^\]\n]*\]\(\s*(?:<([^>\n]+)>|([^)\s]+))(?:\s+[\"'(][^)\n]*)?\s*\)")
_CODE = re.compile(r"^(`{3,}|~{3,}).*?^\1[^\n]*$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:|//|#")


def read_image(path: Path, where: str = "") -> Image:
    """Read an image from a file; ``where`` precedes the path in messages.

    Raises:
        TaskError: it cannot be read, is not of a type that providers accept, or is too large.
    """
    name = f"{where}{clip(str(path), 200)}"
    try:
        if not path.is_file():
            raise TaskError(f"{name}: no such image", hint="Check the path")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise TaskError(f"{name}: {error.strerror or error}") from error
    kind = media_type(data)
    if kind is None:
        raise TaskError(f"{name}: not a PNG, JPEG, GIF or WebP image", hint="Convert it")
    if len(data) > MAX_BYTES:
        size = path.stat().st_size / 1e6
        raise TaskError(
            f"{name}: {size:.1f} MB is more than the {MAX_BYTES / 1e6:.1f} MB that models accept",
            hint="Make it smaller",
        )
    return Image(data, kind, path.name)


def task_images(task: Task, workspace: Path) -> tuple[tuple[Image, ...], tuple[str, ...]]:
    """The images of a task, and notes about links that do not lead to an image.

    The images are the task's resources of kind ``image`` and the Markdown images in its text, with
    paths relative to the task's file or to the workspace. Links in code and to the web stay text.

    Raises:
        TaskError: as ``read_image``, or there are too many images.
    """
    where = f"{task.source}: " if task.source else ""
    images: dict[Path, Image] = {}
    notes: list[str] = []
    for resource in task.resources:
        path = workspace / resource.path
        if resource.kind == "image" and (resource.required or path.exists()):
            images[path.resolve()] = read_image(path, where)
    source = Path(task.source)
    folders = [source.parent, workspace] if task.source and source.is_file() else [workspace]
    for target in _links(task.instruction):
        found = next((f / target for f in folders if (f / target).is_file()), None)
        if found is None:
            notes.append(f"{where}{target} does not exist; its link is sent as text")
        elif found.suffix.lower() == ".svg":
            notes.append(
                f"{where}{target} is not an image that models accept; its link is sent as text"
            )
        elif found.resolve() not in images:
            images[found.resolve()] = read_image(found, where)
    if len(images) > MAX_IMAGES:
        raise TaskError(f"{where}{len(images)} images are more than {MAX_IMAGES}")
    return tuple(images.values()), tuple(notes)


def _links(text: str) -> list[str]:
    """The targets of Markdown images that are local files."""
    found = (match[1] or match[2] for match in _LINK.finditer(_CODE.sub("", text)))
    return [target for target in dict.fromkeys(found) if not _SCHEME.match(target)]
