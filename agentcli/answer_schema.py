"""Validates the final answer against a JSON Schema: ``agentcli run --output-schema FILE``.

The model gets the schema with the task. An invalid answer goes back to it with the reason; after a
few of these the run ends unsolved.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema_rs

from agentcli.agent.critics import Judgement, Review, is_final
from agentcli.agent.state import AgentState
from agentcli.errors import UsageError
from agentcli.text import one_line

_ROUNDS = 3
_FENCED = re.compile(r"```(?:json)?[ \t]*\n(.*)\n```", re.DOTALL)


class AnswerSchema:
    """A critic that validates final answers against a JSON Schema."""

    def __init__(self, schema: dict[str, Any] | bool) -> None:
        """Raises ``ValueError`` if this is not a JSON Schema, or has references to the outside."""
        self._schema = schema
        self._validator = jsonschema_rs.validator_for(schema, retriever=_retrieve_nothing)
        self._failed = 0

    @classmethod
    def read(cls, file: Path) -> AnswerSchema:
        """Read a schema from a file.

        Raises:
            UsageError: it cannot be read, or is not a JSON Schema.
        """
        try:
            schema = json.loads(file.read_text(encoding="utf-8"))
            if not isinstance(schema, dict | bool):
                raise ValueError("a schema must be an object")
            return cls(schema)
        except OSError as error:
            raise UsageError(f"{file}: {error.strerror or error}") from error
        except (ValueError, RecursionError, jsonschema_rs.ReferencingError) as error:
            reason = getattr(error, "message", str(error))
            raise UsageError(f"{file}: not a JSON Schema: {one_line(reason, 200)}") from error

    @property
    def instruction(self) -> str:
        """The text that the model gets with the task."""
        schema = json.dumps(self._schema, ensure_ascii=False)
        return (
            "When you are done, your final answer must be one JSON value and nothing else, "
            f"valid against this JSON Schema:\n{schema}"
        )

    def value(self, answer: str) -> Any:
        """Parse and validate an answer.

        Raises:
            ValueError: the answer is invalid; the message is a sentence for the model.
        """
        text = answer.strip()
        if (fenced := _FENCED.fullmatch(text)) is not None:
            text = fenced[1]
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"it is not JSON: {error}") from error
        for fault in self._validator.iter_errors(value):
            place = "".join(f"[{step!r}]" for step in fault.instance_path) or "the value"
            raise ValueError(f"{place}: {one_line(fault.message, 300)}")
        return value

    def canonical(self, answer: str) -> str:
        """The answer as JSON in one line; unchanged if it does not fit the schema."""
        try:
            return json.dumps(self.value(answer), ensure_ascii=False)
        except ValueError:
            return answer

    async def review(self, state: AgentState) -> Review:
        """Send an invalid final answer back to the model."""
        if not is_final(state):
            return Review()
        try:
            self.value(state.history[-1].text)
        except ValueError as error:
            self._failed += 1
            reason = f"the answer does not fit the schema: {error}"
            if self._failed >= _ROUNDS:
                return Review(Judgement.STOP, reason)
            return Review(Judgement.RETRY, f"{reason[0].upper()}{reason[1:]}. Give it again.")
        return Review()


def _retrieve_nothing(uri: str) -> Any:
    raise ValueError(f"{uri} lies outside the schema")
