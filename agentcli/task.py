"""The task file: a Markdown instruction below optional YAML front matter.

---
model: openai:gpt-6.2-sol
max_steps: 40
budget: {tokens: 200000, cost: 1.5, time_s: 900}
tools: [read_file, search_replace, run_tests]
checks:
  - python -m pytest -q
env: host
resources:
  - docs/spec.md
  - {path: data, kind: folder, writable: true}
  - {path: shot.png, kind: image}
---
Make the parser accept empty input.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import stat
import sys
import termios
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from agentcli.errors import TaskError
from agentcli.text import clip

MAX_BYTES = 4 * 1024 * 1024

# Where a shell's <(...) appears. Other pipes are refused: they may never get a writer.
_STREAMS = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits of tokens (in and out), US dollars, seconds and tool calls; None means unlimited."""

    tokens: int | None = None
    cost: float | None = None
    time_s: float | None = None
    tool_calls: int | None = None


@dataclass(frozen=True, slots=True)
class Resource:
    """A file or folder that the task needs; ``path`` is relative to the workspace.

    ``kind`` is file, folder, or image: a file that is shown to the model.
    """

    path: str
    kind: str = "file"
    mount: str = ""
    required: bool = True
    writable: bool = False


@dataclass(frozen=True, slots=True)
class Task:
    """A task. None and empty values leave the choice to the settings.

    ``checks`` are shell commands that must succeed for the task to count as solved. ``source`` is
    where the task was read from, as shown in messages. ``id`` identifies it in a set of tasks.
    """

    instruction: str
    source: str = ""
    id: str = ""
    model: str | None = None
    max_steps: int | None = None
    budget: Budget = field(default_factory=Budget)
    tools: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()
    env: str | None = None
    resources: tuple[Resource, ...] = ()


_STDIN = "standard input"


def overridden(task: Task, flags: Mapping[str, Any], checks: Sequence[str] = ()) -> Task:
    """The task with values from the command line; flags that are None or absent change nothing."""
    budget = task.budget
    return replace(
        task,
        model=flags.get("model") or task.model,
        max_steps=flags.get("max_steps") or task.max_steps,
        env=flags.get("env") or task.env,
        budget=replace(
            budget,
            tokens=flags.get("budget_tokens") or budget.tokens,
            cost=flags.get("max_cost") or budget.cost,
            time_s=flags.get("timeout_s") or budget.time_s,
        ),
        checks=(*task.checks, *checks),
    )


def read(path: Path) -> Task:
    """Read a task file.

    Raises:
        TaskError: it is missing, not a file, empty or not UTF-8, or its front matter is wrong.
    """
    try:
        kind = path.stat().st_mode
        if stat.S_ISDIR(kind):
            raise TaskError(f"{path}: is a folder", hint="Name a Markdown file inside it")
        if not stat.S_ISREG(kind) and not str(path).startswith(_STREAMS):
            raise TaskError(f"{path}: not a regular file", hint="Use - to read from stdin")
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        why = "no such file" if missing else error.strerror or str(error)
        no_path = missing or error.errno == errno.ENAMETOOLONG
        hint = "Check the path, or use -p TEXT" if no_path else None
        raise TaskError(f"{clip(str(path), 200)}: {why}", hint=hint) from error
    return parse(raw, str(path))


def read_stdin() -> Task:
    """Read a task from standard input; raises like ``read``."""
    return parse(_stdin(), _STDIN)


def read_stdin_text() -> str:
    """Read standard input as material for a task given otherwise; raises like ``read``."""
    return _text(_stdin(), _STDIN)


def is_piped() -> bool:
    """Whether something waits on stdin, from a pipe or a file."""
    try:
        kind = os.fstat(0).st_mode
        if stat.S_ISREG(kind):
            return os.lseek(0, 0, os.SEEK_CUR) < os.fstat(0).st_size
        if not stat.S_ISFIFO(kind):
            return False
        waiting = array.array("i", [0])
        fcntl.ioctl(0, termios.FIONREAD, waiting)
        return waiting[0] > 0
    except OSError:
        return False


def _stdin() -> bytes:
    if sys.stdin is None:
        raise TaskError("standard input is closed", hint="Name a TASK.md, or use -p TEXT")
    return sys.stdin.buffer.read(MAX_BYTES + 1)


def _text(raw: bytes, source: str) -> str:
    if len(raw) > MAX_BYTES:
        raise TaskError(f"{source}: longer than {MAX_BYTES // 2**20} MiB", hint="Shorten it")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise TaskError(f"{source}:{line}: not UTF-8", hint="Save the file as UTF-8") from error
    if "\0" in text:
        raise TaskError(f"{source}: not a text in UTF-8", hint="Save the file as UTF-8")
    return text.replace("\r\n", "\n")


def parse(raw: bytes, source: str) -> Task:
    """Parse the bytes of a task file; raises like ``read``."""
    front, body = _split(_text(raw, source), source)
    fields = _fields(front, source) if front is not None else {}
    if not body.strip():
        raise TaskError(f"{source}: the task is empty", hint="Write what is to be done")
    return Task(body.strip(), source, **fields)


def _fields(front: str, source: str) -> dict[str, Any]:
    from agentcli.front_matter import read_fields

    fields = read_fields(front, source)
    if "budget" in fields:
        fields["budget"] = Budget(**fields["budget"])
    if "resources" in fields:
        fields["resources"] = tuple(Resource(**item) for item in fields["resources"])
    return fields


def _split(text: str, source: str) -> tuple[str | None, str]:
    """Split a text into front matter (None if there is none) and body."""
    lines = text.split("\n")
    if lines[0].rstrip() != "---":
        return None, text
    for number, line in enumerate(lines[1:], start=1):
        if line.rstrip() in ("---", "..."):
            return "\n".join(lines[1:number]), "\n".join(lines[number + 1 :])
    raise TaskError(f"{source}:1: the front matter has no end", hint='Close it with a line "---"')
