"""For every family, logits and greedy continuations equal those of transformers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from agentcli.model.attention import backend
from agentcli.model.checkpoint import LoadedModel, load_model
from agentcli.model.families import config_from_hf
from tests.model.families import CASES, Case, make_oracle, near, random_tokens, save_oracle

LENGTH = 40  # several attention windows
SHAPE = {  # which files do not leave out, except Gemma 3's
    "hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "vocab_size",
}  # fmt: skip


class Pair:
    """The oracle and our model from the same folder, with the oracle's logits (2, T, V)."""

    def __init__(self, case: Case, folder: Path) -> None:
        self.case, self.folder = case, folder
        self.oracle = make_oracle(case)
        save_oracle(case, self.oracle, folder)
        self.ours: LoadedModel = load_model(folder)
        self.tokens = random_tokens(2, LENGTH)
        with torch.no_grad():
            self.expected: Tensor = self.oracle(self.tokens).logits


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    case: Case = request.param
    yield Pair(case, tmp_path_factory.mktemp(case.name))


def test_whole_prefill(pair: Pair) -> None:
    model = pair.ours.model
    assert pair.expected.std() > 0.3
    near(model(pair.tokens), pair.expected)
    near(model(pair.tokens, model.new_cache(2)), pair.expected)


def test_written_out_attention(pair: Pair) -> None:
    with backend("math"):
        near(pair.ours.model(pair.tokens), pair.expected)


@pytest.mark.parametrize("pieces", [[1] * LENGTH, [13, 1, 20, 6], [6, 7, 8, 19]])
def test_in_pieces(pair: Pair, pieces: list[int]) -> None:
    model = pair.ours.model
    cache = model.new_cache(2)
    logits = torch.cat([model(piece, cache) for piece in torch.split(pair.tokens, pieces, 1)], 1)
    near(logits, pair.expected)


def test_rows_of_different_lengths(pair: Pair) -> None:
    """The oracle's batch is padded on the left, ours on the right; then both make one step."""
    short, long = LENGTH - 17, LENGTH - 1
    padded = torch.zeros(2, long, dtype=torch.long)
    padded[0, -short:] = pair.tokens[0, :short]
    padded[1] = pair.tokens[1, :long]
    mask = torch.ones(2, long, dtype=torch.long)
    mask[0, :-short] = 0
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        theirs = pair.oracle(padded, attention_mask=mask, position_ids=positions).logits
    model = pair.ours.model
    cache = model.new_cache(2)
    right = torch.zeros(2, long, dtype=torch.long)
    right[0, :short], right[1] = pair.tokens[0, :short], pair.tokens[1, :long]
    ours = model(right, cache, [short, long])
    near(ours[0, :short], theirs[0, -short:])
    near(ours[1], theirs[1])
    step = torch.stack((pair.tokens[0, short], pair.tokens[1, long]))[:, None]
    after = model(step, cache)[:, 0]
    near(after[0], pair.expected[0, short])
    near(after[1], pair.expected[1, long])


def test_greedy_continuation(pair: Pair) -> None:
    prompt = pair.tokens[:1, :12]
    theirs = pair.oracle.generate(
        prompt, max_new_tokens=20, do_sample=False, eos_token_id=None, pad_token_id=0
    )[0, 12:].tolist()
    model = pair.ours.model
    cache = model.new_cache()
    token, ours = prompt, []
    for _ in range(20):
        token = model(token, cache)[:, -1].argmax(-1, keepdim=True)
        ours.append(int(token))
    assert ours == theirs


def test_unfused_weights(pair: Pair) -> None:
    model = load_model(pair.folder, fused=False).model
    near(model(pair.tokens), pair.expected)


def test_bfloat16(pair: Pair, tmp_path: Path) -> None:
    """Sharded bfloat16 files: logits are within rounding of the float32 ones, like the oracle's."""
    oracle: Any = make_oracle(pair.case).to(torch.bfloat16)
    save_oracle(pair.case, oracle, tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    with torch.no_grad():
        theirs: Tensor = oracle(pair.tokens).logits.float()
        exact: Tensor = oracle.float()(pair.tokens).logits
    model = load_model(tmp_path).model
    assert model.embedding_weight.dtype == torch.bfloat16
    ours = model(pair.tokens)
    scale = exact.square().mean().sqrt()
    error = (ours - exact).square().mean().sqrt() / scale
    assert error < max(0.02, 1.2 * float((theirs - exact).square().mean().sqrt() / scale))


@pytest.mark.parametrize("kind", sorted({case.kind for case in CASES}))
def test_settings_left_out(kind: str) -> None:
    whole = json.loads(getattr(transformers, f"{kind}Config")().to_json_string(use_diff=False))
    config = config_from_hf(whole)
    for name in whole.keys() - SHAPE - {"model_type"}:
        assert config_from_hf({key: whole[key] for key in whole if key != name}) == config, name


def test_gemma_3_with_images() -> None:
    """The 4B model's file says only this of the text model."""
    text: dict[str, Any] = {
        "model_type": "gemma3_text",
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    }
    theirs = transformers.Gemma3TextConfig(**text).to_json_string(use_diff=False)
    ours = config_from_hf({"model_type": "gemma3", "text_config": text})
    assert ours == config_from_hf(json.loads(theirs))
    assert (ours.n_head, ours.n_kv_head, ours.vocab_size) == (8, 4, 262_208)
