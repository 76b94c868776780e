"""A whole run as hand-written events, for the tests of the renderers."""

from __future__ import annotations

from agentcli.agent.events import (
    AnswerRejected,
    CheckFinished,
    Delta,
    Event,
    MessageAdded,
    ModelAnswered,
    Phase,
    PhaseChanged,
    RetryScheduled,
    Reviewed,
    RunFinished,
    SessionStarted,
    Stage,
    StageStarted,
    Status,
    StepFinished,
    StepStarted,
    StopReason,
    TaskGiven,
    ToolFinished,
    ToolProgress,
    ToolStarted,
    Warned,
)
from agentcli.agent.folding import fold_all
from agentcli.cli.render import Summary
from agentcli.llm.client import TextDelta, ToolCallStart
from agentcli.messages import (
    FinishReason,
    Outcome,
    ToolCall,
    ToolResult,
    Usage,
    assistant,
    user,
)

HOSTILE = "\x1b]0;owned\x07\x1b[2Jred\u202egpj.exe\x00\udcff"
DIFF = "--- a/stats.py\n+++ b/stats.py\n@@ -1,2 +1,2 @@\n def median():\n-    old\n+    new\n"

SESSION = SessionStarted("20260101-000000-abc", "/repo", "fake:m", "auto", "full", (), "0.1.0")
READ = ToolCall("1", "read_file", '{"path": "stats.py", "start": 3}')
EDIT = ToolCall("2", "search_replace", '{"path": "stats.py", "old": "a\\nb", "new": "c"}')
TEST = ToolCall("3", "run_tests", "{}")


def answered(step: int, text: str, *calls: ToolCall) -> ModelAnswered:
    """The event of an answer from the model."""
    reason = FinishReason.TOOL_CALLS if calls else FinishReason.STOP
    return ModelAnswered(step, assistant(text, *calls), reason, Usage(1000, 400, 0, 50), 0.1, 0.5)


def run_events() -> list[Event]:
    """A read and an edit, a failing test, a retry, a rejected answer and the final answer."""
    failing = "tests failed (exit code 1)\n$ python -m pytest\n" + "\n".join(
        f"line {number}" for number in range(20)
    )
    return [
        SESSION,
        TaskGiven("Fix it.", ("pytest -q",)),
        MessageAdded(user("Fix it.")),
        StepStarted(1),
        StageStarted(1, Stage.DECIDE),
        Delta(1, TextDelta("Let me ")),
        Delta(1, TextDelta("look.")),
        Delta(1, ToolCallStart(0, "1", "read_file")),
        answered(1, "Let me look.", READ, EDIT),
        ToolStarted(1, READ, "read"),
        ToolStarted(1, EDIT, "edit"),
        ToolFinished(1, ToolResult("1", "read_file", "3\tdef median():\n4\t    old"), 0.01),
        ToolFinished(
            1,
            ToolResult(
                "2",
                "search_replace",
                "replaced 1 occurrence in stats.py at line 4",
                diff=DIFF,
                paths=("stats.py",),
            ),
            0.02,
        ),
        PhaseChanged(1, Phase.EXPLORE, Phase.EDIT),
        StepFinished(1, 1.0),
        StepStarted(2),
        RetryScheduled(2, Stage.DECIDE, 1, 2.0, "the server is busy"),
        answered(2, "", TEST),
        ToolStarted(2, TEST, "check"),
        ToolProgress("3", "stdout", f"collecting {HOSTILE}\n".encode("utf-8", "replace")),
        ToolFinished(2, ToolResult("3", "run_tests", failing, Outcome.FAILED), 65.0),
        StepFinished(2, 66.0),
        StepStarted(3),
        AnswerRejected(3, "the answer was empty", Usage(10, 0, 0, 0)),
        Warned("a hook failed"),
        Reviewed(3, "AnswerSchema", "retry", f"it is no JSON {HOSTILE}"),
        answered(3, f"Use `List<int>` and <T>. {HOSTILE}"),
        CheckFinished("pytest -q", True, 0, "2 passed"),
        StepFinished(3, 1.0),
        RunFinished(StopReason.FINAL, Status.SOLVED, f"Done <T>. {HOSTILE}"),
    ]


def summary(events: list[Event], exit_code: int = 0) -> Summary:
    """The summary of a run with these events that took 67 seconds."""
    return Summary(fold_all(events), exit_code, 67.0)
