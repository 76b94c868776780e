"""Decides which calls may run: first by rules, then by the mode and the tool's kind.

deny rule → refused     ask rule → asked     allow rule → runs     none → the mode decides
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from agentcli.errors import AgentCLIError
from agentcli.messages import ToolCall
from agentcli.tools.approval import (
    Answer,
    Approval,
    Ask,
    Foreseen,
    OnWait,
    Preview,
    Reply,
    Trial,
    ignore_wait,
    no_preview,
)
from agentcli.tools.base import ToolKind, ToolSpec
from agentcli.tools.judging import (
    Judgement,
    Verdict,
    guards_file,
    guards_reads,
    judge,
    reason_to_ask,
)
from agentcli.tools.rules import Rule, Rules

_log = logging.getLogger(__name__)


class Permissions(Protocol):
    """Decides about each call after its arguments were validated and before it runs."""

    async def permit(
        self,
        spec: ToolSpec,
        call: ToolCall,
        arguments: Mapping[str, Any],
        trial: Trial | None = None,
        preview: Preview = no_preview,
        on_wait: OnWait = ignore_wait,
        on_copy: bool = False,
    ) -> str | None:
        """Return None to let the call run, or the reason for refusing it, for the model.

        ``trial`` is given if the call can be run on a copy first; if it was committed, the call
        does not run again. ``preview`` computes what is known of the call. ``on_wait`` is called
        with the seconds spent waiting for the user. ``on_copy``: it runs on a copy in any case.
        """
        ...

    def hides(self, spec: ToolSpec, path: str) -> bool:
        """Whether a call must not show a file because one that names it may not simply run."""
        ...


class SavedRules(Protocol):
    """Keeps rules for later sessions; see ``RuleFile``. Both raise ``ConfigError``."""

    def add(self, rule: Rule) -> None:
        """Save one more rule."""
        ...

    def remove(self, rule: Rule) -> None:
        """Remove a rule, if it is saved."""
        ...


class Mode(StrEnum):
    """How much may happen without asking."""

    ASK = "ask"
    EDITS = "edits"
    AUTO = "auto"
    PLAN = "plan"

    @property
    def next(self) -> Mode:
        """The next mode in the order of Shift+Tab."""
        modes = list(Mode)
        return modes[(modes.index(self) + 1) % len(modes)]


_LOOKING = frozenset({ToolKind.READ, ToolKind.SEARCH, ToolKind.PLAN})

_FREE: Mapping[Mode, frozenset[ToolKind]] = {
    Mode.ASK: _LOOKING,
    Mode.EDITS: _LOOKING | {ToolKind.EDIT},
    Mode.AUTO: frozenset(ToolKind),
    # Checks are refused too: they run the project's code, which may do anything.
    Mode.PLAN: _LOOKING,
}


class AllowedCall(NamedTuple):
    """A tool and the arguments of one call, as JSON."""

    tool: str
    arguments: str


class ModePermissions:
    """Permissions by rules and mode. ``mode`` may be set at any time, for the calls that follow.

    ``ask`` is called, one question at a time, for calls that neither a rule nor the mode allows;
    without it they are refused. ``root`` is the workspace, to which paths in rules are relative.
    ``confined``: commands run in a sandbox, so those that only read need no approval.
    ``given`` are the rules that the user gave by answers, now or earlier. ``saved`` keeps what is
    given permanently.
    """

    def __init__(
        self,
        mode: Mode = Mode.ASK,
        ask: Ask | None = None,
        *,
        rules: Rules | None = None,
        root: str = "/",
        confined: bool = False,
        given: Iterable[Rule] = (),
        saved: SavedRules | None = None,
    ) -> None:
        self.mode = mode
        self.given = list(given)
        self._settled = rules or Rules()
        self._ask = ask
        self._root = root
        self._confined = confined
        self._saved = saved
        self._remembered: set[AllowedCall] = set()
        self._asking = asyncio.Lock()

    async def permit(
        self,
        spec: ToolSpec,
        call: ToolCall,
        arguments: Mapping[str, Any],
        trial: Trial | None = None,
        preview: Preview = no_preview,
        on_wait: OnWait = ignore_wait,
        on_copy: bool = False,
    ) -> str | None:
        """See ``Permissions.permit``."""
        asks, reason = self._decide(spec, arguments)[:2]
        if not asks:
            return reason
        if self._ask is None:
            why = f": {reason}" if reason else ""
            return f"{spec.name} needs approval in {self.mode} mode, and nobody can be asked{why}"
        began = time.monotonic()
        async with self._asking:
            on_wait(time.monotonic() - began)  # while another question was open
            # The answer to that question may have settled this one.
            asks, reason, judgement = self._decide(spec, arguments)
            if not asks:
                return reason
            rule = judgement.proposal if judgement.verdict is None else None
            try:
                foreseen = await preview()
            except AgentCLIError:
                if judgement.verdict is not Verdict.ASK and not guards_reads(self.rules):
                    raise
                foreseen = Foreseen()  # the error may quote a file not to be read without asking
            approval = Approval(
                spec,
                call,
                arguments,
                judgement.segments,
                rule,
                can_copy=trial is not None,
                diff=foreseen.diff,
                runs=foreseen.runs,
                on_copy=on_copy,
            )
            return await self._put(approval, self._ask, trial, on_wait)

    def allows(self, spec: ToolSpec, arguments: Mapping[str, Any]) -> bool:
        """Whether a call would run now without a question."""
        return self._decide(spec, arguments)[:2] == (False, None)

    def hides(self, spec: ToolSpec, path: str) -> bool:
        """See ``Permissions.hides``."""
        return guards_file(self.rules, spec.name, path, self._root)

    @property
    def rules(self) -> Rules:
        """All rules: those of the settings, and those that the user gave."""
        return self._settled + Rules(allow=tuple(self.given))

    @property
    def calls(self) -> list[AllowedCall]:
        """The single calls that the user allowed for the session, as no rule describes them."""
        return sorted(self._remembered)

    def take_back(self, what: Rule | AllowedCall) -> None:
        """Ask again about what a rule of ``given``, or one of ``calls``, allows.

        Raises:
            ConfigError: the rule is saved, and the file cannot be written; it will hold again in
                the next session.
        """
        if not isinstance(what, Rule):
            self._remembered.remove(what)
            return
        self.given.remove(what)
        if self._saved is not None:
            self._saved.remove(what)

    def _decide(
        self, spec: ToolSpec, arguments: Mapping[str, Any]
    ) -> tuple[bool, str | None, Judgement]:
        """Return whether to ask, the reason (None: the call may run), and the rules' judgement."""
        judgement = Judgement(None)
        looks = spec.kind in _FREE[self.mode]
        # A request to the network can leak anything, so no mode alone allows it; with a tool of a
        # server, which is not confined, only one that allows commands does.
        sends = spec.address_argument or (spec.outward and ToolKind.RUN not in _FREE[self.mode])
        ours = reason_to_ask(spec, arguments, self._root)
        free = looks and not sends and not ours
        if self.rules or not free:
            free_edits = ToolKind.EDIT in _FREE[self.mode]
            judgement = judge(
                self.rules,
                spec,
                arguments,
                self._root,
                free_edits=free_edits,
                free_reads=self._confined,
            )
        if judgement.verdict is Verdict.DENY:
            return False, judgement.reason, judgement
        if self.mode is Mode.PLAN and not looks:
            reason = f"plan mode is read only, and {spec.name} is not; put it into the plan instead"
            return False, reason, judgement
        if _key(spec, arguments) in self._remembered:
            return False, None, judgement
        if judgement.verdict is Verdict.ASK:
            return True, judgement.reason, judgement
        if free or judgement.verdict is Verdict.ALLOW:
            return False, None, judgement
        return True, judgement.reason or ours, judgement

    async def _put(
        self, approval: Approval, asking: Ask, trial: Trial | None, on_wait: OnWait
    ) -> str | None:
        async def ask(approval: Approval) -> Reply:
            began = time.monotonic()
            reply = await asking(approval)
            on_wait(time.monotonic() - began)
            return reply

        reply = await ask(approval)
        tried = False
        while reply.answer is Answer.COPY and trial is not None and not tried:
            tried = True
            approval = await _on_a_copy(approval, trial)
            reply = await ask(approval)
        if reply.answer in (Answer.NO, Answer.COPY):
            return _refusal(reply)
        if reply.answer in (Answer.SESSION, Answer.PREFIX):
            self._hold(approval, keep=reply.answer is Answer.PREFIX)
        if approval.effect is not None and trial is not None:
            await trial.commit()
        return None

    def _hold(self, approval: Approval, *, keep: bool) -> None:
        rule = approval.rule
        if rule is None:
            self._remembered.add(_key(approval.spec, approval.arguments))
            return
        self.given.append(rule)
        if keep and self._saved is not None:
            try:
                self._saved.add(rule)
            except AgentCLIError as error:
                # The user allowed the call; a full disk must not revoke that.
                _log.warning("the rule %s holds for this session only: %s", rule, error.line())


class AllowAll:
    """Permits everything; for library users and tests."""

    async def permit(
        self,
        spec: ToolSpec,
        call: ToolCall,
        arguments: Mapping[str, Any],
        trial: Trial | None = None,
        preview: Preview = no_preview,
        on_wait: OnWait = ignore_wait,
        on_copy: bool = False,
    ) -> str | None:
        """Always None."""
        return None

    def hides(self, spec: ToolSpec, path: str) -> bool:
        """Always false."""
        return False


async def _on_a_copy(approval: Approval, trial: Trial) -> Approval:
    """The question again, with the effect on the copy or with why the copy failed."""
    effect: str | None = None
    try:
        effect, output = await trial.run()
    except AgentCLIError as error:
        output = f"it cannot be run on a copy: {error.line()}"
    return Approval(
        approval.spec,
        approval.call,
        approval.arguments,
        approval.segments,
        approval.rule,
        effect=effect,
        output=output,
    )


def _key(spec: ToolSpec, arguments: Mapping[str, Any]) -> AllowedCall:
    return AllowedCall(spec.name, json.dumps(arguments, sort_keys=True, default=str))


def _refusal(reply: Reply) -> str:
    return f"the user said no: {reply.reason}" if reply.reason else "the user said no"
