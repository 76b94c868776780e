"""The output of a run in a pipe: plain lines, one JSON object, or one object per line."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace

from agentcli.agent.events import (
    AnswerRejected,
    CheckFinished,
    CheckStarted,
    Compacted,
    CompactionUndone,
    Delta,
    ModelChanged,
    PrefixBroken,
    RunFinished,
    SoftCapReached,
    Status,
    StepStarted,
    StopReason,
    StreamReset,
)
from agentcli.cli.render import (
    JsonRenderer,
    PlainRenderer,
    Renderer,
    StreamRenderer,
    result_object,
    summary_lines,
)
from agentcli.llm.client import TextDelta
from agentcli.messages import Usage
from tests.cli.events import HOSTILE, READ, SESSION, answered, run_events, summary

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]")


def play(renderer: Renderer) -> None:
    events = run_events()
    for event in events:
        renderer.event(event)
    renderer.finish(summary(events))
    renderer.close()


def test_plain_lines() -> None:
    log, answer = io.StringIO(), io.StringIO()
    play(PlainRenderer(log, answer))
    text = log.getvalue()
    assert text.startswith("agentcli 0.1.0 · fake:m · mode auto\nworkspace /repo\nsandbox full")
    assert "Let me look.\n> read_file stats.py start=3\n  2 lines (0.0 s)\n" in text
    assert (
        "> search_replace stats.py\n  replaced 1 occurrence in stats.py at line 4 (0.0 s)" in text
    )
    assert "  @@ -1,2 +1,2 @@\n   def median():\n  -    old\n  +    new\nphase edit\n" in text
    assert (
        "tests failed (exit code 1) [failed] (1 min 5 s)\n  ... 15 earlier lines\n  line 14" in text
    )
    assert "attempt 1 failed, the next in 2.0 s: the server is busy\n" in text
    assert "answer not used: the answer was empty\nwarning: a hook failed\n" in text
    assert "objection: it is no JSON " in text
    assert "check passed: pytest -q\nstep 3 · " in text
    assert "\nsolved · 3 steps · 3,010 tokens in (1,200" in text
    assert f"session {SESSION.session_id}: agentcli sessions show {SESSION.session_id}\n" in text
    assert "go on with" not in text
    assert not CONTROL.search(text)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def streaming(renderer: Renderer, step: int, *texts: str) -> None:
    renderer.event(StepStarted(step))
    for text in texts:
        renderer.event(Delta(step, TextDelta(text)))


def test_on_a_terminal_text_appears_as_it_is_written_and_once() -> None:
    screen = Terminal()
    renderer = PlainRenderer(screen, screen)
    streaming(renderer, 1, "Let me", " look.")
    assert screen.getvalue() == "Let me look."
    renderer.event(answered(1, "Let me look.", READ))
    streaming(renderer, 2, "\n\nIt ", "is\x1b[31m")
    renderer.event(StreamReset(2, "the connection broke"))
    assert screen.getvalue() == "Let me look.\nIt is\\x1b[31m\n"
    for text in ("It is", " 3.\n"):
        renderer.event(Delta(2, TextDelta(text)))
    renderer.event(answered(2, "It is 3."))
    end = RunFinished(StopReason.FINAL, Status.SOLVED, "It is 3.")
    renderer.finish(summary([SESSION, end]))
    assert screen.getvalue().startswith("Let me look.\nIt is\\x1b[31m\nIt is 3.\nsolved")


def test_an_answer_that_replaces_the_streamed_one_is_written() -> None:
    screen = Terminal()
    renderer = PlainRenderer(screen, screen)
    streaming(renderer, 1, "All is well.")
    renderer.event(AnswerRejected(1, "it is not", Usage(), 0.0))
    end = RunFinished(StopReason.DECLINED, Status.UNSOLVED, "I cannot do that.")
    renderer.finish(summary([SESSION, end]))
    text = screen.getvalue()
    assert text.startswith("All is well.\nanswer not used: it is not\nI cannot do that.\nunsolved")


def test_a_chat_opens_once() -> None:
    log = io.StringIO()
    renderer = PlainRenderer(log, io.StringIO())
    for _ in range(3):
        renderer.event(SESSION)
    assert log.getvalue().count("workspace /repo") == 1


def test_cached_and_fresh_tokens_are_shown_for_each_step() -> None:
    log = io.StringIO()
    play(PlainRenderer(log, io.StringIO()))
    steps = [line for line in log.getvalue().split("\n") if line.startswith("step ")]
    assert steps[0] == "step 1 · 1,000 tokens in (400 cached, 600 fresh), 50 out · 1.0 s"
    assert [line.partition(" ·")[0] for line in steps] == ["step 1", "step 2", "step 3"]
    assert "1,010 tokens in" in steps[2]  # including the rejected answer


def test_compactions_are_shown() -> None:
    log = io.StringIO()
    renderer = PlainRenderer(log, io.StringIO())
    renderer.event(Compacted(3, "near the limit", 134_000, 61_000, ("keep_last_n",), ()))
    renderer.event(PrefixBroken(3, "compaction", 61_000))
    renderer.event(CompactionUndone(3))
    renderer.event(SoftCapReached(4, "tool_calls", 40, 40))
    renderer.event(SoftCapReached(4, "failed_edits a b.py", 3, 3))
    renderer.event(SoftCapReached(4, "cost_usd", 0.81, 0.8))
    renderer.event(SoftCapReached(4, "steps", 3, 3 * 0.8))
    assert log.getvalue().split("\n") == [
        "conversation compacted (near the limit): about 134,000 tokens are 61,000 now",
        "about 61,000 tokens must be read again: the conversation was compacted",
        "the last compaction was undone",
        "soft cap reached: 40 tool calls (cap 40)",
        "soft cap reached: 3 failed edits of a b.py (cap 3)",
        "soft cap reached: 0.81 US dollars (cap 0.8)",
        "soft cap reached: 3 steps (cap 3)",
        "",
    ]


def test_only_the_answer_goes_to_stdout_and_as_it_is() -> None:
    log, answer = io.StringIO(), io.StringIO()
    play(PlainRenderer(log, answer))
    assert answer.getvalue() == f"Done <T>. {HOSTILE.replace(chr(0xDCFF), chr(0xFFFD))}\n"


def test_a_run_that_can_go_on_says_how() -> None:
    log = io.StringIO()
    stopped = RunFinished(StopReason.BUDGET_STEPS, Status.STOPPED, "", "3 steps are used up", 1)
    PlainRenderer(log, io.StringIO()).finish(summary([SESSION, stopped], 1))
    assert "3 steps are used up\n" in log.getvalue()
    assert f"go on with: agentcli run --session {SESSION.session_id}\n" in log.getvalue()


def test_a_later_run_of_a_session_is_counted_alone() -> None:
    more = [
        SESSION,
        StepStarted(4),
        answered(4, "x", READ),
        RunFinished(StopReason.CANCELLED, Status.CANCELLED, "", "", 130),
    ]
    whole = summary([*run_events(), *more], 130)
    assert summary_lines(whole)[0].startswith("cancelled · 1 step · 1,000 tokens in")
    value = result_object(whole)
    assert (value["steps"], value["usage"]["input_tokens"]) == (1, 1000)


def test_usage_that_no_server_reported_is_not_zero() -> None:
    events = [
        SESSION,
        StepStarted(1),
        replace(answered(1, "x"), usage=Usage()),
        RunFinished(StopReason.CANCELLED, Status.CANCELLED, "", "", 130),
    ]
    whole = summary(events)
    assert "step" in summary_lines(whole)[0] and "no tokens reported" in summary_lines(whole)[0]
    usage = result_object(whole)["usage"]
    assert "input_tokens" in usage and set(usage.values()) == {None}


def test_checks_and_a_change_of_the_model_are_told() -> None:
    log = io.StringIO()
    renderer = PlainRenderer(log, io.StringIO())
    for event in (
        SESSION,
        ModelChanged(1, "b:2", "no credit"),
        CheckStarted("pytest -q", 1, 3),
        CheckFinished("pytest -q", False, 1, "E  assert 1\n1 failed\n"),
    ):
        renderer.event(event)
    assert log.getvalue().endswith(
        "model fake:m failed: no credit; continuing with b:2\n> check: pytest -q\n"
        "check failed (exit code 1): pytest -q\n  E  assert 1\n  1 failed\n"
    )


def test_json_is_one_object() -> None:
    out = io.StringIO()
    play(JsonRenderer(out))
    value = json.loads(out.getvalue())
    assert out.getvalue().count("\n") == 1
    assert value == {
        "status": "solved",
        "stop_reason": "final",
        "final_answer": f"Done <T>. {HOSTILE}",
        "detail": "",
        "error": None,
        "session_id": SESSION.session_id,
        "steps": 3,
        "usage": {
            "input_tokens": 3010,
            "cached_tokens": 1200,
            "cache_write_tokens": 0,
            "output_tokens": 150,
            "reasoning_tokens": 0,
        },
        "cost_usd": None,
        "files_changed": ["stats.py"],
        "checks": [{"command": "pytest -q", "passed": True, "exit_code": 0}],
        "duration_s": 67.0,
    }


def test_stream_json_opens_with_the_session_and_closes_with_the_result() -> None:
    out = io.StringIO()
    play(StreamRenderer(out))
    values = [json.loads(line) for line in out.getvalue().splitlines()]
    assert len(values) == len(run_events())
    assert values[0]["type"] == "session"
    assert values[0]["session_id"] == SESSION.session_id
    assert values[-1]["type"] == "result"
    assert values[-1]["status"] == "solved"
    assert [value["type"] for value in values].count("run_finished") == 0
    assert {"delta", "tool_started", "tool_progress", "tool_finished", "check_finished"} <= {
        value["type"] for value in values
    }
