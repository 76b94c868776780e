"""Decides which calls may run: rules first, then the mode, which depends on a tool's kind only.

deny rule → refused     ask rule → asked     allow rule → runs     none → as the mode says
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Protocol

from agentcli.errors import AgentCLIError
from agentcli.messages import ToolCall
from agentcli.tools.approval import (
    Answer,
    Approval,
    Ask,
    Look,
    Reply,
    Trial,
    Waited,
    unheeded,
    unknown,
)
from agentcli.tools.base import ToolKind, ToolSpec
from agentcli.tools.judging import Judgement, Verdict, judge
from agentcli.tools.rules import Rule, Rules

_log = logging.getLogger(__name__)


class Permissions(Protocol):
    """Decides about each call, after its arguments were found valid and before it runs."""

    async def permit(
        self,
        spec: ToolSpec,
        call: ToolCall,
        arguments: Mapping[str, Any],
        trial: Trial | None = None,
        look: Look = unknown,
        waited: Waited = unheeded,
    ) -> str | None:
        """None to let the call run, or the reason for refusing it, which the model reads.

        ``trial``, where the call can be run on a copy first. One that was committed stands for
        the call, which then does not run again. ``look`` tells what an edit would change, and
        ``waited`` is told how long the user took.
        """
        ...


class Mode(StrEnum):
    """How much may happen without asking; ``next`` is the order of Shift+Tab."""

    ASK = "ask"
    EDITS = "edits"
    AUTO = "auto"
    PLAN = "plan"

    @property
    def next(self) -> Mode:
        """The mode that follows in the cycle."""
        modes = list(Mode)
        return modes[(modes.index(self) + 1) % len(modes)]


_LOOKING = frozenset({ToolKind.READ, ToolKind.SEARCH, ToolKind.PLAN})

_FREE: Mapping[Mode, frozenset[ToolKind]] = {
    Mode.ASK: _LOOKING,
    Mode.EDITS: _LOOKING | {ToolKind.EDIT},
    Mode.AUTO: frozenset(ToolKind),
    # Checks are refused as well: they change nothing by intent, but they run the project's code,
    # and that may do anything.
    Mode.PLAN: _LOOKING,
}


class ModePermissions:
    """Permissions by rules and mode. ``mode`` may be set at any time; calls permitted go on.

    What neither rule nor mode allows is asked of ``ask``, one question at a time; where nobody can
    be asked it is refused. ``root`` is the workspace that paths of rules are relative to; ``save``
    keeps a rule that the user wants to hold from now on.
    """

    def __init__(
        self,
        mode: Mode = Mode.ASK,
        ask: Ask | None = None,
        *,
        rules: Rules | None = None,
        root: str = "/",
        save: Callable[[Rule], None] | None = None,
    ) -> None:
        self.mode = mode
        self.rules = rules or Rules()
        self._ask = ask
        self._root = root
        self._save = save
        self._remembered: set[tuple[str, str]] = set()
        self._asking = asyncio.Lock()

    async def permit(
        self,
        spec: ToolSpec,
        call: ToolCall,
        arguments: Mapping[str, Any],
        trial: Trial | None = None,
        look: Look = unknown,
        waited: Waited = unheeded,
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
            waited(time.monotonic() - began)  # for the answer to another question
            # The answer to another question may have settled this one.
            asks, reason, judgement = self._decide(spec, arguments)
            if not asks:
                return reason
            rule = judgement.proposal if judgement.verdict is None else None
            approval = Approval(
                spec,
                call,
                arguments,
                judgement.segments,
                rule,
                can_copy=trial is not None,
                diff=await look(),
            )
            return await self._put(approval, self._ask, trial, waited)

    def _decide(
        self, spec: ToolSpec, arguments: Mapping[str, Any]
    ) -> tuple[bool, str | None, Judgement]:
        """(whether to ask, else None to run or why not, what the rules say)."""
        judgement = Judgement(None)
        looks = spec.kind in _FREE[self.mode]
        # What leaves the machine may carry anything out: no mode gives leave for that.
        free = looks and not spec.address_argument
        if self.rules or not free:
            free_edits = ToolKind.EDIT in _FREE[self.mode]
            judgement = judge(self.rules, spec, arguments, self._root, free_edits=free_edits)
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
        return True, judgement.reason, judgement

    async def _put(
        self, approval: Approval, asking: Ask, trial: Trial | None, waited: Waited
    ) -> str | None:
        async def ask(approval: Approval) -> Reply:
            began = time.monotonic()
            reply = await asking(approval)
            waited(time.monotonic() - began)
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
        self.rules += Rules(allow=(rule,))
        if keep and self._save is not None:
            try:
                self._save(rule)
            except AgentCLIError as error:
                # The call itself is allowed; a full disk must not take that back.
                _log.warning("the rule %s holds for this session only: %s", rule, error.line())


class AllowAll:
    """Permits everything: for library users and tests that need no questions."""

    async def permit(
        self,
        spec: ToolSpec,
        call: ToolCall,
        arguments: Mapping[str, Any],
        trial: Trial | None = None,
        look: Look = unknown,
        waited: Waited = unheeded,
    ) -> str | None:
        """Always None."""
        return None


async def _on_a_copy(approval: Approval, trial: Trial) -> Approval:
    """The same question with what the call does, or without the choice where there is no copy."""
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


def _key(spec: ToolSpec, arguments: Mapping[str, Any]) -> tuple[str, str]:
    return spec.name, json.dumps(arguments, sort_keys=True, default=str)


def _refusal(reply: Reply) -> str:
    return f"the user said no: {reply.reason}" if reply.reason else "the user said no"
