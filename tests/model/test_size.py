"""The parameter count computed from a configuration equals that of the model."""

from __future__ import annotations

import json

import pytest
import torch

from agentcli.model.config import ModelConfig
from agentcli.model.families import config_from_hf
from agentcli.model.gpt import GPT
from agentcli.model.quantize import Scheme, quantize_model
from agentcli.model.size import parameters, weight_bytes
from tests.model.families import CASES, Case

NANOCHAT = [
    ModelConfig.nanochat(n_layer=3, n_head=4, n_kv_head=2, n_embd=64, vocab_size=300),
    ModelConfig.nanochat(n_layer=2, n_embd=64, n_head=2, vocab_size=128, value_embeds=False),
]


def counted_as_it_is(config: ModelConfig) -> None:
    with torch.device("meta"):
        model = GPT(config, fused=False)
    count = parameters(config)
    assert count.total == sum(each.numel() for each in model.parameters())


@pytest.mark.parametrize("config", NANOCHAT)
def test_parameters_of_nanochat_are_counted_right(config: ModelConfig) -> None:
    counted_as_it_is(config)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_parameters_of_a_family_are_counted_right(case: Case) -> None:
    counted_as_it_is(config_from_hf(json.loads(case.config().to_json_string())))


@pytest.mark.parametrize("scheme", ["int8", "int4"])
@pytest.mark.parametrize("tied", [False, True])
def test_memory_is_told_nearly_right(scheme: Scheme, tied: bool) -> None:
    config = ModelConfig.nanochat(
        n_layer=2, n_head=4, n_embd=256, vocab_size=1024, tied=tied, value_embeds=False
    )
    model = GPT(config).to(torch.bfloat16)
    model.init_weights()
    quantize_model(model, scheme)
    held = [*model.parameters(), *model.buffers()]
    assert weight_bytes(config, scheme) == pytest.approx(sum(t.nbytes for t in held), rel=0.02)
