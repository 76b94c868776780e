"""The fold: computes the state from the events of a journal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from agentcli.agent.events import (
    AnswerRejected,
    CheckFinished,
    Compacted,
    CompactionUndone,
    Decided,
    Event,
    MessageAdded,
    ModeChanged,
    ModelAnswered,
    ModelChanged,
    ModelUsed,
    PhaseChanged,
    Recovered,
    RetryScheduled,
    Rewound,
    RunFinished,
    SessionStarted,
    StepFinished,
    StepStarted,
    TaskGiven,
    ToolFinished,
    ToolStarted,
    WindowLearnt,
    WorkspaceChanged,
    WorkspaceTaken,
)
from agentcli.agent.phase import Progress, after
from agentcli.agent.state import EDIT, AgentState, History, StepRecord, Totals, Undone
from agentcli.agent.view import shown
from agentcli.messages import (
    Message,
    Outcome,
    Role,
    ToolResult,
    Usage,
    tool,
    without_thinking,
)
from agentcli.tools.base import PLAN, ToolKind

if TYPE_CHECKING:
    from dataclasses import replace as _with  # keeps the names and types of fields checked
else:

    def _with(state, **changes):
        """Like ``dataclasses.replace`` but ten times as fast: opening a session folds all of it."""
        changed = object.__new__(AgentState)
        vars(changed).update(vars(state))
        vars(changed).update(changes)
        return changed


def fold(state: AgentState, event: Event) -> AgentState:
    """Apply one event to the state. Transient events do not change it."""
    match event:
        case SessionStarted():
            if state.model not in ("", event.model):
                state = _changed_model(state)
            return _with(
                state,
                session_id=event.session_id,
                workspace=event.workspace,
                model=event.model,
                mode=event.mode,
                sandbox=event.sandbox,
                before=Totals(state.step, state.tool_calls, state.usage),
                cost_usd=0.0,
                rejected=0,
                recoveries=0,
                stop=None,
                status=None,
                answer="",
                detail="",
                error="",
                place=None,
            )
        case TaskGiven(text="", checks=more):
            return _with(state, checks=(*state.checks, *more))
        case TaskGiven():
            state = _marked(state, turn=True)
            return _with(
                state,
                undone=(),
                task=event.text,
                checks=event.checks,
                limits=event.limits,
                check_results=(),
                files_changed=(),
                at_first={},
                progress=Progress(),
                plan=(),
            )
        case MessageAdded():
            told = state.mode if event.message.role is Role.SYSTEM else event.mode
            return _with(_said(state, event.message), told_mode=told or state.told_mode)
        case ModeChanged():
            return _with(state, mode=event.mode)
        case StepStarted():
            return _with(
                state,
                undone=(),
                running_step=event.step,
                step_decision=None,
                step_results=(),
                step_usage=Usage(),
                step_retries=0,
            )
        case Decided():
            return _with(
                _said(state, event.message),
                step_decision=event.message,
                pending=event.message.calls,
                results=(),
                started={},
            )
        case ModelAnswered():
            return _with(
                _said(state, event.message),
                context_tokens=event.usage.total_tokens,
                usage=state.usage + event.usage,
                cost_usd=_sum(state.cost_usd, event.cost_usd),
                step_usage=state.step_usage + event.usage,
                step_decision=event.message,
                rejected=0,
                pending=event.message.calls,
                results=(),
                started={},
            )
        case AnswerRejected():
            return _with(
                state,
                usage=state.usage + event.usage,
                cost_usd=_sum(state.cost_usd, event.cost_usd),
                step_usage=state.step_usage + event.usage,
                rejected=state.rejected + 1,
            )
        case RetryScheduled():
            state = _with(state, retries=state.retries + 1, step_retries=state.step_retries + 1)
            if not event.usage.total_tokens:
                return state
            return _with(
                state,
                usage=state.usage + event.usage,
                cost_usd=_sum(state.cost_usd, event.cost_usd),
                step_usage=state.step_usage + event.usage,
            )
        case Recovered():
            return _with(state, recoveries=state.recoveries + 1)
        case ModelChanged():
            return _with(_changed_model(state), model=event.model)
        case ModelUsed():
            return _with(
                state,
                usage=state.usage + event.usage,
                cost_usd=_sum(state.cost_usd, event.cost_usd),
                step_usage=state.step_usage + event.usage,
            )
        case Compacted():
            compactions = (*state.compactions, event)
            return _viewed(_with(state, compactions=compactions), event.tokens_after)
        case WindowLearnt():
            return _with(state, windows={**state.windows, state.model: event.tokens})
        case CompactionUndone() if state.compactions:
            undone = state.compactions[-1]
            state = _with(state, compactions=state.compactions[:-1])
            return _viewed(state, undone.tokens_before)
        case ToolStarted():
            return _with(
                state,
                started={**state.started, event.call.id: event.purpose or event.tool_kind},
                tool_calls=state.tool_calls + 1,
            )
        case ToolFinished():
            return _add_result(state, event.result)
        case PhaseChanged():
            return _with(state, phase=event.phase)
        case CheckFinished():
            others = tuple(c for c in state.check_results if c.command != event.command)
            return _with(state, check_results=(*others, event))
        case StepFinished():
            record = StepRecord(
                event.step,
                state.phase,
                state.step_decision,
                state.step_results,
                state.step_usage,
                state.step_retries,
                event.duration_s,
            )
            state = _with(state, step=event.step, records=state.records.append(record))
            return _marked(state)
        case WorkspaceTaken():
            trees = (*state.trees, (len(state.changes), event.tree))
            return _with(state, trees=trees, left_out=event.left_out)
        case WorkspaceChanged():
            state = _with(state, changes=state.changes.append(event))
            return state if event.outside else with_changes(state, event)
        case Rewound():
            return _rewound(state, event)
        case RunFinished():
            return _with(
                state,
                stop=event.reason,
                status=event.status,
                answer=event.answer,
                detail=event.detail,
                error=event.error,
                place=event.place,
            )
        case _:
            return state


def fold_all(events: Iterable[Event], state: AgentState | None = None) -> AgentState:
    """Apply many events, by default to an empty state."""
    state = state or AgentState()
    for event in events:
        state = fold(state, event)
    return state


def _sum(known: float | None, more: float | None) -> float | None:
    return None if known is None or more is None else known + more


def _said(state: AgentState, *messages: Message) -> AgentState:
    history, view = state.history, state.view
    for message in messages:
        history, view = history.append(message), view.append(message)
    return _with(state, history=history, view=view)


def _changed_model(state: AgentState) -> AgentState:
    """Drop the thinking that the previous model produced: the next cannot read it."""
    return _with(state, view=History(without_thinking(state.view)), foreign=len(state.history))


def _viewed(state: AgentState, tokens: int) -> AgentState:
    """Rebuild the view after a compaction was made or undone."""
    return _with(state, view=History(shown(state.said, state.replaced)), context_tokens=tokens)


def _marked(state: AgentState, *, turn: bool = False) -> AgentState:
    mark = _with(state, marks=History(), undone=(), turn=turn)
    return _with(state, marks=state.marks.append(mark))


def with_changes(state: AgentState, event: WorkspaceChanged) -> AgentState:
    """Keep the list of changed files; one that is again as before the task is not among them."""
    at_first = _with_first(state.at_first, event)
    files = dict.fromkeys(state.files_changed)
    for path in sorted({*event.before, *event.after}):
        now = event.after.get(path)
        if now == at_first[path]:
            files.pop(path, None)
        elif (now or event.before[path])[:3] != "dir":
            files.setdefault(path)
    return _with(state, files_changed=tuple(files), at_first=at_first)


def _with_first(
    known: Mapping[str, str | None], change: WorkspaceChanged
) -> Mapping[str, str | None]:
    new = {*change.before, *change.after} - known.keys()
    return {**known, **{path: change.before.get(path) for path in new}} if new else known


def _at_first(state: AgentState) -> Mapping[str, str | None]:
    """``AgentState.at_first``, from the changes since the last task began."""
    begun = next((mark for mark in reversed(state.marks) if mark.turn), AgentState())
    found: Mapping[str, str | None] = {}
    for change in state.changes.since(len(begun.changes)):
        if not change.outside:
            found = _with_first(found, change)
    return found


def _rewound(state: AgentState, event: Rewound) -> AgentState:
    """Move to another state of the same session; usage and cost are not undone."""
    if event.redo:
        target, marks = state.undone[0].state, state.undone[0].state.marks
        undone = state.undone[1:]
    else:
        undone = (Undone(_with(state, undone=()), event), *state.undone)
        if not 0 <= event.mark < len(state.marks):
            raise IndexError(f"there is no mark {event.mark} to go back to")
        if event.messages:
            target, marks = state.marks[event.mark], state.marks.upto(event.mark + 1)
            if not (event.before or event.after):  # the files stay as they are
                target = _with(target, changes=state.changes, trees=state.trees)
        else:
            moved = WorkspaceChanged(state.step, event.before, event.after)
            target, marks = _with(state, changes=state.changes.append(moved)), state.marks
    if target.model != state.model:
        target = _changed_model(target)
    target = _with(target, marks=marks)
    return _with(
        target,
        at_first=_at_first(target),
        undone=undone,
        turn=False,
        trees=tuple(tree for tree in target.trees if tree[0] <= len(target.changes)),
        **{name: getattr(state, name) for name in _NEVER_UNDONE},
        running_step=state.step,
    )


_NEVER_UNDONE = (
    *("session_id", "workspace", "model", "mode", "sandbox", "records", "step", "usage"),
    *("cost_usd", "before", "retries", "tool_calls", "windows"),
)


def _planned(told: object, before: tuple[str, ...]) -> tuple[str, ...]:
    """The steps of a plan if the tool reported any. Its data may hold anything."""
    return tuple(map(str, told)) if isinstance(told, list | tuple) else before


def _add_result(state: AgentState, result: ToolResult) -> AgentState:
    results = (*state.results, result)
    purpose = state.started.get(result.call_id)
    changes = purpose == EDIT and result.outcome is Outcome.OK
    known = state.files_changed
    # What ``WorkspaceChanged`` has told of a path is better than that a call names it.
    named = result.paths if changes else ()
    new_paths = tuple(p for p in named if p not in known and p not in state.at_first)
    progress = state.progress
    if purpose:
        progress = after(progress, ToolKind(purpose), result.outcome)
    state = _with(
        state,
        results=results,
        files_changed=known + new_paths,
        progress=progress,
        plan=_planned(result.data.get(PLAN), state.plan),
        step_results=(*state.step_results, result),
    )
    if len(results) < len(state.pending):
        return state
    # Calls may end in any order; the history holds their results in the order of the calls.
    by_id = {result.call_id: result for result in results}
    state = _said(state, *(tool(by_id[call.id]) for call in state.pending))
    return _with(state, pending=(), results=(), started={})
