"""The exceptions match the tree and the exit codes drawn in the docstring of their module."""

from __future__ import annotations

import inspect
import re

import pytest

from agentcli import errors
from agentcli.errors import (
    AgentCLIError,
    BudgetError,
    EnvironmentOpError,
    ProviderError,
    RateLimitError,
    RetryExhaustedError,
    ToolInputError,
)

CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, AgentCLIError)
}


def drawn() -> dict[str, str]:
    """Each class in the drawing with its parent."""
    parents: dict[str, str] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r" {4}([│ ├└─]*)([A-Z]\w+)", line)
        if found:
            depth = len(found[1]) // 4
            above[depth:] = [found[2]]
            parents[found[2]] = above[depth - 1] if depth else "Exception"
    return parents


def test_the_drawing_is_the_tree() -> None:
    assert drawn() == {name: value.__bases__[0].__name__ for name, value in CLASSES.items()}


def test_the_drawing_says_the_exit_codes() -> None:
    shown = re.findall(r"(\w+Error) +([0-9])  ", errors.__doc__ or "")
    assert len(shown) > 10
    for name, code in shown:
        assert CLASSES[name].exit_code == int(code), name


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("ConfigError", 2),
        ("TaskError", 2),
        ("WorkspaceError", 2),
        ("AuthenticationError", 3),
        ("RetryExhaustedError", 3),
        ("SandboxError", 4),
        ("CapabilityError", 4),
        ("CheckpointError", 2),
        ("BudgetError", 1),
        ("JournalError", 5),
        ("InternalError", 5),
    ],
)
def test_exit_codes_are_those_of_the_command_line(name: str, code: int) -> None:
    assert CLASSES[name].exit_code == code


def test_one_line_says_what_and_what_to_do() -> None:
    assert AgentCLIError("no key").line() == "no key"
    assert AgentCLIError("no key", hint="Set OPENAI_API_KEY").line() == "no key. Set OPENAI_API_KEY"
    assert str(AgentCLIError("no key", hint="Set it")) == "no key"


def test_what_errors_carry() -> None:
    rate = RateLimitError("slow down", provider="openai", status=429, code="rate", retry_after_s=3)
    assert (rate.provider, rate.status, rate.code, rate.retry_after_s) == (
        "openai",
        429,
        "rate",
        3,
    )
    assert EnvironmentOpError("gone", code="ENOENT").code == "ENOENT"
    assert ToolInputError("bad", path="edits[0]").path == "edits[0]"
    budget = BudgetError(900, 800, 3)
    assert (budget.required, budget.hard, budget.attempts) == (900, 800, 3)
    assert "needs 900 tokens, 800 are allowed" in budget.message


def test_used_up_attempts_say_what_the_last_one_said() -> None:
    last = ProviderError("no answer", hint="Try later", provider="x", status=503, code="busy")
    error = RetryExhaustedError(4, last)
    assert error.line() == "no answer (after 4 attempts). Try later"
    assert (error.attempts, error.last, error.provider, error.status, error.code) == (
        4,
        last,
        "x",
        503,
        "busy",
    )
