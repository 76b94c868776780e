"""Packed bfloat16 weights compute the same; without hardware support, nothing changes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from agentcli.errors import ModelError
from agentcli.model.checkpoint import load_model, save_model
from agentcli.model.gpt import GPT
from agentcli.model.pack import PackedLinear, can_pack, pack_model, suited_dtype
from tests.model.families import CASES, make_oracle, random_tokens, save_oracle
from tests.model.test_nanochat import make_config, make_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    case = next(case for case in CASES if case.name == "qwen2")
    save_oracle(case, make_oracle(case).to(torch.bfloat16), tmp_path)
    return tmp_path


def test_logits_with_and_without(folder: Path) -> None:
    plain = load_model(folder, pack=False).model
    packed = load_model(folder).model
    used = any(isinstance(module, PackedLinear) for module in packed.modules())
    assert used == can_pack()
    tokens = random_tokens(2, 30)
    exact, ours = plain(tokens), packed(tokens)
    error = (exact - ours).square().mean().sqrt() / exact.square().mean().sqrt()
    assert error < (0.03 if used else 1e-6)


def test_auto_dtype(folder: Path) -> None:
    loaded = load_model(folder, dtype="auto").model
    expected = torch.bfloat16 if can_pack() else torch.float32
    assert loaded.embedding_weight.dtype == expected == suited_dtype("cpu", torch.bfloat16)
    assert suited_dtype("cuda", torch.bfloat16) == torch.bfloat16
    assert suited_dtype("cpu", torch.float32) == torch.float32


def test_float32_is_left_alone() -> None:
    model = make_model(make_config())
    assert not pack_model(model)
    assert isinstance(model, GPT) and isinstance(model.lm_head, torch.nn.Linear)


def test_quantised_models_are_not_saved(folder: Path, tmp_path: Path) -> None:
    loaded = load_model(folder, quantize="int8")
    with pytest.raises(ModelError, match="cannot be saved"):
        save_model(loaded.model, tmp_path / "out")
