"""Turns answers of the Messages API into stream events."""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from agentcli.llm.client import (
    Finished,
    StreamEvent,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
)
from agentcli.llm.counts import reported_usage
from agentcli.llm.remote import CallIds
from agentcli.llm.sdk_errors import Origin, broken_error, not_the_protocol
from agentcli.messages import FinishReason

_REASONS = {
    "max_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "refusal": FinishReason.CONTENT_FILTER,
}


class AnswerReader:
    """Reads one answer. ``used_ids`` are the call ids already in the history."""

    def __init__(self, origin: Origin, used_ids: Collection[str]) -> None:
        self._origin = origin
        self._ids = CallIds(used_ids)
        self._numbers = itertools.count()
        self._places: dict[int, int] = {}  # index to block number: some servers reuse indexes
        self._kinds: dict[int, str] = {}
        self._inputs: dict[int, Any] = {}
        self._written: set[int] = set()
        self._calls = 0
        self._usage: dict[str, Any] = {}
        self._stop_reason = ""
        self._begun = self._nameless = False
        self.whole = self.done = False

    def body(self, data: Mapping[str, Any]) -> Iterator[StreamEvent]:
        """Turn a complete answer into events, block by block."""
        content = data.get("content")
        if not isinstance(content, list):
            raise not_the_protocol(self._origin, "something other than a message")
        yield from self.event({"type": "message_start", "message": data})
        for index, block in enumerate(content):
            yield from self.event(
                {"type": "content_block_start", "index": index, "content_block": block}
            )
            cut = data.get("stop_reason") == "max_tokens" and index == len(content) - 1
            if not cut or self._kinds.get(index) != "tool_use":
                yield from self._stop(index)
        self._stop_reason = str(data.get("stop_reason") or "")
        self.whole = True

    def event(self, data: Mapping[str, Any]) -> Iterator[StreamEvent]:
        """Turn one server-sent event into stream events."""
        index = data.get("index")
        index = index if isinstance(index, int) else 0
        if data.get("type") == "content_block_start":
            self._places[index] = next(self._numbers)
        index = self._places.get(index, index)
        match data.get("type"):
            case "message_start":
                self._begun = True
                message = data.get("message")
                yield from self._count(message.get("usage") if isinstance(message, dict) else {})
            case "content_block_start":
                yield from self._start(index, data.get("content_block") or {})
            case "content_block_delta":
                yield from self._delta(index, data.get("delta") or {})
            case "content_block_stop":
                yield from self._stop(index)
            case "message_delta":
                delta = data.get("delta") or {}
                self._stop_reason = str(delta.get("stop_reason") or self._stop_reason)
                self.whole = bool(self._stop_reason)
                yield from self._count(data.get("usage"))
            case "message_stop":
                self.whole = self.done = True

    def end(self, *, marked: bool) -> Iterator[StreamEvent]:
        """Close the answer; see ``Reader``."""
        if not self._begun:
            raise not_the_protocol(self._origin, "something other than a message")
        if not self.whole:
            raise broken_error(self._origin, "it ended without a stop reason")
        if self._nameless:
            raise broken_error(self._origin, "a tool call has no name")
        natural = FinishReason.TOOL_CALLS if self._calls else FinishReason.STOP
        yield Finished(_REASONS.get(self._stop_reason, natural))

    def _start(self, index: int, block: Mapping[str, Any]) -> Iterator[StreamEvent]:
        kind = self._kinds[index] = str(block.get("type"))
        if kind == "tool_use":
            self._calls += 1
            self._nameless = self._nameless or not block.get("name")
            self._inputs[index] = block.get("input")
            call_id = self._ids.free(str(block.get("id") or ""))
            yield ToolCallStart(index, call_id, str(block.get("name") or ""))
        elif kind == "redacted_thinking":
            yield ThinkingDelta("", data=str(block.get("data") or ""))
        elif kind == "text" and block.get("text"):
            yield TextDelta(str(block["text"]))
        elif kind == "thinking" and (block.get("thinking") or block.get("signature")):
            signature = str(block.get("signature") or "")
            yield ThinkingDelta(str(block.get("thinking") or ""), signature)

    def _delta(self, index: int, delta: Mapping[str, Any]) -> Iterator[StreamEvent]:
        match delta:
            case {"type": "text_delta", "text": str(text)} if text:
                yield TextDelta(text)
            case {"type": "thinking_delta", "thinking": str(text)} if text:
                yield ThinkingDelta(text)
            case {"type": "signature_delta", "signature": str(signature)} if signature:
                yield ThinkingDelta("", signature)
            case {"type": "input_json_delta", "partial_json": str(text)} if text:
                if self._kinds.get(index) == "tool_use":
                    self._written.add(index)
                    yield ToolCallDelta(index, text)

    def _stop(self, index: int) -> Iterator[StreamEvent]:
        if self._kinds.get(index) != "tool_use":
            return
        if index not in self._written:
            given = self._inputs.get(index)
            text = given if isinstance(given, str) else json.dumps(given or {}, ensure_ascii=False)
            yield ToolCallDelta(index, text)
        yield ToolCallEnd(index)

    def _count(self, usage: object) -> Iterator[StreamEvent]:
        """Merge new counts field by field: later ones replace earlier ones."""
        if not isinstance(usage, Mapping):
            return
        self._usage |= {name: value for name, value in usage.items() if value is not None}
        counts = [
            self._usage.get(f"{name}_tokens") or 0
            for name in ("input", "cache_read_input", "cache_creation_input")
        ]
        details = self._usage.get("output_tokens_details")
        numbers = all(isinstance(count, int | float) for count in counts)
        yield reported_usage(
            prompt=sum(counts) if numbers and min(counts) >= 0 else counts,
            cached=counts[1],
            cache_written=counts[2],
            output=self._usage.get("output_tokens"),
            reasoning=details.get("thinking_tokens") if isinstance(details, Mapping) else 0,
        )
