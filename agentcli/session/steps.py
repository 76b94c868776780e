"""Turns a session's events into steps: what was seen, decided and done in each, and what it took.

Times are in seconds since 1970, durations in seconds, cost in US dollars (None: not known). Steps
that were cut short are included, with ``complete`` false.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

from agentcli.agent.events import (
    AnswerRejected,
    BranchTaken,
    CheckFinished,
    Decided,
    Event,
    MessageAdded,
    ModelAnswered,
    ModelChanged,
    ModelUsed,
    Recovered,
    RetryScheduled,
    Reviewed,
    Rewound,
    RunFinished,
    SessionStarted,
    StepFinished,
    StepStarted,
    ToolFinished,
    ToolStarted,
    WorkspaceChanged,
)
from agentcli.agent.folding import fold
from agentcli.agent.records import to_record
from agentcli.agent.state import AgentState
from agentcli.errors import JournalError
from agentcli.messages import Message, Role, Usage, result_to_json
from agentcli.session.store import BETWEEN_RUNS
from agentcli.text import encodable

SCHEMA = 1


class Steps:
    """Takes events one by one, in order, and returns each step when it is over."""

    def __init__(self) -> None:
        self.state = AgentState()
        self.events = 0
        self.steps = 0
        self.runs = 0
        self.retries = 0
        self.started = 0.0
        self.updated = 0.0
        self.prompt = ""
        """SHA-256 of the system prompt."""
        self.session: SessionStarted | None = None
        self.rewound = False
        """Whether the session was rewound after its last run."""
        self._step: dict[str, Any] | None = None
        self._seen: list[dict[str, Any]] = []
        self._before = self.state
        self._began: dict[str, float] = {}
        self._versions: dict[str, str] = {}

    @classmethod
    def after(cls, manifest: Mapping[str, Any], state: AgentState) -> Steps:
        """Restore an object that was ``at_rest`` from its manifest and state.

        Raises:
            LookupError, TypeError, ValueError: it is not a manifest of this schema.
        """
        if manifest["schema_version"] != SCHEMA or manifest["run_id"] != state.session_id:
            raise ValueError("a manifest of another schema or session")
        steps = cls()
        steps.state = state
        steps.events, steps.steps = int(manifest["event_count"]), int(manifest["step_count"])
        steps.runs, steps.retries = int(manifest["runs"]), int(manifest["retries"])
        steps.started, steps.updated = float(manifest["started"]), float(manifest["updated"])
        steps.rewound = manifest["status"] == "rewound"
        steps.prompt, steps._versions = manifest["prompt_hash"], dict(manifest["tool_versions"])
        return steps

    @property
    def at_rest(self) -> bool:
        """Whether no step is open and nothing was seen that belongs to the next one."""
        return self._step is None and not self._seen

    def add(self, event: Event, when: float) -> list[dict[str, Any]]:
        """Add an event; return the step that it ends, if any, as a line of ``steps.jsonl``."""
        self.events += 1
        self.started = self.started or when
        self.updated = when
        ended: list[dict[str, Any]] = []
        if isinstance(event, StepStarted | SessionStarted | RunFinished):
            ended = self._close(when)  # a step that was cut short
        self.state = fold(self.state, _slim(event))
        match event:
            case SessionStarted():
                self.session, self.runs = event, self.runs + 1
                self._versions = dict(each.rsplit("@", 1) for each in event.tools if "@" in each)
            case MessageAdded(message=message):
                if message.role is Role.SYSTEM:
                    self.prompt = hashlib.sha256(encodable(message.text).encode()).hexdigest()
                self._seen.append({"role": message.role.value, "text": message.text})
            case StepStarted():
                self._open(event.step, when)
            case StepFinished():
                ended += self._close(when, event)
            case _ if self._step is not None:
                self._note(self._step, event, when)
        if isinstance(event, RetryScheduled):
            self.retries += 1
        if not isinstance(event, BETWEEN_RUNS):
            self.rewound = isinstance(event, Rewound)
        return ended

    def _open(self, step: int, when: float) -> None:
        self.steps += 1
        self._before, self._began = self.state, {}
        self._step = {
            "schema_version": SCHEMA,
            "step": step,
            "started": when,
            "duration_s": 0.0,
            "complete": False,
            "model": self.state.model,
            "phase": "",
            "observation": [],
            "decision": None,
            "actions": [],
            "results": [],
            "tool_invocations": [],
            "critic_outputs": [],
            "checks": [],
            "events": [],
            "files": {"before": {}, "after": {}},
            "metrics": {
                **{name: 0 for name in ("fresh", "cached", "cache_write", "output", "reasoning")},
                **{name: 0.0 for name in ("first_token_s", "model_s", "tools_s", "asked_s")},
                **{"cost_usd": 0.0, "retries": 0, "model_started": None},
            },
        }

    def _note(self, step: dict[str, Any], event: Event, when: float) -> None:
        metrics = step["metrics"]
        match event:
            case ModelAnswered():
                step["observation"], self._seen = self._seen, []
                step["decision"] = _decision(event.message, event.finish_reason.value)
                step["actions"] = _actions(event.message)
                metrics["first_token_s"] = event.first_token_s
                metrics["model_s"] = event.duration_s
                metrics["model_started"] = when - event.duration_s
                _add_usage(metrics, event.usage, event.cost_usd)
            case Decided(message=message):
                step["observation"], self._seen = self._seen, []
                step["decision"] = _decision(message, "decided")
                step["actions"] = _actions(message)
            case AnswerRejected() | ModelUsed():
                _add_usage(metrics, event.usage, event.cost_usd)
                step["events"].append(to_record(event))
            case RetryScheduled():
                metrics["retries"] += 1
                _add_usage(metrics, event.usage, event.cost_usd)
                step["events"].append(to_record(event))
            case ToolStarted(call=call):
                self._began[call.id] = when
            case ToolFinished(result=result):
                self._seen.append({"role": "tool", "name": result.name, "text": result.content})
                began = self._began.get(result.call_id)
                version = self._versions.get(result.name, "")
                without_images = replace(result, images=())  # which the journal has
                step["results"].append(result_to_json(without_images))
                step["tool_invocations"].append(
                    {
                        "call_id": result.call_id,
                        "tool": f"{result.name}@{version}" if version else result.name,
                        "started": began,
                        "asked_s": event.asked_s,
                        "duration_s": event.duration_s,
                        "outcome": result.outcome.value,
                        "attempts": result.data.get("attempts", 1),
                        "ran": began is not None,
                    }
                )
                metrics["tools_s"] += event.duration_s - event.asked_s
                metrics["asked_s"] += event.asked_s
            case Reviewed():
                step["critic_outputs"].append(
                    {"critic": event.critic, "judgement": event.judgement, "reason": event.reason}
                )
            case CheckFinished():
                step["checks"].append(
                    {"command": event.command, "passed": event.passed, "exit_code": event.exit_code}
                )
            case WorkspaceChanged(outside=False):
                for path, entry in event.before.items():
                    if path not in step["files"]["after"]:
                        step["files"]["before"].setdefault(path, entry)
                for path in event.before:
                    step["files"]["after"].pop(path, None)
                step["files"]["after"].update(event.after)
            case Recovered() | BranchTaken() | ModelChanged() | Rewound():
                step["events"].append(to_record(event))

    def _close(self, when: float, event: StepFinished | None = None) -> list[dict[str, Any]]:
        step, self._step = self._step, None
        if step is None:
            return []
        step["complete"] = event is not None
        step["duration_s"] = event.duration_s if event else max(0.0, when - step["started"])
        step["phase"] = self.state.phase.value
        before, after = self._before, self.state
        known = set(before.files_changed)
        step["state_diff"] = {
            "messages": [len(before.history), len(after.history)],
            "phase": [before.phase.value, after.phase.value],
            "files_changed": [path for path in after.files_changed if path not in known],
            "tool_calls": after.tool_calls - before.tool_calls,
            "context_tokens": [before.context_tokens, after.context_tokens],
        }
        return [step]

    def manifest(self, *, running: bool = False) -> dict[str, Any]:
        """A summary of the session so far. Without an end it was interrupted, or is ``running``."""
        state, session = self.state, self.session
        open_ended = "running" if running else "rewound" if self.rewound else "interrupted"
        status = str(state.status or open_ended)
        failure = None
        if state.error or status in ("failed", "invalid"):
            failure = {"error": state.error, "detail": state.detail}
            if state.place is not None:
                failure |= asdict(state.place)
        return {
            "schema_version": SCHEMA,
            "run_id": state.session_id,
            "status": status,
            "started": self.started,
            "updated": self.updated,
            "runs": self.runs,
            "step_count": self.steps,
            "event_count": self.events,
            "summary": {
                "stop_reason": str(state.stop or ""),
                "final_result": state.answer,
                "failure_report": failure,
            },
            "task": state.task,
            "workspace": state.workspace,
            "model": state.model,
            "prompt_hash": self.prompt,
            "tool_versions": dict(self._versions),
            "seed": session.seed if session else None,
            "config_hash": session.config if session else "",
            "agentcli": session.version if session else "",
            "usage": asdict(state.usage),
            "cost_usd": state.cost_usd,
            "retries": self.retries,
            "files_changed": list(state.files_changed),
        }


def steps_of(timed: Iterable[tuple[float, Event]]) -> tuple[Steps, list[dict[str, Any]]]:
    """All steps of a journal, and the ``Steps`` object at its end.

    Raises:
        JournalError: the events are inconsistent.
    """
    steps, found = Steps(), []
    for when, event in timed:
        try:
            found += steps.add(event, when)
        except (ValueError, LookupError, TypeError) as error:
            name = steps.state.session_id
            raise JournalError(f"the events of {name} are inconsistent: {error!r}") from error
    return steps, found + steps._close(steps.updated)


def _slim(event: Event) -> Event:
    """The event without its texts: the fold is only needed for its structure."""
    match event:
        case MessageAdded() | ModelAnswered() | Decided():
            return replace(event, message=Message(event.message.role, event.message.calls))
        case ToolFinished(result=result):
            return replace(event, result=replace(result, content="", diff="", data={}, images=()))
    return event


def _decision(message: Message, reason: str) -> dict[str, Any]:
    return {"text": message.text, "finish_reason": reason}


def _actions(message: Message) -> list[dict[str, str]]:
    return [
        {"id": call.id, "name": call.name, "arguments": call.arguments} for call in message.calls
    ]


def _add_usage(metrics: dict[str, Any], usage: Usage, cost: float | None) -> None:
    metrics["fresh"] += usage.fresh_tokens
    metrics["cached"] += usage.cached_tokens
    metrics["cache_write"] += usage.cache_write_tokens
    metrics["output"] += usage.output_tokens
    metrics["reasoning"] += usage.reasoning_tokens
    known = metrics["cost_usd"]
    metrics["cost_usd"] = None if known is None or cost is None else known + cost
