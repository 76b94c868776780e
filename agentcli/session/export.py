"""Exports a session as Markdown, as one JSON object, or as its raw journal."""

from __future__ import annotations

import json
import re
from enum import StrEnum

from agentcli.agent.state import AgentState
from agentcli.errors import JournalError
from agentcli.messages import Message, Role, Text, Thinking, ToolCall, to_json
from agentcli.session.journal import open_regular
from agentcli.session.store import journal_path, load_state


class Format(StrEnum):
    """The formats of ``sessions export``."""

    MARKDOWN = "markdown"
    JSON = "json"
    JOURNAL = "journal"


def exported(session_id: str, form: Format) -> str:
    """The whole session in the given format.

    Raises:
        UsageError: there is no such session.
        JournalError: its journal cannot be read.
    """
    if form is Format.JOURNAL:
        path = journal_path(session_id)
        try:
            with open_regular(path) as file:
                return file.read().decode("utf-8", "replace")
        except OSError as error:
            raise JournalError(f"cannot read {path}: {error.strerror}") from error
    state = load_state(session_id)
    return _json(state) if form is Format.JSON else _markdown(state)


def _json(state: AgentState) -> str:
    value = {
        "session_id": state.session_id,
        "workspace": state.workspace,
        "model": state.model,
        "task": state.task,
        "status": str(state.status or ""),
        "answer": state.answer,
        "files_changed": list(state.files_changed),
        "messages": [to_json(message) for message in state.history],
    }
    return json.dumps(value, indent=2) + "\n"


def _markdown(state: AgentState) -> str:
    head = [
        f"# Session {state.session_id}",
        f"Model {state.model} in `{state.workspace}`, {state.status or 'not ended'}.",
    ]
    return "\n\n".join([*head, *filter(None, map(_message, state.history))]) + "\n"


def _message(message: Message) -> str:
    if message.role is Role.TOOL:
        result = message.result
        return f"### {result.name}: {result.outcome}\n\n{_fenced(result.diff or result.content)}"
    parts = []
    for part in message.parts:
        match part:
            case Text(text) if text.strip():
                parts.append(text.strip())
            case Thinking(text) if text.strip():
                parts.append("> " + text.strip().replace("\n", "\n> "))
            case ToolCall(name=name, arguments=arguments):
                parts.append(f"Calls `{name}`:\n\n{_fenced(arguments)}")
    return f"## {message.role.value.capitalize()}\n\n" + "\n\n".join(parts) if parts else ""


def _fenced(text: str) -> str:
    """A code block whose fence is longer than any fence inside it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text.rstrip()}\n{fence}"
