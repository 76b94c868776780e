"""Quantization to 8 and 4 bits: products match the dequantized matrix; logits stay close."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from agentcli.errors import ModelError
from agentcli.model.checkpoint import load_model
from agentcli.model.config import ModelConfig
from agentcli.model.gpt import GPT
from agentcli.model.quantize import Int4Linear, Int8Linear, quantize_model
from tests.model.families import CASES, Case, make_oracle, random_tokens, save_oracle


@pytest.mark.parametrize("kind", [Int8Linear, Int4Linear])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (1, 50)])
def test_product(
    kind: type[Int8Linear] | type[Int4Linear], dtype: torch.dtype, shape: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(48, 96).to(dtype), torch.randn(48).to(dtype)
    narrow = kind(weight, bias)
    x = torch.randn(*shape, 96).to(dtype)
    stands_for = narrow.expanded()
    steps = 127 if kind is Int8Linear else 7
    assert (stands_for - weight).abs().max() <= weight.abs().max() / steps
    y = narrow(x)
    assert y.shape == (*shape, 48) and y.dtype == dtype
    expected = x.double() @ stands_for.double().T + bias.double()
    tolerance = 1e-4 if dtype == torch.float32 else 0.3
    torch.testing.assert_close(y.double(), expected, rtol=2e-2, atol=tolerance)


def divergence(exact: Tensor, narrow: Tensor) -> float:
    """Mean KL(exact || narrow) over positions, in nats."""
    p, q = exact.log_softmax(-1), narrow.log_softmax(-1)
    return float((p.exp() * (p - q)).sum(-1).mean())


@pytest.mark.parametrize("name", ["qwen2", "llama2_mha", "gemma3"])
def test_logits_stay_near(name: str, tmp_path: Path) -> None:
    case: Case = next(case for case in CASES if case.name == name)
    save_oracle(case, make_oracle(case), tmp_path)
    tokens = random_tokens(1, 40)
    exact = load_model(tmp_path).model(tokens)
    entropy = -float((exact.log_softmax(-1).exp() * exact.log_softmax(-1)).sum(-1).mean())
    bits8 = divergence(exact, load_model(tmp_path, quantize="int8").model(tokens))
    bits4 = divergence(exact, load_model(tmp_path, quantize="int4").model(tokens))
    # Random weights are the hardest to quantize; trained ones diverge far less.
    assert bits8 < 0.01 * entropy and bits8 < bits4 < 0.5 * entropy


def test_what_is_stored() -> None:
    config = ModelConfig.nanochat(vocab_size=512, n_layer=2, n_head=2, n_embd=128)
    for scheme, kind in (("int8", Int8Linear), ("int4", Int4Linear)):
        model = GPT(config)
        model.init_weights()
        quantize_model(model, scheme)  # type: ignore[arg-type]
        assert isinstance(model.get_submodule("transformer.h.0.mlp.c_fc"), kind)
        assert isinstance(model.lm_head, Int8Linear)
        assert model.smear_gate.weight.dtype == torch.float32
        assert model(torch.zeros(1, 5, dtype=torch.long)).isfinite().all()


def test_unknown_scheme() -> None:
    model = GPT(ModelConfig.nanochat(vocab_size=64, n_layer=1, n_head=1, n_embd=32))
    with pytest.raises(ModelError, match="'int3'"):
        quantize_model(model, "int3")  # type: ignore[arg-type]
