"""The coding agent's prompt states the facts of its session."""

from __future__ import annotations

from dataclasses import replace

from agentcli.agent.module import CodingAgent
from agentcli.agent.state import AgentState

STATE = AgentState(session_id="s1", workspace="/home/me/project", sandbox="full", mode="auto")


def test_the_prompt_knows_workspace_and_sandbox() -> None:
    prompt = CodingAgent().build_system_prompt(STATE)
    assert "/home/me/project" in prompt and "{{" not in prompt


def test_plan_mode_has_a_prompt_of_its_own() -> None:
    module = CodingAgent()
    auto = module.build_system_prompt(STATE)
    plan = module.build_system_prompt(replace(STATE, mode="plan"))
    assert plan.startswith(auto.replace("auto", "plan")[:200])
    assert "# Plan mode" in plan and "# Plan mode" not in auto
