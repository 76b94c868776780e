"""Turns answers of Chat Completions servers into stream events.

Servers deviate from the format in many small ways. Handled here: calls without an id or index, one
index or id for several calls, arguments as an object or null, everything in one chunk, the finish
reason "stop" despite calls, no finish reason at all before ``[DONE]``, and thoughts in the text.

Some servers expect opaque data back, which is kept as ``Thinking.data``: a call's
``extra_content`` (Gemini's signatures) before the call, ``reasoning_details`` (OpenRouter) at the
end of the answer.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from agentcli.llm.client import (
    Finished,
    StreamEvent,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    UsageDelta,
)
from agentcli.llm.counts import reported_usage
from agentcli.llm.openai_request import sealed
from agentcli.llm.remote import CallIds
from agentcli.llm.sdk_errors import Origin, broken_error, not_the_protocol, stream_error
from agentcli.llm.thought_tags import ThoughtTags
from agentcli.messages import FinishReason

_REASONS = {
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "length": FinishReason.LENGTH,
    "max_tokens": FinishReason.LENGTH,
    "model_length": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
}


@dataclass
class _Call:
    index: int
    wire_id: str = ""
    name: str = ""
    started: bool = False
    arguments: list[str] = field(default_factory=list)


class AnswerReader:
    """Reads one answer. ``used_ids`` are the call ids already in the history."""

    def __init__(self, origin: Origin, used_ids: Collection[str]) -> None:
        self._origin = origin
        self._ids = CallIds(used_ids)
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._call_is_last = False
        self._tags = ThoughtTags()
        self._is_chat = False
        self._details: list[dict[str, Any]] = []
        self.finish: str = ""
        self.done = False  # [DONE] is not an event

    @property
    def whole(self) -> bool:
        """Whether the finish reason has come; only the usage can follow."""
        return bool(self.finish)

    def body(self, data: Mapping[str, Any]) -> Iterator[StreamEvent]:
        """Turn a complete answer into events: it is like one big chunk."""
        return self.event(data)

    def event(self, data: Mapping[str, Any]) -> Iterator[StreamEvent]:
        """Turn one chunk into events."""
        choices = data.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if isinstance(choice, Mapping):
            self._is_chat = True
            delta = choice.get("delta") or choice.get("message")
            if isinstance(delta, Mapping):
                yield from self._delta(delta)
            self.finish = str(choice.get("finish_reason") or self.finish)
            if self.finish == "error":
                raise stream_error(self._origin, choice.get("error") or {})
        usage = data.get("usage")
        if isinstance(usage, Mapping):
            yield _usage(usage)

    def end(self, *, marked: bool) -> Iterator[StreamEvent]:
        """Close the answer; see ``Reader``."""
        if marked and not self._is_chat:
            raise not_the_protocol(self._origin, "something other than a chat completion")
        if not self.finish and not (marked and all(map(_is_whole, self._calls))):
            raise broken_error(self._origin, "it ended without a finish reason")
        yield from self._tags.end()
        reason = _REASONS.get(self.finish, FinishReason.STOP)
        calls = [call for call in self._calls if call.started]
        if len(calls) < len(self._calls) and reason is not FinishReason.LENGTH:
            raise broken_error(self._origin, "a tool call has no name")
        if reason in (FinishReason.STOP, FinishReason.TOOL_CALLS):
            reason = FinishReason.TOOL_CALLS if calls else FinishReason.STOP
        if self._details:
            data = sealed(self._origin.provider, reasoning_details=self._details)
            yield ThinkingDelta("", data=data)
        cut = reason is FinishReason.LENGTH and self._call_is_last
        for call in calls[:-1] if cut else calls:
            if not call.arguments:
                yield ToolCallDelta(call.index, "{}")
            yield ToolCallEnd(call.index)
        yield Finished(reason)

    def _delta(self, delta: Mapping[str, Any]) -> Iterator[StreamEvent]:
        thinking = delta.get("reasoning_content") or delta.get("reasoning")
        if isinstance(thinking, str) and thinking:
            yield ThinkingDelta(thinking)
        for detail in delta.get("reasoning_details") or ():
            if isinstance(detail, dict):
                _merge(self._details, detail)
        for content in (delta.get("content"), delta.get("refusal")):
            if isinstance(content, str) and content:
                self._call_is_last = False
                yield from self._tags.feed(content)
            elif isinstance(content, list):
                yield from self._parts(content)
        calls = delta.get("tool_calls")
        if not calls and isinstance(older := delta.get("function_call"), Mapping):
            calls = [{"index": 0, "function": older}]
        if isinstance(calls, list):
            if calls:
                yield from self._tags.end()
            for position, piece in enumerate(calls):
                if isinstance(piece, Mapping):
                    yield from self._call_piece(piece, position if len(calls) > 1 else None)

    def _parts(self, parts: list[Any]) -> Iterator[StreamEvent]:
        """Handle content that is a list of parts, as from Mistral's reasoning models."""
        for part in parts:
            if not isinstance(part, Mapping):
                continue
            if isinstance(text := part.get("text"), str) and text:
                self._call_is_last = False
                yield TextDelta(text)
            for thought in part.get("thinking") or ():
                if isinstance(thought, Mapping) and thought.get("text"):
                    yield ThinkingDelta(str(thought["text"]))

    def _call_piece(self, piece: Mapping[str, Any], position: int | None) -> Iterator[StreamEvent]:
        function = piece.get("function")
        function = function if isinstance(function, Mapping) else {}
        call = self._call_of(piece, function, position)
        self._call_is_last = True
        if not call.name and function.get("name"):
            call.name = str(function["name"])
        arguments = _text_of(function.get("arguments"))
        if arguments:
            call.arguments.append(arguments)
        if not call.name:
            return
        if not call.started:
            call.started = True
            if extra := piece.get("extra_content"):
                data = sealed(self._origin.provider, extra_content=extra)
                yield ThinkingDelta("", data=data)
            yield ToolCallStart(call.index, self._ids.free(call.wire_id), call.name)
            arguments = "".join(call.arguments)
        if arguments:
            yield ToolCallDelta(call.index, arguments)

    def _call_of(
        self, piece: Mapping[str, Any], function: Mapping[str, Any], position: int | None
    ) -> _Call:
        """The call that a piece belongs to, new if it cannot be one of the open calls."""
        wire_id, index = str(piece.get("id") or ""), piece.get("index")
        if not isinstance(index, int):
            index = position
        open_call = self._by_index.get(index) if index is not None else None
        if open_call is None and index is None and self._calls:
            open_call = self._calls[-1]
        if wire_id and not function.get("name") and wire_id != getattr(open_call, "wire_id", ""):
            same = (call for call in self._calls if call.wire_id == wire_id)
            open_call = next(same, open_call)
        if open_call is not None and not _starts_new_call(open_call, wire_id, function):
            return open_call
        call = _Call(len(self._calls), wire_id)
        self._calls.append(call)
        if index is not None:
            self._by_index[index] = call
        return call


def _starts_new_call(open_call: _Call, wire_id: str, function: Mapping[str, Any]) -> bool:
    """Whether a piece with the index of an open call starts a new call."""
    name = str(function.get("name") or "")
    if not name:
        return False
    if wire_id and wire_id != open_call.wire_id:
        return bool(open_call.wire_id or open_call.name)
    if open_call.name and name != open_call.name:
        return True
    more = _text_of(function.get("arguments")).strip()
    return bool(more and open_call.arguments) and _is_whole(open_call)


def _merge(details: list[dict[str, Any]], piece: dict[str, Any]) -> None:
    """Join the pieces of one detail: append texts, replace other fields."""
    place = [piece.get(name) for name in ("type", "index", "id")]
    for known in details:
        if [known.get(name) for name in ("type", "index", "id")] == place:
            for name, value in piece.items():
                if name in ("text", "summary", "data") and isinstance(known.get(name), str):
                    known[name] += value or ""
                elif value is not None:
                    known[name] = value
            return
    details.append(dict(piece))


def _is_whole(call: _Call) -> bool:
    try:
        json.loads("".join(call.arguments) or "{}")
    except ValueError:
        return False
    return True


def _text_of(arguments: object) -> str:
    if arguments is None:
        return ""
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _usage(usage: Mapping[str, Any]) -> UsageDelta:
    prompt, completion = _details(usage, "prompt"), _details(usage, "completion")
    return reported_usage(
        prompt=usage.get("prompt_tokens"),
        cached=prompt.get("cached_tokens") or usage.get("prompt_cache_hit_tokens"),
        cache_written=prompt.get("cache_write_tokens"),
        output=usage.get("completion_tokens"),
        reasoning=completion.get("reasoning_tokens"),
    )


def _details(usage: Mapping[str, Any], side: str) -> Mapping[str, Any]:
    details = usage.get(f"{side}_tokens_details")
    return details if isinstance(details, Mapping) else {}
