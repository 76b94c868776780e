"""Faults that a run may meet, and how it must handle them: the table in docs/providers.md.

Each row runs on every wire, streamed and as one body. The server first sends the replies of the
row, then a good answer; the row says how the run must respond.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from agentcli.messages import Usage
from tests.server import Reply
from tests.wires import wire_of

PATHS = {"chat": "/chat/completions", "responses": "/responses", "messages": "/messages"}
LENGTH = {"chat": "length", "responses": "max_output_tokens", "messages": "max_tokens"}
CONTEXT = {"chat": "context_length_exceeded", "responses": "context_length_exceeded"}
QUOTA = {"chat": "insufficient_quota", "responses": "insufficient_quota"}
ERROR_EVENT: Mapping[str, Mapping[str, str]] = {
    "chat": {"message": "broke", "code": "server_error"},
    "responses": {"message": "broke", "code": "server_error"},
    "messages": {"message": "broke", "type": "api_error"},
}

TEXT = Reply(text="Half of an answer is worth nothing. " * 8)
CALL = Reply(text="Look:", calls=[("echo", {"text": "never to be seen " * 20})])
PAGE = b"<!doctype html><html><body>Welcome to the wrong port</body></html>"
JSON = "application/json"
WINDOW = 1000
"""The context window, in tokens, of the models in these tests."""

Make: TypeAlias = Callable[[str, bool], Sequence[Reply]]


@dataclass(frozen=True)
class Row:
    """One fault. ``replies`` makes the server's replies for a wire, streamed or not.

    ``outcome`` is the text in the table. The run ends with an ``error`` (the name of its class;
    exit code 3) whose message contains ``says``, or with the answer "done". Before that there are
    so many ``retries`` and ``rejected`` answers. ``tools`` describes the tool results in the order
    of their calls: an outcome, or a part of the text. ``patience_s`` limits the silence of the
    server, in seconds.
    """

    replies: Make
    outcome: str
    error: str = ""
    says: str = ""
    retries: int = 0
    rejected: int = 0
    tools: Sequence[str] = ()
    prompt: str = "go"
    patience_s: float = 30.0


def always(*replies: Reply) -> Make:
    return lambda wire, streaming: replies


def broken(reply: Reply, way: str, share: float = 0.6) -> Make:
    """Send a share of the reply's bytes, then fail as the field ``way`` of Reply says."""

    def make(wire: str, streaming: bool) -> Sequence[Reply]:
        format_ = wire_of(PATHS[wire])
        assert format_ is not None
        request = {"model": "m", "stream": streaming}
        body = format_.stream(reply, request) if streaming else format_.body(reply, request)
        at: dict[str, Any] = {way: int(len(body) * share)}
        return [replace(reply, **at)]

    return make


def more_after_the_end(wire: str, streaming: bool) -> Sequence[Reply]:
    """A stream that is repeated after its end."""
    if not streaming:
        return [CALL]
    format_ = wire_of(PATHS[wire])
    assert format_ is not None
    return [Reply(body=2 * format_.stream(CALL, {"model": "m", "stream": True}), stream=True)]


def error_event(wire: str, streaming: bool) -> Sequence[Reply]:
    if streaming:
        return [replace(TEXT, error_event=ERROR_EVENT[wire])]
    return [Reply(body=json.dumps({"error": ERROR_EVENT[wire]}).encode())]


def circle(wire: str, streaming: bool) -> Sequence[Reply]:
    """A server that redirects every request to the same address."""
    return [Reply(status=307, headers={"location": f"/v1{PATHS[wire]}"})] * 20


ABSURD: Any = [10**30, -5, math.inf, math.nan]


def coded(status: int, codes: Mapping[str, str], other: str) -> Make:
    return lambda wire, streaming: [Reply(status=status, code=codes.get(wire, other))]


def at_the_limit(reply: Reply) -> Make:
    return lambda wire, streaming: [replace(reply, finish=LENGTH[wire])]


def call(arguments: Mapping[str, Any] | str, name: str = "echo") -> Make:
    return always(Reply(calls=[(name, arguments)]))


def recovered(make: Make, retries: int = 1) -> Row:
    return Row(make, "asked again", retries=retries)


def once_more(make: Make) -> Row:
    return Row(make, "asked once more", retries=1)


def silent(make: Make) -> Row:
    return replace(once_more(make), patience_s=0.5)


def fatal(make: Make, error: str, says: str) -> Row:
    return Row(make, f"ends: {error}", error=error, says=says)


def told(make: Make, text: str, *more: str) -> Row:
    return Row(make, "the model is told", tools=(text, *more))


BUSY = Reply(status=429, headers={"retry-after": "0.05"})
DATED = Reply(status=429, headers={"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"})
TWO = [("echo", {"text": "one"}), ("echo", {"text": "two"})]

ROWS: dict[str, Row] = {
    "429, Retry-After in seconds": recovered(always(BUSY)),
    "429, Retry-After as a date": recovered(always(DATED)),
    "429, three times": recovered(always(BUSY, DATED, Reply(status=429)), 3),
    "429, Retry-After beyond two minutes": fatal(
        always(Reply(status=429, headers={"retry-after": "3600"})), "RateLimitError", "Try again"
    ),
    "500": recovered(always(Reply(status=500))),
    "502 with an HTML page": recovered(always(Reply(status=502, body=PAGE))),
    "503": recovered(always(Reply(status=503))),
    "529": recovered(always(Reply(status=529))),
    "500 with a body that breaks off": recovered(
        always(Reply(status=500, body=b'{"error":', close_after=9))
    ),
    "500, again and again": Row(
        always(*[Reply(status=500)] * 4),
        "ends: RetryExhaustedError",
        error="RetryExhaustedError",
        says="after 4 attempts",
        retries=3,
    ),
    "425": recovered(always(Reply(status=425))),
    "408": once_more(always(Reply(status=408))),
    "a reset before the head": recovered(always(Reply(reset_before_head=True))),
    "a reset in mid-text": recovered(broken(TEXT, "reset_after")),
    "a reset inside a call": recovered(broken(CALL, "reset_after", 0.75)),
    "a close in mid-text": recovered(broken(TEXT, "close_after")),
    "a close inside a call": recovered(broken(CALL, "close_after", 0.75)),
    "a proper end in mid-text": recovered(broken(TEXT, "cut_after")),
    "a proper end inside a call": recovered(broken(CALL, "cut_after", 0.75)),
    "an error event inside the stream": recovered(error_event),
    "a stall past the deadline": silent(broken(TEXT, "stall_after")),
    "signs of life but no answer": silent(
        always(Reply(body=b": wait\n\n" * 99, stream=True, split=8, pause_s=0.02))
    ),
    "an HTML page with status 200": recovered(always(Reply(body=PAGE, content_type="text/html"))),
    "an empty body with status 200": recovered(always(Reply(body=b""))),
    "204": recovered(always(Reply(status=204, body=b""))),
    "bytes that are no gzip though they say so": recovered(
        always(Reply(body=b"no", headers={"content-encoding": "gzip"}))
    ),
    "JSON of another kind": recovered(always(Reply(body=b'{"hello": "world"}', stream=False))),
    "a call without a name": recovered(call({"text": "x"}, name="")),
    "400": fatal(always(Reply(status=400)), "BadRequestError", "refused the request"),
    "400 to a request as long as the window": replace(
        fatal(always(Reply(status=400)), "ContextWindowError", "scripted failure"),
        prompt="the " * int(0.88 * WINDOW),  # about 930 tokens, by the estimate and by OpenAI's
    ),
    "400 or 413 with the code of a full context": fatal(
        coded(400, CONTEXT, "request_too_large"), "ContextWindowError", "context window"
    ),
    "a redirect that would lose the request": fatal(
        always(Reply(status=301, headers={"location": "https://elsewhere.example/v1"})),
        "BadRequestError",
        "redirects to https://elsewhere.example/v1",
    ),
    "a redirect in a circle": fatal(circle, "BadRequestError", "redirects in a circle"),
    "401": fatal(always(Reply(status=401)), "AuthenticationError", "Set THE_KEY"),
    "402": fatal(always(Reply(status=402)), "QuotaError", "Add credit"),
    "403": fatal(always(Reply(status=403)), "AccessDeniedError", "Check what the key"),
    "404": fatal(always(Reply(status=404)), "ModelNotFoundError", "Check the name"),
    "429 with the code of an exhausted quota": fatal(
        coded(429, QUOTA, "billing_error"), "QuotaError", "Add credit"
    ),
    "an empty answer": Row(always(Reply(text="")), "asked again, saying why", rejected=1),
    "an empty answer, three times": Row(
        always(*[Reply(text=" \n")] * 3),
        "ends: provider_failed",
        error="provider_failed",
        says="no usable answer after 3 tries",
        rejected=3,
    ),
    "the token limit in text": Row(at_the_limit(TEXT), "asked again, saying why", rejected=1),
    "the token limit inside a call": Row(at_the_limit(CALL), "asked again, saying why", rejected=1),
    "no usage": Row(
        always(replace(CALL, usage=None)), "goes on, the cost is unknown", tools=("ok",)
    ),
    "counts of tokens that cannot be": Row(
        always(*[Reply(calls=TWO[:1], usage=Usage(n, output_tokens=n)) for n in ABSURD]),
        "left out, said once",
        tools=("ok",) * len(ABSURD),
    ),
    "an answer under a wrong content type": Row(
        always(replace(CALL, content_type="text/plain"), replace(CALL, content_type=JSON)),
        "read as what it is",
        tools=("ok", "ok"),
    ),
    "more after the end of an answer": Row(more_after_the_end, "left out", tools=("ok",)),
    "null for arguments": told(call("null"), '"text"'),
    "empty arguments": told(call(""), '"text"'),
    "truncated arguments": told(call('{"text": "abc'), "not valid JSON"),
    "arguments with something behind": told(call('{"text": "a"} and so on'), "not valid JSON"),
    "arguments that are a list": told(call('["a"]'), "must be an object"),
    "a missing argument": told(call({}), '"text"'),
    "an argument of the wrong type": told(call({"text": [1, 2]}), '"text"'),
    "an unknown tool": told(call({"x": 1}, name="no such/tool"), "unknown tool"),
    "parallel calls": Row(
        always(Reply(calls=TWO)), "run together, results in order", tools=("one", "two")
    ),
    "parallel calls, interleaved": Row(
        always(Reply(calls=TWO, one_by_one=False)),
        "run together, results in order",
        tools=("one", "two"),
    ),
    "duplicate call ids": Row(
        always(
            Reply(calls=TWO, call_ids=["same", "same"]),
            Reply(calls=TWO[:1], call_ids=["same"]),
        ),
        "get ids of their own",
        tools=("one", "two", "one"),
    ),
    "calls without ids": Row(
        always(Reply(calls=TWO, call_ids=["", ""])), "get ids of their own", tools=("one", "two")
    ),
}

# These need the real shell tool in a real sandbox.
COMMANDS: dict[str, tuple[str, str]] = {
    "a background child that holds the pipe": ("sleep 300 & echo started", "started"),
    "a command that reads stdin": ("cat; echo at its end", "at its end"),
    "4 MB of output": ("yes 0123456789abcdef | head -c 4000000", "characters left out"),
    "output that is not UTF-8": (r"printf 'caf\351 \377\n'", "caf\ufffd \ufffd"),
    "a command that is killed": ("kill -9 $$", "exit code 137"),
}
COMMAND_OUTCOME = "the result is there at once and tells it"

COUNTED = Usage(input_tokens=100, output_tokens=10)
