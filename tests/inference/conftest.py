"""Tiny models with a tokenizer, shared by the tests of the engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentcli.inference.engine import Engine
from agentcli.model.checkpoint import load_model
from tests.model.conftest import one_thread
from tests.model.families import CASES, make_oracle, save_oracle
from tests.model.test_nanochat import make_config, make_model
from tests.model.test_tokenizer import nanochat

__all__ = ["one_thread"]


def make_engine(**changes: object) -> Engine:
    """A tiny nanochat model and tokenizer; its attention window is shorter than some prompts."""
    tokenizer = nanochat()
    config = make_config(**{"vocab_size": tokenizer.vocab_size, "n_layer": 3, **changes})
    return Engine(make_model(config).requires_grad_(False), tokenizer)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return make_engine()


@pytest.fixture(scope="module", params=["qwen3", "gemma3", "mistral_window"])
def family_engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Engine:
    folder: Path = tmp_path_factory.mktemp("model")
    case = next(case for case in CASES if case.name == request.param)
    save_oracle(case, make_oracle(case), folder)
    loaded = load_model(folder)
    return Engine(loaded.model, loaded.tokenizer, stop_ids=frozenset())
