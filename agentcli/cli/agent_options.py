"""Options of the commands that run an agent."""

from __future__ import annotations

import math
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer


class AgentMode(StrEnum):
    """Values of ``--mode``. Without a terminal, calls that need an answer are denied."""

    ASK = "ask"
    EDITS = "edits"
    AUTO = "auto"
    PLAN = "plan"


class Network(StrEnum):
    """Values of ``--network``."""

    NONE = "none"
    LOOPBACK = "loopback"
    ALLOW = "allow"
    FULL = "full"


LIMITS = "Limits"
CONFINEMENT = "Permissions and confinement"


def positive(value: float | None) -> float | None:
    """Typer callback: refuses zero, negative and infinite numbers."""
    if value is not None and not 0 < value < math.inf:
        wrong = "must be more than 0" if value <= 0 else "must be a number; leave it out for no end"
        raise typer.BadParameter(wrong)
    return value


def _named(model: str | None) -> str | None:
    if model is not None and not model.strip():
        raise typer.BadParameter("is empty; name one, such as openai:gpt-6.2-sol")
    return model


ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="PROVIDER:NAME, such as openai:gpt-6.2-sol; default: from settings, else by keys.",
        metavar="MODEL",
        callback=_named,
    ),
]
WorkspaceOption = Annotated[
    Path | None,
    typer.Option(
        "--workspace", help="The folder to work in; default: the current one.", metavar="DIR"
    ),
]
ModeOption = Annotated[
    AgentMode | None,
    typer.Option(
        "--mode",
        help="What may happen without asking; default: ask in chat, auto in run.",
        rich_help_panel=CONFINEMENT,
    ),
]
EnvOption = Annotated[
    str | None,
    typer.Option(
        "--env",
        help="Where tools act: host, docker:IMAGE or ssh:HOST[:FOLDER]; default: host.",
        metavar="PLACE",
        rich_help_panel=CONFINEMENT,
    ),
]
NoSandboxOption = Annotated[
    bool,
    typer.Option(
        "--no-sandbox",
        help="Run tools without a sandbox, with your own rights.",
        rich_help_panel=CONFINEMENT,
    ),
]
NetworkOption = Annotated[
    Network | None,
    typer.Option(
        "--network", help="What commands can reach; default: none.", rich_help_panel=CONFINEMENT
    ),
]
DomainOption = Annotated[
    list[str] | None,
    typer.Option(
        "--domain",
        help="Let commands reach this host (implies --network allow); repeatable.",
        metavar="HOST",
        rich_help_panel=CONFINEMENT,
    ),
]
OfflineOption = Annotated[
    bool,
    typer.Option(
        "--offline",
        help="Use no network outside this machine, not even for a model's provider.",
        rich_help_panel=CONFINEMENT,
    ),
]
ProfileOption = Annotated[
    str | None,
    typer.Option("--profile", help="Use this profile of your settings.", metavar="NAME"),
]
BudgetTokensOption = Annotated[
    int | None,
    typer.Option(
        "--budget-tokens",
        min=1,
        help="Stop after this many tokens, input and output; default: no limit.",
        rich_help_panel=LIMITS,
    ),
]
MaxCostOption = Annotated[
    float | None,
    typer.Option(
        "--max-cost",
        help="Stop before this many US dollars; default: no limit.",
        metavar="DOLLARS",
        callback=positive,
        rich_help_panel=LIMITS,
    ),
]


def agent_flags(
    *,
    model: str | None,
    mode: AgentMode | None,
    env: str | None,
    no_sandbox: bool,
    network: Network | None,
    domain: list[str] | None,
    offline: bool,
    budget_tokens: int | None,
    max_cost: float | None,
) -> dict[str, Any]:
    """The flags as settings; None if a flag was not given."""
    return {
        "model": model,
        "mode": mode.value if mode else None,
        "env": env,
        "sandbox": "none" if no_sandbox else None,
        **network_flags(network, domain),
        "offline": offline or None,
        "budget_tokens": budget_tokens,
        "max_cost": max_cost,
    }


def network_flags(network: Network | None, domain: list[str] | None) -> dict[str, Any]:
    """The network flags as settings; ``--domain`` alone implies ``--network allow``."""
    if domain and network is None:
        network = Network.ALLOW
    if domain and network is not Network.ALLOW:
        raise typer.BadParameter(f"is for --network allow, not {network}", param_hint="'--domain'")
    return {"network": network.value if network else None, "domains": domain or None}
