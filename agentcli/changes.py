"""Shows and commits a session's changes with git.

A commit contains exactly the named files. It is made through a temporary index; in the user's index
only the entries of these files are updated. Hooks do not run: a hook could be, or call, a file that
the session has just written, and here it would not be sandboxed. Commits are signed if the user has
configured that.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from agentcli.errors import UsageError
from agentcli.llm.client import ChatRequest, ChatResponse, LLMClient, chat
from agentcli.messages import system, user
from agentcli.sandbox.git import DIFF, git
from agentcli.text import truncate

_DRAFTED_CHARS = 40_000
_SUBJECT_CHARS = 100
_PASSED = ("GIT_AUTHOR_", "GIT_COMMITTER_", "GNUPGHOME", "SSH_AUTH_SOCK")
"""Prefixes of variables passed on to git: the author, and what signing needs."""

NOTHING: Mapping[str, bytes] = MappingProxyType({})
"""The default for ``parts``: all files are committed as a whole."""


class Changes:
    """The git repository that contains a workspace. Paths are relative to the workspace."""

    def __init__(self, workspace: Path, environ: Mapping[str, str]) -> None:
        """Raises ``UsageError`` if git is missing or the workspace is not in a repository."""
        self._folder = workspace
        self._environ = environ
        self._own = {"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"}
        self._own |= {name: value for name, value in environ.items() if name.startswith(_PASSED)}
        try:
            git(workspace, "rev-parse", "--show-toplevel", environ=environ, own=self._own)
        except FileNotFoundError as error:
            raise UsageError("git is not installed") from error
        except OSError as error:
            said = str(error).rpartition("fatal: ")[2]
            raise UsageError(f"{workspace}: {said}", hint="Make one: git init") from error

    def uncommitted(self, paths: Iterable[str] = ()) -> set[str]:
        """Files that differ from the last commit, staged or not, including untracked ones."""
        prefix = self._git("rev-parse", "--show-prefix").rstrip("\n")
        given = ["--", *(f":(top,literal){prefix}{path}" for path in paths)]
        status = self._git(
            *("status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=all"), *given
        )
        # Names are relative to the repository; those outside the workspace become ../...
        found = [entry[3:] for entry in status.split("\0") if entry]
        return {os.path.relpath(path, prefix or ".") for path in found}

    def written_to(self, folder: Path, paths: Collection[str]) -> Path:
        """Write these files as of the last commit into ``folder``, like a checkout.

        Return the folder there that corresponds to the workspace.
        """
        prefix = self._git("rev-parse", "--show-prefix").rstrip("\n")
        with self._own_index(()) as index:
            known = self._git("ls-files", "-z", "--", *self._literal(paths), own=index)
            if names := [name for name in known.split("\0") if name]:
                self._git("checkout-index", f"--prefix={folder}/", "--", *names, own=index)
        return folder / prefix

    def merged(self, now: bytes, before: bytes, after: bytes) -> bytes | None:
        """Apply the change from ``before`` to ``after`` to ``now``; None if they conflict."""
        with tempfile.TemporaryDirectory(prefix="agentcli-merge-") as folder:
            files = [Path(folder, name) for name in ("now", "before", "after")]
            for file, content in zip(files, (now, before, after), strict=True):
                file.write_bytes(content)
            try:
                self._git("merge-file", "-q", *map(str, files))
            except UsageError:
                return None
            return files[0].read_bytes()

    def diff(self, paths: Collection[str], parts: Mapping[str, bytes] = NOTHING) -> str:
        """What a commit of these files would contain, as a unified diff; binary files by name."""
        with self._own_index(paths, parts) as index:
            return self._git(*DIFF, "--cached", own=index)

    def commit(
        self, paths: Collection[str], message: str, parts: Mapping[str, bytes] = NOTHING
    ) -> str:
        """Commit these files and nothing else; return the new commit's short hash.

        Files in ``parts`` are committed with that content; on disk they stay as they are.

        Raises:
            UsageError: git refuses, for example because no author is set; nothing has changed.
        """
        with self._own_index(paths, parts) as index:
            self._git("commit", "-q", "-m", message, "--cleanup=strip", own=index)
        self._git("reset", "-q", "--", *self._literal(paths))
        return self._git("rev-parse", "--short", "HEAD").strip()

    def _own_index(self, paths: Collection[str], parts: Mapping[str, bytes] = NOTHING) -> _OwnIndex:
        index = _OwnIndex()
        if self._has_commits():
            self._git("read-tree", "HEAD", own=index.variables)
        if whole := [path for path in paths if path not in parts]:
            self._git("add", "-A", "--", *self._literal(whole), own=index.variables)
        for path, content in parts.items():
            self._add_part(path, content, index)
        return index

    def _add_part(self, path: str, content: bytes, index: _OwnIndex) -> None:
        """Put a given content into the index for a file that is in the last commit."""
        listed = self._git(
            "ls-files", "-s", "-z", "--full-name", "--", *self._literal([path]), own=index.variables
        )
        mode, full_name = listed.split(" ", 1)[0], listed.rstrip("\0").split("\t", 1)[1]
        with tempfile.TemporaryDirectory(prefix="agentcli-part-") as folder:
            file = Path(folder, "part")
            file.write_bytes(content)
            name = self._git("hash-object", "-w", f"--path={path}", str(file)).strip()
        self._git("update-index", "--cacheinfo", f"{mode},{name},{full_name}", own=index.variables)

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
    """A temporary index. As a context manager it yields its variables and is removed at the end."""

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
    """Let the model write a commit message; also return its whole answer, for the costs.

    ``prompt`` says how to write one. If the answer is empty, the task's first line is used.

    Raises:
        ProviderError: the model cannot be asked.
    """
    told = user(f"# Task\n\n{task}\n\n# Diff\n\n{truncate(diff, _DRAFTED_CHARS)}")
    response = await chat(client, ChatRequest((system(prompt), told)))
    return _bare(response.message.text) or first_line(task), response


def first_line(task: str) -> str:
    """A commit subject from the first line of a task."""
    lines = [line.strip("# ").strip() for line in task.splitlines() if line.strip("# ").strip()]
    return (lines or ["Changes by agentcli"])[0][:_SUBJECT_CHARS]


def _bare(text: str) -> str:
    """Remove the code fence that models put around a message."""
    lines: Sequence[str] = text.strip().splitlines()
    if len(lines) > 2 and lines[0].startswith("```") and lines[-1].strip() == "```":
        lines = lines[1:-1]
    return "\n".join(line.rstrip() for line in lines).strip()
