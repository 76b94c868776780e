"""Budgets of a run, and the rules for shortening its conversation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from agentcli.agent.budget import ContextRules, RunLimits
from agentcli.agent.processors.base import Processor
from agentcli.agent.processors.standard import STANDARD, processors_named
from agentcli.prompts import Prompts
from agentcli.sandbox.limits import Limits, of_settings
from agentcli.settings import ContextSettings, Settings
from agentcli.task import Task

_SECRET = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD)$")


def run_limits(settings: Settings, task: Task, before: Mapping[str, float]) -> RunLimits:
    """The limits of the task, else of its session (``before``), else of the settings."""
    budget = task.budget
    tokens, calls = before.get("tokens"), before.get("tool_calls")
    return RunLimits(
        max_steps=task.max_steps or int(before.get("max_steps", settings.max_steps)),
        time_s=budget.time_s or before.get("time_s", settings.timeout_s),
        step_time_s=settings.step_timeout_s,
        silence_s=settings.request_timeout_s,
        tokens=budget.tokens or (int(tokens) if tokens else settings.budget_tokens),
        cost_usd=budget.cost or before.get("cost_usd", settings.max_cost),
        tool_calls=budget.tool_calls or (int(calls) if calls else None),
    )


def context_rules(
    chosen: ContextSettings, prompts: Prompts, *, small: bool
) -> tuple[ContextRules, tuple[Processor, ...]]:
    """How to shorten conversations; a ``small`` model is not trusted to summarise."""
    rules = ContextRules(**chosen.model_dump(exclude={"processors", "memory"}))
    if chosen.processors is not None:
        return rules, processors_named(chosen.processors, prompts)
    names = [name for name in STANDARD if not (small and name.startswith("summarize"))]
    return rules, processors_named(names, prompts)


def tool_limits(settings: Settings) -> tuple[Limits, Limits]:
    """The limits of commands, and those of checks."""
    command = of_settings(settings.limits)
    return command, replace(command, time_s=settings.limits.check_time_s)


def secrets(settings: Settings, environ: Mapping[str, str]) -> list[str]:
    """Values of the environment that must not reach the journal, longest first.

    They are those of variables with a name like a secret's, or that a provider's key is read from.
    """
    keys = {provider.api_key_env for provider in settings.providers.values()}
    found = {
        value for name, value in environ.items() if name in keys or _SECRET.search(name.upper())
    }
    return sorted(found, key=len, reverse=True)
