"""docs/providers.md matches the code."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from agentcli import errors
from agentcli.agent.recovery import Chance, chance
from agentcli.llm.catalog import PROVIDERS
from agentcli.settings import Settings
from tests.llm import test_openai, test_wires

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "providers.md").read_text("utf-8")
ROWS = re.findall(r"^\| (.+) \| (\w+Error) \| (yes|once|no) \|$", TEXT, re.MULTILINE)
AGAIN = {"yes": Chance.RETRY, "once": Chance.MAYBE, "no": Chance.NONE}


@pytest.mark.parametrize(("what", "name", "again"), ROWS)
def test_faults(what: str, name: str, again: str) -> None:
    error = getattr(errors, name)("x")
    assert chance(error) is AGAIN[again], what


def test_every_class_has_its_row_and_its_test() -> None:
    named = {name for _, name, _ in ROWS}
    tested = {kind.__name__ for faults in (test_openai, test_wires) for _, kind in all_of(faults)}
    assert tested == named


def all_of(module: object) -> list[tuple[object, type[errors.ProviderError]]]:
    faults: dict[str, tuple[object, type[errors.ProviderError]]] = module.FAULTS  # type: ignore[attr-defined]
    return list(faults.values())


def test_providers() -> None:
    for name, provider in PROVIDERS.items():
        (row,) = re.findall(rf"^\| `{name}` \| (.+)$", TEXT, re.MULTILINE)
        assert f"`{provider.base_url}`" in row
        assert provider.api_key_env in row if provider.api_key_env else "| none |" in row


def test_the_configuration_is_valid() -> None:
    (example,) = re.findall(r"```toml\n(.+?)```", TEXT, re.DOTALL)
    settings = Settings.model_validate(tomllib.loads(example))
    assert settings.providers["lab"].streaming is False
