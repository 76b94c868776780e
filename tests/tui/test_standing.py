"""The status of a conversation: a local model's decoding rate."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from agentcli.agent.events import Delta, StreamReset
from agentcli.agent.state import AgentState
from agentcli.llm.client import UsageDelta
from agentcli.messages import Usage
from agentcli.settings import Settings
from agentcli.tui import standing
from agentcli.tui.standing import Standing
from agentcli.wiring import open_agent


def told(tokens: int) -> Delta:
    return Delta(1, UsageDelta(Usage(100, output_tokens=tokens)))


@pytest.mark.parametrize("model, rate", [("embedded", 25.0), ("openai:scripted", 0.0)])
async def test_the_rate_is_shown_only_while_a_local_model_decodes(
    model: str, rate: float, home: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, clock = AgentState(), iter([10.0, 10.1, 12.0])
    async with open_agent(Settings(), workspace=workspace, model=model) as agent:
        monkeypatch.setattr(standing, "time", SimpleNamespace(monotonic=lambda: next(clock)))
        begun = Standing().after(told(10), state, agent)
        at_once = begun.after(told(11), state, agent)
        assert begun.rate == at_once.rate == 0  # too early to tell a rate
        assert at_once.after(told(60), state, agent).rate == rate
        assert at_once.after(StreamReset(1, "again"), state, agent).first is None
