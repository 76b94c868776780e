"""Providers in the output of ``models list``."""

from __future__ import annotations

from agentcli.llm.provider_models import listed
from agentcli.settings import ProviderSettings, Settings


def test_models_that_can_do_the_work_are_listed_where_there_is_a_key() -> None:
    assert list(listed(Settings(), {})) == []
    windows = {one.name: one.context for one in listed(Settings(), {"OPENAI_API_KEY": "k"})}
    assert windows["openai:gpt-4o"] == 128_000
    assert not windows.keys() & {"openai:whisper-1", "openai:gpt-4", "openai:gpt-4o-mini-tts"}


def test_a_server_of_ones_own_is_asked_for_a_name() -> None:
    settings = Settings(providers={"lab": ProviderSettings(base_url="http://127.0.0.1:1/v1")})
    assert [one.name for one in listed(settings, {})] == ["lab:NAME"]
