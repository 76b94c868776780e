"""Decode steps with the Triton kernels compute the same as without.

Without CUDA, Triton's interpreter can run them on the CPU, which takes minutes: install triton, and
set TRITON_INTERPRET=1.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import os
from typing import Any

import pytest
import torch
from torch import Tensor

from agentcli.inference.graphs import decode_step
from agentcli.model.config import ModelConfig, RopeConfig
from agentcli.model.gpt import GPT
from agentcli.model.pack import pack_model

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
# The interpreter cannot multiply matrices in bfloat16.
DTYPE = torch.float16 if INTERPRETED else torch.bfloat16

pytestmark = [
    pytest.mark.skipif(
        not (torch.cuda.is_available() or INTERPRETED),
        reason="needs a CUDA device, or triton and TRITON_INTERPRET=1",
    ),
    pytest.mark.skipif(not importlib.util.find_spec("triton"), reason="needs triton"),
]

SIZES: dict[str, Any] = dict(
    vocab_size=301, sequence_len=4096, n_layer=2, n_head=6, n_kv_head=2, n_embd=160, head_dim=32,
    n_hidden=300, rope=RopeConfig(1e4, 32),
)  # fmt: skip
CONFIGS = {
    "llama": ModelConfig(family="llama", **SIZES),
    "biases": ModelConfig(
        family="qwen2", qkv_bias=True, out_bias=True, mlp_bias=True, tied=True, **SIZES
    ),
    "norms of heads": ModelConfig(family="qwen3", qk_norm="before_rope", **SIZES),
    "partial": ModelConfig(family="phi3", **{**SIZES, "rope": RopeConfig(1e4, 8)}),
    "unrotated layer": ModelConfig(family="smollm3", layers_without_rope=(1,), **SIZES),
    "caps, windows, norms on both sides, gelu": ModelConfig(
        family="gemma2",
        norm="one_plus_weight",
        post_norms=True,
        qk_norm="before_rope",
        attention_softcap=20.0,
        logit_softcap=30.0,
        mlp="gelu_gate",
        windows=(40, None),
        **SIZES,
    ),
    "nanochat": ModelConfig.nanochat(
        vocab_size=301, sequence_len=1024, n_layer=4, n_head=3, n_embd=96
    ),
}


def make_model(config: ModelConfig) -> GPT:
    generator = torch.Generator().manual_seed(3)
    model = GPT(config, fused=True).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        centre = 1.0 if "norm" in name and config.norm == "weight" else 0.0
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1 + centre)
    return model.to(DEVICE, DTYPE)


@torch.inference_mode()
def steps(model: GPT, tokens: Tensor, held: int) -> Tensor:
    """The logits of single tokens after a prompt of ``held`` tokens, the second row shorter."""
    batch, length = tokens.shape
    cache = model.new_cache(batch)
    model(tokens[:, :held], cache)
    positions = torch.full((batch, 1), held, device=DEVICE)
    positions[1:2] -= 5
    keys = min(1024, cache.capacity)
    parts = [
        decode_step(model, cache, tokens[:, at : at + 1].clone(), positions, keys)[0]
        for at in range(held, length)
    ]
    return torch.stack(parts).float()


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("held", [20, 700])
def test_near_float32_as_the_plain_model(name: str, batch: int, held: int) -> None:
    model = make_model(CONFIGS[name])
    tokens = torch.randint(0, 301, (batch, held + 3), device=DEVICE)
    exact = steps(copy.deepcopy(model).float(), tokens, held)
    plain = steps(model, tokens, held)
    if INTERPRETED:
        assert importlib.import_module("agentcli.model.triton_kernels").prepare(model)
    else:
        assert pack_model(model)
    ours = steps(model, tokens, held)
    assert not torch.equal(ours, plain)  # the kernels round less often
    errors = [((logits - exact).norm() / exact.norm()).item() for logits in (ours, plain)]
    assert errors[0] < 1.2 * errors[1] + 1e-3
