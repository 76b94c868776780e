"""Exports a session as OpenTelemetry spans, by the semantic conventions for generative AI.

There is one span for each run (``invoke_agent``), with a child for each answer (``chat``) and each
call (``execute_tool``). Spans contain no messages. This needs the extra ``otel``; the standard
variables, such as ``OTEL_EXPORTER_OTLP_ENDPOINT``, say where the spans go.
Source: opentelemetry.io/docs/specs/semconv/gen-ai (spans, agent spans), version 1.41.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode

from agentcli import __version__
from agentcli.agent.events import (
    Event,
    ModelAnswered,
    RetryScheduled,
    RunFinished,
    SessionStarted,
    Status,
    ToolFinished,
    ToolStarted,
)
from agentcli.agent.hooks import Hook
from agentcli.agent.state import AgentState
from agentcli.messages import Outcome

AGENT = "agentcli"


def exporting() -> TracerProvider:
    """A provider that sends its spans where the environment variables say."""
    provider = TracerProvider(
        resource=Resource.create({"service.name": AGENT, "service.version": __version__})
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


class Spans(Hook):
    """Turns the events of runs into spans. ``close`` sends what has not been sent yet."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer(AGENT, __version__)
        self._run: Span | None = None
        self._calls: dict[str, tuple[str, int]] = {}  # by id: tool name, start in ns

    async def on_event(self, event: Event, state: AgentState) -> None:
        """Open, close and describe spans."""
        match event:
            case SessionStarted():
                self._run = self._open(
                    f"invoke_agent {AGENT}", SpanKind.INTERNAL, self._about("invoke_agent", state)
                )
                self._run.set_attribute("gen_ai.agent.version", __version__)
            case ModelAnswered():
                self._answered(event, state)
            case ToolStarted(call=call):
                self._calls[call.id] = call.name, time.time_ns()
            case ToolFinished(result=result) if result.call_id in self._calls:
                span = self._called(result.call_id, state, event.asked_s)
                if result.outcome is not Outcome.OK:
                    error = result.data.get("error") or result.outcome.value
                    _failed(span, str(error), result.outcome.value)
                span.end()
            case RetryScheduled() if self._run is not None:
                self._run.add_event(
                    "retry",
                    {
                        "attempt": event.attempt,
                        "delay_s": event.delay_s,
                        "stage": event.stage.value,
                    },
                )
            case RunFinished() if self._run is not None:
                self._end(event, state)

    def close(self) -> None:
        """Send what is left, for at most some seconds."""
        self._provider.shutdown()

    def _open(
        self, name: str, kind: SpanKind, about: Mapping[str, str], start_ns: int | None = None
    ) -> Span:
        parent = trace.set_span_in_context(self._run) if self._run is not None else None
        return self._tracer.start_span(
            name, context=parent, kind=kind, attributes=dict(about), start_time=start_ns
        )

    def _about(self, operation: str, state: AgentState) -> dict[str, str]:
        provider, _, model = state.model.partition(":")
        about = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": provider,
            "gen_ai.conversation.id": state.session_id,
        }
        if operation != "execute_tool":
            about |= {"gen_ai.request.model": model or provider}
        if operation == "invoke_agent":
            about |= {"gen_ai.agent.name": AGENT}
        return about

    def _answered(self, event: ModelAnswered, state: AgentState) -> None:
        now = time.time_ns()
        about, usage = self._about("chat", state), event.usage
        start = now - int(event.duration_s * 1e9)
        span = self._open(f"chat {about['gen_ai.request.model']}", SpanKind.CLIENT, about, start)
        span.set_attribute("gen_ai.response.finish_reasons", (event.finish_reason.value,))
        span.set_attribute("gen_ai.response.time_to_first_chunk", event.first_token_s)
        span.set_attribute("gen_ai.usage.input_tokens", usage.input_tokens)
        span.set_attribute("gen_ai.usage.output_tokens", usage.output_tokens)
        span.set_attribute("gen_ai.usage.cache_read.input_tokens", usage.cached_tokens)
        span.set_attribute("gen_ai.usage.cache_creation.input_tokens", usage.cache_write_tokens)
        span.set_attribute("gen_ai.usage.reasoning.output_tokens", usage.reasoning_tokens)
        if event.cost_usd is not None:
            span.set_attribute("agentcli.cost_usd", event.cost_usd)
        span.end(now)

    def _called(self, call_id: str, state: AgentState, asked_s: float = 0.0) -> Span:
        """The span of a call, without the time spent waiting for the user's approval."""
        name, began = self._calls.pop(call_id)
        about = self._about("execute_tool", state) | {
            "gen_ai.tool.name": name,
            "gen_ai.tool.call.id": call_id,
            "gen_ai.tool.type": "function",
        }
        start = began + int(asked_s * 1e9)
        return self._open(f"execute_tool {name}", SpanKind.INTERNAL, about, start)

    def _end(self, event: RunFinished, state: AgentState) -> None:
        for call_id in list(self._calls):  # left open if the run could not be recorded
            self._called(call_id, state).end()
        run, self._run = self._run, None
        if run is None:
            return
        used = state.used.usage
        run.set_attribute("gen_ai.usage.input_tokens", used.input_tokens)
        run.set_attribute("gen_ai.usage.output_tokens", used.output_tokens)
        run.set_attribute("agentcli.stop_reason", event.reason.value)
        run.set_attribute("agentcli.steps", state.used.steps)
        if event.status in (Status.FAILED, Status.INVALID):
            _failed(run, event.error or event.reason.value, event.reason.value)
        run.end()


def _failed(span: Span, error: str, why: str) -> None:
    span.set_attribute("error.type", error)
    span.set_status(StatusCode.ERROR, why)
