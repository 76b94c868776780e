"""Shortens tool results for a model with a small context window.

Pure functions of a tool's text, the same in training and in use. Sizes are in characters. From a
test run, a small model needs the verdict, the first failures with the frames inside the
workspace, the names of failed tests, and the counts. Reports of unittest are rewritten in
pytest's form, so that the model has only one form to learn.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

RESULT_CHARS = 6000
MAX_WIDTH = 160
MAX_BLOCKS = 3
MAX_BLOCK_LINES = 16
MAX_NAMES = 5
MAX_MATCHES = 30

_CHECKS = ("run_tests", "run_build", "run_lint")
_BLOCK = re.compile(r"_{2,} (?P<name>.+?) _{2,}$|(?:FAIL|ERROR): (?P<case>\S+)(?P<where>.*)$")
# pytest distinguishes subtests by the text in brackets; one per test is enough.
_SUBTESTS_TOO = re.compile(r", \d+ subtests \w+")
_SUBTEST = re.compile(r"SUBFAILED(?:\(.*\)|\[.*\]) (?=\S+::)")
_PARAMETERS = re.compile(r" (?:\(.*\)|\[.*\])$")
_SECTION = re.compile(r"={3,} .* ={3,}$")
_RULE = re.compile(r"[=\-]{20,}$|!{3,}.*!{3,}$")
_NAMED = re.compile(r"(FAILED|ERROR) (\S.*?)(?: - .*)?$")
_COUNTS = re.compile(
    r"(?:=+ )?((?:\d+ \w+, )*\d+ \w+|no tests ran)"
    r" in [\d.]+s.*$"
)
_RAN = re.compile(r"Ran (\d+) tests? in .*$")
_UNITTEST = re.compile(r"(?:FAILED|OK)(?: \((?P<counts>.*)\))?$")
_DIFF = re.compile(r"E +Full diff")
_CARETS = re.compile(r"[ ~^]*\^[ ~^]*$")
_OUTSIDE = re.compile(r"(?:/|<frozen |[A-Za-z]:\\).*?:\d+: in ")
_FRAME = re.compile(r'  File "(?P<path>[^"]+)", line (?P<line>\d+), in (?P<name>.+)$')
_NOISE = re.compile(
    r"ImportError while importing test module|Hint: make sure|Traceback:$|Traceback \(most recent"
    r"|E\s*$|E     \? |E +\+ +where (\w+ = )?<|E +Use -v|E +\.\.\.Full output truncated"
)
_FOLDERS = re.compile(r"(?<![\w.])/(?:[\w.+-]+/)+(?=[\w-]+\.py\b)")
_NUMBERED = re.compile(r"(\d+)\t")
_LIBRARY = re.compile(r"(^|/)(site-packages|lib/python[\d.]+|unittest)/")
_ADDRESS = re.compile(r" at 0x[0-9a-f]+(?=>)")


def compact(name: str, content: str) -> str:
    """Shorten a result of the tool ``name``."""
    if name in _CHECKS:
        return _check(content)
    lines = content.split("\n")
    if name == "grep" and len(lines) > MAX_MATCHES:
        lines = [*lines[:MAX_MATCHES], f"[{len(lines) - MAX_MATCHES} more matches]"]
    text = "\n".join(_narrow(line) for line in lines)
    if len(text) <= RESULT_CHARS:
        return text
    return _read(text) if name == "read_file" else _ends(text)


def _narrow(line: str) -> str:
    return line if len(line) <= MAX_WIDTH else line[: MAX_WIDTH - 3] + "..."


def _read(text: str) -> str:
    """Whole lines from the start, and where to read on."""
    kept = text[:RESULT_CHARS].rsplit("\n", 1)[0]
    last = _NUMBERED.match(kept.rsplit("\n", 1)[-1])
    after = int(last[1]) + 1 if last else 1
    return f"{kept}\n[read on with start={after}]"


def _ends(text: str) -> str:
    half = RESULT_CHARS // 2
    head = text[:half].rsplit("\n", 1)[0]
    tail = text[-half:].split("\n", 1)[-1]
    left_out = len(text) - len(head) - len(tail)
    return f"{head}\n[... {left_out} characters left out ...]\n{tail}"


def _check(content: str) -> str:
    """The verdict, up to ``MAX_BLOCKS`` failures, the names of failed tests, the counts."""
    verdict, *lines = content.split("\n")
    if lines and lines[0].startswith("$ "):
        del lines[0]
    blocks: list[list[str]] = []
    names: list[str] = []
    counts: list[str] = []
    rest: list[str] = []
    inside = False
    ran = 0
    for line in lines:
        line = _SUBTEST.sub("FAILED ", _SUBTESTS_TOO.sub("", line.rstrip()))
        if found := _COUNTS.match(line):
            counts.append(found[1])
            inside = False
        elif found := _RAN.match(line):
            ran, inside = int(found[1]), False
        elif ran and (found := _UNITTEST.match(line)):
            counts.append(_unittest_counts(ran, found["counts"] or ""))
        elif _SECTION.match(line):
            inside = False
        elif (found := _NAMED.match(line)) and not line.startswith(("ERROR: ", "FAILED (")):
            if (named := f"{found[1]} {found[2]}") not in names:
                names.append(named)
        elif found := _BLOCK.match(line):
            name = _PARAMETERS.sub("", found["name"] or "") or found["case"]
            if blocks and blocks[-1][0] == name and found["name"]:
                inside = False
                continue
            blocks.append([name])
            if found["case"]:
                names.append(_unittest_name(found["case"], found["where"]))
            inside = True
        elif _RULE.match(line) or not line:
            continue
        elif inside:
            blocks[-1].append(line)
        else:
            rest.append(line)
    if not blocks and not names:
        tail = [_narrow(_short(line)) for line in rest if not _is_progress(line)][-20:]
        return "\n".join([verdict, *(() if counts else tail), *counts])
    shown = [line for block in blocks[:MAX_BLOCKS] for line in _block(block)]
    if len(names) > MAX_NAMES:
        names = [*names[:MAX_NAMES], f"[{len(names) - MAX_NAMES} more failed]"]
    return "\n".join([verdict, *shown, *map(_narrow, names), *counts])


def _unittest_counts(ran: int, counts: str) -> str:
    failed = sum(map(int, re.findall(r"(?:failures|errors)=(\d+)", counts)))
    passed = [f"{ran - failed} passed"] if ran > failed else []
    return ", ".join([*([f"{failed} failed"] if failed else []), *passed])


def _unittest_name(case: str, where: str) -> str:
    """Turn ``test_a (tests.test_x.X.test_a)`` into ``FAILED tests/test_x.py::X::test_a``."""
    found = re.match(r" \(([\w.]+)\)", where)
    parts = found[1].split(".") if found else []
    if parts and parts[-1] != case:  # Python 3.10 omits the method
        parts.append(case)
    if len(parts) < 3 or parts[0] == "unittest":
        return f"ERROR {case}"
    return f"FAILED {'/'.join(parts[:-2])}.py::{parts[-2]}::{parts[-1]}"


def _is_progress(line: str) -> bool:
    return re.fullmatch(r"[.FEsxX]+( +\[ *\d+%\])?", line) is not None


def _block(lines: Sequence[str]) -> list[str]:
    """One failure: its name, the frames inside the workspace, the error."""
    kept: list[str] = []
    outside = diff = plain = False  # plain: a traceback printed by Python itself
    for line in lines[1:]:
        diff = line.startswith("E  ") and (diff or _DIFF.match(line) is not None)
        if diff:
            continue
        if found := _FRAME.match(line):
            outside = _LIBRARY.search(found["path"]) is not None
            line = f"{found['path']}:{found['line']}: in {found['name']}"
            plain = True
            if outside:
                continue
        elif _OUTSIDE.match(line):
            outside = True
            continue
        elif line[:1] != " ":
            outside = False
            if plain and not line.startswith("E  "):
                line = f"E   {line}"
        if outside or _NOISE.match(line) or _CARETS.match(line):
            continue
        kept.append(_narrow(_short(line)))
    if len(kept) > MAX_BLOCK_LINES:
        tail = MAX_BLOCK_LINES - 7
        kept = [*kept[:6], f"[{len(kept) - 6 - tail} lines]", *kept[-tail:]]
    return [_narrow(lines[0]), *kept]


def _short(line: str) -> str:
    """Drop memory addresses and the folders of absolute paths to Python files."""
    return _ADDRESS.sub("", _FOLDERS.sub("", line))
