"""Writes the part of a conversation that finds a fault: from test output, by grep and reads."""

from __future__ import annotations

import random
import re

from training.faults import Fault
from training.projects import definitions
from training.quick_session import Run, is_test_file
from training.requests import enclosing, line_of
from training.trajectories import Conversation

WHOLE_FILE = 140  # files of up to this many lines are read whole
AROUND = 80  # lines read of a longer one


def find(
    talk: Conversation, run: Run, path: str, fault: Fault, rng: random.Random, known: set[str]
) -> None:
    """Lead from the tests' output to the lines of the fault, by grep and read_file."""
    space = talk.workspace
    line = fault_line(space.files[path], fault)
    frames = [(p, n) for p, n in run.frames if p in space.files and not is_test_file(p)]
    mine = [n for p, n in frames if p == path]
    if mine and frames[-1][0] == path:
        _read(talk, path, mine[-1], line, rng, known)
        return
    if frames and frames[-1][0] != path:
        # the traceback ends elsewhere: look there first, then follow a name
        other, at = frames[-1]
        _read(talk, other, at, at, rng, known)
        _follow(talk, other, path, line, rng, known)
        return
    tests = [(p, n) for p, n in run.frames if p in space.files]
    defined = definitions(space.files, [p for p in space.files if not is_test_file(p)])
    if not tests:
        _read(talk, path, line, line, rng, known)
        return
    file, at = tests[-1]
    statement = line_of(space.files, file, at)
    name = _called(statement, defined)
    if name is None or rng.random() < 0.05:
        if file not in known:
            start = max(1, at - 15)
            talk.call("read_file", path=file, start=start, limit=25)
        body = "\n".join(space.files[file].split("\n")[max(0, at - 15) : at + 10])
        name = name or _called(body, defined)
    if name is None:
        _read(talk, path, line, line, rng, known)
        return
    if defined[name][0] in known:
        target = defined[name][0]
    else:
        word = "class" if defined[name][2] == "class" else "def"
        pattern = f"{name} = " if defined[name][2] == "constant" else f"{word} {name}"
        talk.call("grep", pattern=pattern)
        target = defined[name][0]
    _read(talk, target, defined[name][1], line if target == path else None, rng, known)
    if target != path:
        _follow(talk, target, path, line, rng, known)


def _follow(
    talk: Conversation, seen: str, path: str, line: int, rng: random.Random, known: set[str]
) -> None:
    """Lead from a file that was read to the one with the fault, by a name that the first uses."""
    space = talk.workspace
    try:
        name = enclosing(space.files[path], line)
    except SyntaxError:
        name = None
    named = name and path not in known and re.search(rf"\b{name}\b", space.files[seen])
    if name and named and rng.random() < 0.5:
        word = "class" if name[:1].isupper() else "def"
        talk.call("grep", pattern=f"{word} {name}")
    _read(talk, path, line, line, rng, known)


def _read(
    talk: Conversation, path: str, at: int, must: int | None, rng: random.Random, known: set[str]
) -> None:
    """Read the file, or the part around line ``at`` and the part with line ``must``."""
    if path in known:
        return
    total = talk.workspace.files[path].count("\n") + 1
    if total <= WHOLE_FILE and rng.random() < 0.93:
        talk.call("read_file", path=path)
        known.add(path)
        return
    start = max(1, at - AROUND // 2)
    talk.call("read_file", path=path, start=start, limit=AROUND)
    if must is not None and not start <= must < start + AROUND:
        while must >= start + AROUND:
            start += AROUND
            talk.call("read_file", path=path, start=start, limit=AROUND)
        if must < start:
            talk.call("read_file", path=path, start=max(1, must - AROUND // 2), limit=AROUND)


def fault_line(source: str, fault: Fault) -> int:
    lines = source.split("\n")
    if fault.after and fault.after[0] in lines:
        return lines.index(fault.after[0]) + 1
    return min(fault.line, len(lines))


_NAMES = re.compile(r"[A-Za-z_]\w*")


def _called(text: str, defined: dict[str, tuple[str, int, str]]) -> str | None:
    """The first name of the project in a statement."""
    names = [n for n in _NAMES.findall(text) if n in defined and not n.startswith("test")]
    return names[0] if names else None
