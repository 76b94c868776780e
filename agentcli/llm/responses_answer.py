"""Turns answers of the Responses API into stream events."""

from __future__ import annotations

import itertools
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
    UsageDelta,
)
from agentcli.llm.counts import reported_usage
from agentcli.llm.remote import CallIds
from agentcli.llm.sdk_errors import Origin, broken_error, not_the_protocol, stream_error
from agentcli.llm.wire_cache import dumps
from agentcli.messages import FinishReason

_REASONS = {
    "max_output_tokens": FinishReason.LENGTH,
    "max_tokens": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
}
_KEPT = ("type", "id", "summary", "content", "encrypted_content")


class AnswerReader:
    """Reads one answer. ``used_ids`` are the call ids already in the history."""

    def __init__(self, origin: Origin, used_ids: Collection[str]) -> None:
        self._origin = origin
        self._ids = CallIds(used_ids)
        self._numbers = itertools.count()
        self._items: dict[object, int] = {}  # ids and indexes of unfinished items to their numbers
        self._open: dict[int, bool] = {}  # call to whether its arguments have begun
        self._streamed: set[int] = set()  # items whose text came as deltas
        self._calls = 0
        self._reason = ""
        self._begun = self._nameless = False
        self.whole = self.done = False

    def body(self, data: Mapping[str, Any]) -> Iterator[StreamEvent]:
        """Turn a complete answer into events, item by item."""
        output = data.get("output")
        if not isinstance(output, list):
            raise not_the_protocol(self._origin, "something other than a response")
        for index, item in enumerate(output):
            yield from self.event(
                {"type": "response.output_item.done", "output_index": index, "item": item}
            )
        yield from self._final(data)

    def event(self, data: Mapping[str, Any]) -> Iterator[StreamEvent]:
        """Turn one server-sent event into stream events."""
        kind = str(data.get("type") or "")
        index = self._item(data, new=kind == "response.output_item.added")
        delta = data.get("delta")
        self._begun = self._begun or kind.startswith("response.")
        match kind:
            case "response.output_item.added":
                yield from self._added(index, data.get("item") or {})
            case "response.output_text.delta" | "response.refusal.delta" if delta:
                self._streamed.add(index)
                yield TextDelta(str(delta))
            case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta" if delta:
                self._streamed.add(index)
                yield ThinkingDelta(str(delta))
            case "response.reasoning_summary_part.added" if index in self._streamed:
                yield ThinkingDelta("\n\n")
            case "response.function_call_arguments.delta" if index in self._open and delta:
                self._open[index] = True
                yield ToolCallDelta(index, str(delta))
            case "response.output_item.done":
                yield from self._done(index, data.get("item") or {})
                self._items = {name: item for name, item in self._items.items() if item != index}
            case "response.completed" | "response.incomplete" | "response.failed":
                yield from self._final(data.get("response") or {})
            case "error":
                raise stream_error(self._origin, data)

    def end(self, *, marked: bool) -> Iterator[StreamEvent]:
        """Close the answer; see ``Reader``."""
        if not self._begun:
            raise not_the_protocol(self._origin, "something other than a response")
        if not self.whole:
            raise broken_error(self._origin, "it ended without a final event")
        if self._nameless:
            raise broken_error(self._origin, "a tool call has no name")
        natural = FinishReason.TOOL_CALLS if self._calls else FinishReason.STOP
        yield Finished(_REASONS.get(self._reason, natural))

    def _item(self, data: Mapping[str, Any], *, new: bool) -> int:
        """The number of an event's item, by its id or else by its index.

        llama.cpp sends no indexes, transformers ends an item under the index of a later one, others
        use an index for several items, or change an item's id from event to event.
        """
        item, index = data.get("item"), data.get("output_index")
        names = [index if isinstance(index, int) else 0]
        if name := data.get("item_id") or (item.get("id") if isinstance(item, Mapping) else None):
            names.insert(0, name)
        known = [self._items[name] for name in names if name in self._items]
        if known and not new:
            return known[0]
        number = next(self._numbers)
        self._items |= dict.fromkeys(names, number)
        return number

    def _added(self, index: int, item: Mapping[str, Any]) -> Iterator[StreamEvent]:
        if item.get("type") == "function_call":
            self._open[index] = False
            self._calls += 1
            self._nameless = self._nameless or not item.get("name")
            call_id = self._ids.free(str(item.get("call_id") or ""))
            yield ToolCallStart(index, call_id, str(item.get("name") or ""))

    def _done(self, index: int, item: Mapping[str, Any]) -> Iterator[StreamEvent]:
        match item.get("type"):
            case "function_call":
                if index not in self._open:
                    yield from self._added(index, item)
                if not self._open[index]:
                    yield ToolCallDelta(index, str(item.get("arguments") or "{}"))
                if item.get("status") != "incomplete":
                    yield ToolCallEnd(index)
            case "message" if index not in self._streamed:
                for part in item.get("content") or ():
                    if text := part.get("text") or part.get("refusal"):
                        yield TextDelta(str(text))
            case "reasoning":
                parts = item.get("summary") or item.get("content") or ()
                text = "\n\n".join(str(part.get("text") or "") for part in parts)
                # The service only accepts reasoning back with its encrypted content.
                kept = {name: item[name] for name in _KEPT if item.get(name) is not None}
                data = dumps(kept).decode() if item.get("encrypted_content") else ""
                if (text and index not in self._streamed) or data:
                    yield ThinkingDelta("" if index in self._streamed else text, data=data)

    def _final(self, response: Mapping[str, Any]) -> Iterator[StreamEvent]:
        if response.get("status") in ("failed", "cancelled"):
            raise stream_error(self._origin, response.get("error") or {})
        details = response.get("incomplete_details")
        if isinstance(details, Mapping):
            self._reason = str(details.get("reason") or "")
        self._begun = self.whole = self.done = True
        usage = response.get("usage")
        if isinstance(usage, Mapping):
            yield _usage(usage)


def _usage(usage: Mapping[str, Any]) -> UsageDelta:
    read, written = usage.get("input_tokens_details"), usage.get("output_tokens_details")
    read = read if isinstance(read, Mapping) else {}
    return reported_usage(
        prompt=usage.get("input_tokens"),
        cached=read.get("cached_tokens"),
        cache_written=read.get("cache_write_tokens"),
        output=usage.get("output_tokens"),
        reasoning=written.get("reasoning_tokens") if isinstance(written, Mapping) else 0,
    )
