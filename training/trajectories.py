"""Writes conversations in the exact form that the agent has them.

Calls act on a workspace in memory and give results as agentcli's tools do. Turns of the model can
be marked as not to be learned.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from agentcli.llm.nanochat_format import (
    DECLINE_TOOL,
    INLINE_ARGUMENT,
    INLINE_TOOL,
    NanochatFormat,
    arguments_text,
)
from agentcli.messages import Message, ToolCall, ToolResult, assistant, tool, user
from training.quick_session import Run, Unsupported
from training.quick_tests import QuickTests

COMMAND = "$ python -m pytest -q --tb=short --no-header -p no:cacheprovider"
READ_LIMIT = 400
MAX_TOKENS = 4096
# Edits are what is hard, and few of the tokens. All tokens of such a call weigh more, copied ones
# too, so that the model's probabilities of leaving the copy stay true.
EDIT_TOOLS = frozenset(["search_replace"])
EDIT_WEIGHT = 3


class Unusable(Exception):
    """This draw is not a good example."""


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


class Workspace:
    """Files in memory, and the tools that act on them."""

    def __init__(self, files: Mapping[str, str], runner: QuickTests | None = None) -> None:
        self.initial = dict(files)
        self.files = dict(files)
        self.runner = runner
        self.known: list[tuple[dict[str, str], Run]] = []

    def test_run(self, path: str | None = None) -> Run:
        for files, run in self.known:
            if path is None and files == self.files:
                return run
        if self.runner is None:
            raise Unusable("no runner")
        try:
            run = self.runner.run(self.files, path)
        except Unsupported as error:
            raise Unusable(str(error)) from error
        if run.text is None:
            raise Unusable("stopped")
        if path is None:
            self.known.append((dict(self.files), run))
        return run

    def run_tests(self, path: str | None = None) -> str:
        run = self.test_run(path)
        code = 2 if run.errors and not (run.failed or run.passed) else 1
        verdict = "tests passed" if run.ok else f"tests failed (exit code {code})"
        command = f"{COMMAND} {path}" if path else COMMAND
        return f"{verdict}\n{command}\n{run.text}"

    def read_file(self, path: str, start: int = 1, limit: int = READ_LIMIT) -> str:
        if path not in self.files:
            return f"error: {path}: no such file"
        lines = self.files[path].split("\n")
        if lines[-1] == "":
            lines.pop()
        total = len(lines)
        if not total:
            return "[empty file]"
        if start > total:
            return f"start={start} is past the end: {path} has {plural(total, 'line')}"
        shown = lines[start - 1 : start - 1 + limit]
        rows = [f"{number}\t{line}" for number, line in enumerate(shown, start)]
        end = start + len(shown) - 1
        if end < total:
            rows.append(f"[lines {start}-{end} of {total}; read on with start={end + 1}]")
        return "\n".join(rows)

    def list_dir(self, path: str = ".") -> str:
        prefix = "" if path == "." else f"{path}/"
        inside = [p.removeprefix(prefix) for p in self.files if p.startswith(prefix)]
        folders = sorted({p.split("/")[0] + "/" for p in inside if "/" in p})
        names = sorted(p for p in inside if "/" not in p)
        return "\n".join([*folders, *names]) or "[empty folder]"

    def grep(self, pattern: str, path: str = ".") -> str:
        prefix = "" if path == "." else path
        rows = [
            f"{name}:{number}: {line}"
            for name in sorted(self.files)
            if name == prefix or not prefix or name.startswith(f"{prefix}/")
            for number, line in enumerate(self.files[name].split("\n"), 1)
            if re.search(pattern, line)
        ]
        return "\n".join(rows) or f"no match for {pattern}"

    def search_replace(self, path: str, old: str, new: str) -> str:
        text = self.files[path]
        if text.count(old) != 1 or old == new:
            raise Unusable(f"old occurs {text.count(old)} times")
        line = text[: text.index(old)].count("\n") + 1
        self.files[path] = text.replace(old, new, 1)
        return f"replaced 1 occurrence in {path} at line {line}"


@dataclass
class Conversation:
    """Messages, and the indices of those that are not learned (``silent``)."""

    workspace: Workspace
    messages: list[Message] = field(default_factory=list)
    silent: set[int] = field(default_factory=set)
    calls: int = 0
    learnt: int | None = None  # the document ends after so many learnt tokens

    def user(self, text: str) -> None:
        self.messages.append(user(text))

    def say(self, text: str) -> None:
        self.messages.append(assistant(text))

    def call(self, name: str, *, silent: bool = False, **arguments: object) -> str:
        """Call a tool on the workspace; return its whole result."""
        result: str = getattr(self.workspace, name)(**arguments)
        self.call_with(result, name, silent=silent, **arguments)
        return result

    def call_with(
        self, result: str, name: str, *, silent: bool = False, **arguments: object
    ) -> None:
        """Add a call with a given result."""
        self.calls += 1
        identity = f"call_{self.calls}"
        if silent:
            self.silent.add(len(self.messages))
        call = ToolCall(identity, name, arguments_text(**arguments))
        self.messages.append(assistant("", call))
        self.messages.append(tool(ToolResult(identity, name, result)))

    def compute(self, expression: str, result: str, before: str = "") -> None:
        """Add an in-stream calculation, after which the answer continues."""
        self.calls += 1
        identity = f"call_{self.calls}"
        call = ToolCall(identity, INLINE_TOOL, arguments_text(**{INLINE_ARGUMENT: expression}))
        self.messages.append(assistant(before, call))
        self.messages.append(tool(ToolResult(identity, INLINE_TOOL, result)))

    def decline(self, reason: str) -> None:
        """Add the last turn, which declines the task."""
        self.calls += 1
        call = ToolCall(f"call_{self.calls}", DECLINE_TOOL, arguments_text(reason=reason))
        self.messages.append(assistant("", call))

    def opening(self, turns: int = 1, learnt: int | None = None) -> Conversation:
        """The conversation up to the model's turn number ``turns``, or its ``learnt``-th token."""
        said = [i for i, message in enumerate(self.messages, 1) if message.role == "assistant"]
        return replace(self, messages=self.messages[: said[:turns][-1]], learnt=learnt)

    def tokens(self, form: NanochatFormat) -> tuple[list[int], list[int]]:
        """Render to (token ids, weight of each in the loss: 0 for what others say).

        Raises:
            Unusable: it is too long for the model.
        """
        tokens: list[int] = []
        weights: list[int] = []
        for message, segment in zip(
            self.messages, form.segments(self.messages, silent=self.silent), strict=True
        ):
            weight = EDIT_WEIGHT if any(c.name in EDIT_TOOLS for c in message.calls) else 1
            tokens += segment.tokens
            weights += [weight * own for own in segment.mask]
        if len(tokens) > MAX_TOKENS:
            raise Unusable("too long")
        ends = [i for i, weight in enumerate(weights, 1) if weight]
        end = len(tokens) if self.learnt is None else ends[: self.learnt][-1]
        return tokens[:end], weights[:end]
