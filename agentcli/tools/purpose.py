"""Guesses the purpose of a command line from its programs: checking, reading, editing, or other.

Only the workflow phase depends on it, not permissions. So a quick look at the words is enough, and
a wrong guess does no harm.
"""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence

from agentcli.tools.base import ToolKind

_LONGEST = 4_000

_CHECKS = frozenset(
    (
        *("pytest", "py.test", "tox", "nox", "unittest", "mypy", "pyright", "flake8", "pylint"),
        *("pyflakes", "compileall", "doctest", "bandit", "eslint", "tsc", "jest", "vitest"),
        *("mocha", "ava", "rspec", "rubocop", "phpunit", "phpstan", "ctest", "ninja", "shellcheck"),
        *("golangci-lint", "staticcheck", "javac", "gcc", "g++", "clang", "clang++", "rustc"),
    )
)
"""Programs, and modules of ``python -m``."""

_CHECKING_WORDS: Mapping[str, str] = {
    "cargo": r"t|test|nextest|b|build|c|check|clippy|bench",
    "go": r"test|build|vet",
    "npm": r"t|test|(run )?(test|lint|build|check|typecheck|type-check)\S*",
    "make": r"|(\S*(test|check|lint|build)\S*|all)",
    "mvn": r".*\b(test|verify|compile|package|install)\b.*",
    "gradle": r".*\b(test|build|check|assemble)\b.*",
    "dotnet": r"test|build",
    "swift": r"test|build",
    "zig": r"test|build",
    "bazel": r"test|build",
    "meson": r"test|compile",
    "cmake": r"--build",
    "ruff": r"check",
    "rake": r"test|spec",
    "mix": r"test|compile",
    "black": r".*--check\b.*",
    "prettier": r".*(--check|-c)\b.*",
    "python": r"(\S*/)?(test_\w+|\w+_test|run_?tests?)\.py|(\S*/)?manage\.py test",
}
"""What must follow the program, with or without its options."""

_SAME: Mapping[str, str] = {
    **dict.fromkeys(("pnpm", "yarn", "bun", "deno"), "npm"),
    **dict.fromkeys(("gmake", "just", "task"), "make"),
    **dict.fromkeys(("gradlew",), "gradle"),
    **dict.fromkeys(("mvnw",), "mvn"),
}

_LOOKS = frozenset(
    (
        *("ls", "cat", "head", "tail", "less", "more", "nl", "grep", "egrep", "rg", "ag", "find"),
        *("fd", "tree", "wc", "file", "stat", "du", "df", "pwd", "which", "type", "awk", "sort"),
        *("uniq", "cut", "tr", "jq", "diff", "cmp", "printenv", "date", "whoami", "uname", "sed"),
    )
)
_EDITS = frozenset(
    ("patch", "mv", "cp", "rm", "rmdir", "mkdir", "touch", "tee", "ln", "chmod", "black", "isort")
)
_GIT_LOOKS = frozenset(
    (
        *("status", "diff", "log", "show", "blame", "grep", "ls-files", "ls-tree", "branch"),
        *("rev-parse", "describe", "remote", "reflog", "shortlog", "config"),
    )
)
_GIT_EDITS = frozenset(
    (
        *("apply", "am", "checkout", "switch", "restore", "reset", "stash", "mv", "rm", "revert"),
        *("merge", "rebase", "cherry-pick", "pull", "clean"),
    )
)
_NOTHING = frozenset(("cd", "echo", "printf", "export", "set", "source", ".", "true", ":", "test"))
"""Programs that say nothing about the purpose of a line."""

_WRAPPERS = frozenset(
    ("sudo", "time", "env", "nice", "nohup", "exec", "command", "timeout", "stdbuf", "xargs")
)
_RUNNERS = frozenset(
    ("uv run", "poetry run", "pipenv run", "hatch run", "pdm run", "bundle exec", "npm exec")
)
_SEPARATORS = re.compile(r"^[;&|()\n]+$")
_PYTHON = re.compile(r"python(\d(\.\d+)?)?$")


def purpose_of(line: str) -> ToolKind:
    """The purpose of a command line; the strongest of its commands decides."""
    kinds = {kind for command in _commands(line) if (kind := _kind(command)) is not None}
    for kind in (ToolKind.CHECK, ToolKind.EDIT, ToolKind.RUN):
        if kind in kinds:
            return kind
    return ToolKind.READ if kinds else ToolKind.RUN


def _commands(line: str) -> Iterator[list[str]]:
    """Yield the words of each simple command, up to the first syntax error."""
    lexer = shlex.shlex(line[:_LONGEST].replace("\n", " ; "), posix=True, punctuation_chars=True)
    lexer.commenters = ""
    command: list[str] = []
    try:
        for word in lexer:
            if _SEPARATORS.match(word):
                yield command
                command = []
            else:
                command.append(word)
    except ValueError:  # a quote that stays open
        return
    yield command


def _kind(words: Sequence[str]) -> ToolKind | None:
    """The purpose of one command, or None if it has none of its own."""
    words = list(words)
    while words and (words[0] in _WRAPPERS or re.match(r"\w+=", words[0])):
        words.pop(0)
        while words and re.match(r"-|\d", words[0]):  # a wrapper's options, timeout's seconds
            words.pop(0)
    if not words:
        return None
    if any(word in (">", ">>") for word in words) and "/dev/null" not in words:
        return ToolKind.EDIT
    program, rest = words[0].rpartition("/")[2], words[1:]
    if program == "npx" and rest:
        return _kind(rest)
    if f"{program} {' '.join(rest[:1])}" in _RUNNERS:
        return _kind(list(itertools.dropwhile(lambda word: word.startswith("-"), rest[1:])))
    if "-C" in rest[:1]:  # git and make: the folder to work in
        rest = rest[2:]
    if _PYTHON.match(program):
        if rest[:1] == ["-m"] and len(rest) > 1:
            return _kind(rest[1:])
        program = "python"
    if program in _CHECKS:
        return ToolKind.CHECK
    if _checks(_SAME.get(program, program), rest):
        return ToolKind.CHECK
    if program == "git":
        return _git(next((word for word in rest if not word.startswith("-")), "status"))
    if program in _EDITS or (program in ("sed", "perl") and _in_place(rest)):
        return ToolKind.EDIT
    if program in ("ruff", "prettier", "gofmt") and {"format", "-w", "--write"} & set(rest):
        return ToolKind.EDIT
    if program in _LOOKS:
        return ToolKind.READ
    return None if program in _NOTHING else ToolKind.RUN


def _checks(program: str, rest: Sequence[str]) -> bool:
    pattern = _CHECKING_WORDS.get(program)
    if pattern is None:
        return False
    said = " ".join(rest)
    given = [word for word in rest if not word.startswith("-")]
    return any(
        re.fullmatch(pattern, text) is not None
        for text in (said, " ".join(given[:2]), " ".join(given[:1]), " ".join(rest[:1]))
    )


def _git(subcommand: str) -> ToolKind:
    if subcommand in _GIT_LOOKS:
        return ToolKind.READ
    return ToolKind.EDIT if subcommand in _GIT_EDITS else ToolKind.RUN


def _in_place(rest: Sequence[str]) -> bool:
    return any(re.match(r"-(-in-place|\w*i)", word) for word in rest)
