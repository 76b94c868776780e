"""Versions, rollouts, replacements and dependencies of tools."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from agentcli.environments.base import Nowhere
from agentcli.errors import ConfigError
from agentcli.messages import Outcome, ToolCall
from agentcli.tools.base import Tool, ToolContext, ToolKind, ToolSpec
from agentcli.tools.registry import Registry
from agentcli.tools.versions import Rollout, waves

SCHEMA = {"type": "object", "properties": {}}
CONTEXT = ToolContext(Nowhere())


def made(name: str, version: str = "1", **details: Any) -> Tool:
    async def say(context: ToolContext) -> str:
        return f"{name} {version}"

    spec = ToolSpec(name, "Says.", SCHEMA, ToolKind.READ, version, **details)
    return Tool(spec, say)


async def said(registry: Registry, name: str) -> str:
    return (await registry.dispatch(ToolCall("c", name), CONTEXT)).content


class TestVersions:
    async def test_the_last_is_meant_by_the_plain_name_and_each_by_its_own(self) -> None:
        registry = Registry([made("say", "1"), made("say", "2")])
        assert await said(registry, "say") == "say 2"
        assert await said(registry, "say@1") == "say 1"
        assert [spec.version for spec in registry.specs] == ["2"]
        result = await registry.dispatch(ToolCall("c", "say@3"), CONTEXT)
        assert result.outcome is Outcome.ERROR and 'unknown tool "say@3"' in result.content

    @pytest.mark.parametrize("version", ["", "1@2", "a b", "x" * 40])
    def test_a_version_is_a_plain_word(self, version: str) -> None:
        with pytest.raises(ConfigError, match="cannot be a version"):
            Registry([made("say", version)])


class TestReplacement:
    async def test_an_old_tool_still_works_says_what_to_use_and_is_not_offered(self) -> None:
        registry = Registry([made("old", replaced_by="new"), made("new")])
        assert await said(registry, "old") == "old 1\n[note: old is replaced by new; use that]"
        assert await said(registry, "new") == "new 1"
        assert [definition.name for definition in registry.definitions()] == ["new"]

    def test_a_replacement_must_exist(self) -> None:
        with pytest.raises(ConfigError, match="old is replaced by new@2, not registered"):
            Registry([made("old", replaced_by="new@2"), made("new")])


class TestRollout:
    TOOLS = (made("say", "1"), made("say", "2"))

    def chosen(self, shares: dict[str, float], seed: str) -> str:
        registry = Registry(self.TOOLS, rollouts=[Rollout("say", shares)], seed=seed)
        spec = registry.spec("say")
        assert spec is not None
        return spec.version

    def test_a_seed_always_gets_the_same(self) -> None:
        for seed in ("a", "b", "c"):
            assert len({self.chosen({"1": 1, "2": 1}, seed) for _ in range(5)}) == 1

    def test_many_seeds_get_their_shares(self) -> None:
        rollout = Rollout("say", {"1": 3.0, "2": 1.0})
        counts = Counter(rollout.version(f"session-{n}") for n in range(4000))
        assert 2850 <= counts["1"] <= 3150 and counts["1"] + counts["2"] == 4000

    def test_a_share_of_zero_is_never_chosen(self) -> None:
        rollout = Rollout("say", {"1": 0.0, "2": 1.0, "3": 0.0})
        assert {rollout.version(str(n)) for n in range(500)} == {"2"}

    @pytest.mark.parametrize("shares", [{}, {"1": 0.0}, {"1": 2.0, "2": -1.0}])
    def test_shares_must_mean_something(self, shares: dict[str, float]) -> None:
        with pytest.raises(ConfigError, match="shares must be"):
            self.chosen(shares, "x")

    def test_versions_must_exist(self) -> None:
        with pytest.raises(ConfigError, match="there is no version 3"):
            self.chosen({"1": 1.0, "3": 1.0}, "x")


class TestDependencies:
    def test_waves(self) -> None:
        tools = [made("c", depends_on=("a", "b")), made("b", depends_on=("a",)), made("a")]
        assert waves(tool.spec for tool in tools) == [["a"], ["b"], ["c"]]
        registry = Registry(tools)
        assert [registry.wave(name) for name in "abc"] == [0, 1, 2]

    @pytest.mark.parametrize(
        ("needs", "circle"),
        [
            ({"a": ["a"]}, "a → a"),
            ({"a": ["b"], "b": ["c"], "c": ["a"]}, "a → b → c → a"),
            ({"x": ["a"], "a": ["b"], "b": ["a"]}, "a → b → a"),
        ],
    )
    def test_a_circle_is_refused_at_registration(
        self, needs: dict[str, list[str]], circle: str
    ) -> None:
        with pytest.raises(ConfigError, match=f"in a circle: {circle}$"):
            Registry([made(name, depends_on=tuple(before)) for name, before in needs.items()])
