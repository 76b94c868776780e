"""What a session has changed, as git sees it: to be shown, and to be committed.

A commit takes exactly the files that are named, by an index of its own; of the user's index only
the entries of these files move on. No hooks run: a hook may be, or call, a file that the session
has just written, and here nothing would confine it. Signing is as the user has configured it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from agentcli.errors import UsageError
from agentcli.llm.client import ChatRequest, ChatResponse, LLMClient, chat
from agentcli.messages import system, user
from agentcli.sandbox.git import git
from agentcli.text import truncate

_DRAFTED_CHARS = 40_000
_SUBJECT_CHARS = 100
_PASSED = ("GIT_AUTHOR_", "GIT_COMMITTER_", "GNUPGHOME", "SSH_AUTH_SOCK")
"""Who commits, and what signs."""


class Changes:
    """The git repository that a workspace lies in; paths are relative to the workspace."""

    def __init__(self, workspace: Path, environ: Mapping[str, str]) -> None:
        """Raises UsageError: git is missing, or the workspace is in no repository."""
        self._folder = workspace
        self._environ = environ
        self._own = {"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"}
        self._own |= {name: value for name, value in environ.items() if name.startswith(_PASSED)}
        self._git("rev-parse", "--show-toplevel")

    def uncommitted(self, paths: Iterable[str] = ()) -> set[str]:
        """Files that differ from the last commit, staged or not, also those it does not know."""
        prefix = self._git("rev-parse", "--show-prefix").rstrip("\n")
        given = ["--", *(f":(top,literal){prefix}{path}" for path in paths)]
        status = self._git(
            *("status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=all"), *given
        )
        # Names are relative to the repository; what lies outside the workspace starts with ../
        found = [entry[3:] for entry in status.split("\0") if entry]
        return {os.path.relpath(path, prefix or ".") for path in found}

    def diff(self, paths: Collection[str]) -> str:
        """What a commit of these files would hold, as a unified diff; binary files by name."""
        with self._own_index(paths) as index:
            return self._git("diff", "--cached", "--no-ext-diff", "--no-textconv", own=index)

    def commit(self, paths: Collection[str], message: str) -> str:
        """Commit these files, and nothing else; returns the new commit's short name.

        Raises:
            UsageError: git refuses, for example because it knows no author; nothing has changed.
        """
        with self._own_index(paths) as index:
            self._git("commit", "-q", "-m", message, "--cleanup=strip", own=index)
        self._git("reset", "-q", "--", *self._literal(paths))
        return self._git("rev-parse", "--short", "HEAD").strip()

    def _own_index(self, paths: Collection[str]) -> _OwnIndex:
        index = _OwnIndex()
        if self._has_commits():
            self._git("read-tree", "HEAD", own=index.variables)
        self._git("add", "-A", "--", *self._literal(paths), own=index.variables)
        return index

    def _has_commits(self) -> bool:
        try:
            self._git("rev-parse", "-q", "--verify", "HEAD")
        except UsageError:
            return False
        return True

    def _literal(self, paths: Iterable[str]) -> list[str]:
        return [f":(literal){path}" for path in paths]

    def _git(self, *arguments: str, own: Mapping[str, str] | None = None) -> str:
        variables = {**self._own, **(own or {})}
        try:
            return git(self._folder, *arguments, environ=self._environ, own=variables)
        except OSError as error:
            raise UsageError(f"git {arguments[0]}: {error}") from error


class _OwnIndex:
    """A file for GIT_INDEX_FILE, gone at the end of a with block that is given its variables."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="agentcli-index-")
        self.variables = {"GIT_INDEX_FILE": os.path.join(self._folder.name, "index")}

    def __enter__(self) -> Mapping[str, str]:
        return self.variables

    def __exit__(self, *exc: object) -> None:
        self._folder.cleanup()


async def draft_message(
    client: LLMClient, prompt: str, task: str, diff: str
) -> tuple[str, ChatResponse]:
    """A commit's message by the model, and its whole answer, which has cost something.

    ``prompt`` says how to write one. A model that says nothing gets the task's first line.

    Raises:
        ProviderError: it cannot be asked.
    """
    told = user(f"# Task\n\n{task}\n\n# Diff\n\n{truncate(diff, _DRAFTED_CHARS)}")
    response = await chat(client, ChatRequest((system(prompt), told)))
    return _bare(response.message.text) or first_line(task), response


def first_line(task: str) -> str:
    """A subject made of a task."""
    lines = [line.strip("# ").strip() for line in task.splitlines() if line.strip("# ").strip()]
    return (lines or ["Changes by agentcli"])[0][:_SUBJECT_CHARS]


def _bare(text: str) -> str:
    """Without the fence that models put around a message."""
    lines: Sequence[str] = text.strip().splitlines()
    if len(lines) > 2 and lines[0].startswith("```") and lines[-1].strip() == "```":
        lines = lines[1:-1]
    return "\n".join(line.rstrip() for line in lines).strip()
