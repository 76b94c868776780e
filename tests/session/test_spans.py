"""OpenTelemetry spans in the GenAI conventions, in the SDK and as exported over HTTP."""

from __future__ import annotations

import asyncio
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from agentcli.messages import Usage
from agentcli.session.spans import Spans
from agentcli.tools.approval import Answer, Approval
from agentcli.tools.approval import Reply as ApprovalReply
from tests.server import Reply
from tests.session.conftest import Sessions, shell

USAGE = Usage(100, 60, 0, 10, 4)


async def recorded(sessions: Sessions, script: list[Reply], **options: Any) -> list[ReadableSpan]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    await sessions.run(script, hooks=[Spans(provider)], **options)
    return list(exporter.get_finished_spans())


async def test_answers_and_calls_stand_below_their_run(sessions: Sessions) -> None:
    spans = await recorded(
        sessions,
        [Reply(calls=[("shell", {"command": "exit 3"})], usage=USAGE), Reply(text="No.")],
    )
    assert [(span.name, span.kind) for span in spans] == [
        ("chat scripted", SpanKind.CLIENT),
        ("execute_tool shell", SpanKind.INTERNAL),
        ("chat scripted", SpanKind.CLIENT),
        ("invoke_agent agentcli", SpanKind.INTERNAL),
    ]
    chat, call, _, run = spans
    assert run.parent is None
    for span in spans[:3]:
        assert span.parent is not None and span.parent.span_id == run.context.span_id
    assert chat.attributes is not None and call.attributes is not None
    told = dict(chat.attributes)
    session = told.pop("gen_ai.conversation.id")
    first = told.pop("gen_ai.response.time_to_first_chunk")
    assert isinstance(first, float)
    assert 0 < first <= ((chat.end_time or 0) - (chat.start_time or 0)) / 1e9
    assert told == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "scripted",
        "gen_ai.response.finish_reasons": ("tool_calls",),
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 10,
        "gen_ai.usage.cache_read.input_tokens": 60,
        "gen_ai.usage.cache_creation.input_tokens": 0,
        "gen_ai.usage.reasoning.output_tokens": 4,
    }
    assert call.attributes["gen_ai.tool.name"] == "shell"
    assert call.attributes["error.type"] == "failed"
    assert call.status.status_code is StatusCode.ERROR
    assert run.attributes is not None and run.attributes["gen_ai.conversation.id"] == session
    assert run.status.status_code is StatusCode.UNSET


async def test_a_call_begins_when_its_user_has_answered(sessions: Sessions) -> None:
    async def ask(approval: Approval) -> ApprovalReply:
        await asyncio.sleep(0.2)
        return ApprovalReply(Answer.NO)

    script = [shell("make x"), Reply(text="Done.")]
    chat, call, *_ = await recorded(sessions, script, mode="ask", ask=ask)
    assert call.name == "execute_tool shell"
    assert (call.start_time or 0) - (chat.end_time or 0) >= 0.19e9
    assert (call.end_time or 0) >= (call.start_time or 0)


async def test_a_failed_run_says_why(sessions: Sessions) -> None:
    (run,) = await recorded(sessions, [Reply(status=401)])
    assert run.attributes is not None
    assert run.attributes["error.type"] == "AuthenticationError"
    assert run.status.status_code is StatusCode.ERROR


class Collector(BaseHTTPRequestHandler):
    """Collects what an exporter sends."""

    received: list[bytes]

    def do_POST(self) -> None:
        self.received.append(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


async def test_they_go_where_the_environment_says(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    Collector.received = []
    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        await sessions.run([shell("echo private-words"), Reply(text="Done.")])
        server.shutdown()
    names, services = [], set()
    for body in Collector.received:
        for part in ExportTraceServiceRequest.FromString(body).resource_spans:
            services |= {a.value.string_value for a in part.resource.attributes}
            names += [span.name for scope in part.scope_spans for span in scope.spans]
        assert b"private-words" not in body
    assert sorted(names) == [
        *("chat scripted", "chat scripted", "execute_tool shell", "invoke_agent agentcli")
    ]
    assert "agentcli" in services
