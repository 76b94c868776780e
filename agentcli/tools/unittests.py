"""The folders from which unittest's discovery must start to find all test files.

``discover`` descends only into folders with an ``__init__.py``, and older Pythons report success if
it finds no tests.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fnmatch import fnmatch

_DEFAULT, _SUFFIX = "test*.py", "*_test.py"


def discoveries(
    files: Sequence[str], packages: Collection[str], folder: str | None = None
) -> list[tuple[str, ...]]:
    """Arguments for ``python -m unittest``, one tuple for each run that is needed.

    ``files`` are the test files, ``packages`` the folders with an ``__init__.py``, and ``folder``
    limits the search to one folder; all are relative to the workspace. Most projects need one run.
    """
    if folder is None:
        tops = {file.split("/")[0] if "/" in file else "" for file in files}
        folder = tops.pop() if len(tops) == 1 else ""
    inside = [file for file in files if not folder or file.startswith(f"{folder}/")]
    by_suffix = bool(inside) and all(file.endswith("_test.py") for file in inside)
    pattern = _SUFFIX if by_suffix else _DEFAULT
    if all(_finds(folder, pattern, file, packages) for file in inside):
        return [_arguments(folder, "." if folder in packages else "", pattern)]
    starts = {(*_start_of(file, packages), _pattern_of(file)) for file in inside}
    # A package is found by the run that starts in the folder around it, if there is one.
    return [
        _arguments(start, top, pattern)
        for start, top, pattern in sorted(starts)
        if not top or (top.removeprefix("."), "", pattern) not in starts
    ]


def _finds(start: str, pattern: str, file: str, packages: Collection[str]) -> bool:
    """Whether discovery from ``start``, a folder above the file, reaches the file."""
    if not fnmatch(file.rpartition("/")[2], pattern):
        return False
    folder = _above(file)
    while folder != start:
        if folder not in packages:
            return False
        folder = _above(folder)
    return True


def _start_of(file: str, packages: Collection[str]) -> tuple[str, str]:
    """The outermost package around a file and the folder that it is imported from.

    If the file is not in a package: its folder and an empty string.
    """
    folder = _above(file)
    if folder not in packages:
        return folder, ""
    while _above(folder) in packages:
        folder = _above(folder)
    return folder, _above(folder) or "."


def _pattern_of(file: str) -> str:
    return _DEFAULT if file.rpartition("/")[2].startswith("test") else _SUFFIX


def _above(path: str) -> str:
    return path.rpartition("/")[0]


def _arguments(start: str, top: str, pattern: str) -> tuple[str, ...]:
    arguments = ["discover"]
    if start:
        arguments += ["-s", f"./{start}" if start.startswith("-") else start]
    if top:
        arguments += ["-t", top]
    if pattern != _DEFAULT:
        arguments += ["-p", pattern]
    return tuple(arguments)
