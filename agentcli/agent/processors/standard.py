"""Makes processors from their names in the settings, such as ``keep_last_n=20``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agentcli.agent.processors.base import Processor
from agentcli.agent.processors.results import (
    CondenseResults,
    KeepRecentToolCalls,
    TruncateLongTools,
)
from agentcli.agent.processors.selection import KeepLastN, KeepRelevant
from agentcli.agent.processors.summary import SummarizeOlderThanN
from agentcli.errors import ConfigError
from agentcli.prompts import Prompts

STANDARD = (
    "condense_results",
    "truncate_long_tools",
    "summarize_older_than_n",
    "keep_recent_tool_calls",
    "truncate_long_tools=500",
    "keep_relevant",
    "keep_last_n",
    "truncate_all",
)
"""In order: what is cheap to lose, then a summary, then more and more."""


def processors_named(names: Sequence[str], prompts: Prompts | None = None) -> tuple[Processor, ...]:
    """Make the processors with these names, in this order; ``=N`` sets the number of each.

    Raises:
        ConfigError: a name is unknown, or what follows ``=`` is not a number.
    """
    prompts = prompts or Prompts.standard()
    makers: dict[str, Callable[..., Processor]] = {
        "condense_results": lambda kept=4: CondenseResults(kept),
        "truncate_long_tools": lambda chars=2000: TruncateLongTools(chars),
        "summarize_older_than_n": lambda n=8: SummarizeOlderThanN(prompts.get("summarize"), n),
        "keep_recent_tool_calls": lambda kept=8: KeepRecentToolCalls(kept),
        "keep_relevant": lambda kept=4: KeepRelevant(kept),
        "keep_last_n": lambda n=10: KeepLastN(n),
        "truncate_all": lambda chars=2000: TruncateLongTools(chars, 0, "truncate_all"),
    }
    found: list[Processor] = []
    for given in names:
        name, equals, number = given.partition("=")
        if name not in makers:
            raise ConfigError(
                f'unknown processor "{name}"', hint=f"There are: {', '.join(sorted(makers))}"
            )
        if equals and not (number.isascii() and number.isdecimal()):
            raise ConfigError(f'processor "{given}": {number or "nothing"} is not a number')
        found.append(makers[name](*([int(number)] if equals else [])))
    return tuple(found)
