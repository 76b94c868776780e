"""nanochat's architecture against a plain float64 implementation of its equations."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from agentcli.errors import ModelError
from agentcli.model.config import ModelConfig, nanochat_windows
from agentcli.model.gpt import GPT

VOCAB = 203


def make_config(**changes: object) -> ModelConfig:
    settings: dict[str, object] = {
        "vocab_size": VOCAB,
        "sequence_len": 512,
        "n_layer": 5,
        "n_head": 4,
        "n_kv_head": 2,
        "n_embd": 64,
        "window_pattern": "SSL",
    }
    return ModelConfig.nanochat(**{**settings, **changes})  # type: ignore[arg-type]


def make_model(config: ModelConfig, seed: int = 0) -> GPT:
    """A model without zero or neutral weights, so that every term affects the logits."""
    model = GPT(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.empty(parameter.shape).normal_(0, 0.2, generator=generator))
        for name in ("resid_lambdas", "x0_lambdas", "smear_lambda", "backout_lambda"):
            parameter = getattr(model, name)
            parameter.copy_(torch.empty(parameter.shape).uniform_(0.3, 1.2, generator=generator))
        model.embedding_weight.mul_(5)
    return model


def reference_logits(model: GPT, tokens: list[int]) -> Tensor:
    """Logits (T, vocab) from the equations in float64, one position after another."""
    c = model.config
    w = {name: p.detach().double() for name, p in model.state_dict().items()}
    eps = 2.0**-23

    def norm(x: Tensor) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + eps).sqrt()

    embedded = [norm(w["transformer.wte.weight"][t]) for t in tokens]
    x = []
    for t, e in enumerate(embedded):
        if t:
            gate = torch.sigmoid(w["smear_gate.weight"] @ e[:24])
            e = e + w["smear_lambda"] * gate * embedded[t - 1]
        x.append(e)
    x0 = list(x)
    half = c.head_dim // 2
    frequency = 100_000.0 ** (-2 * torch.arange(half, dtype=torch.float64) / c.head_dim)

    def rope(head: Tensor, position: int) -> Tensor:
        cos, sin = (position * frequency).cos(), (position * frequency).sin()
        first, second = head[:half], head[half:]
        return torch.cat([first * cos + second * sin, second * cos - first * sin])

    middle = x
    for i in range(c.n_layer):
        p = f"transformer.h.{i}."
        x = [w["resid_lambdas"][i] * a + w["x0_lambdas"][i] * b for a, b in zip(x, x0, strict=True)]
        queries, keys, values = [], [], []
        for t, stream in enumerate(x):
            n = norm(stream)
            q = (w[p + "attn.c_q.weight"] @ n).view(c.n_head, c.head_dim)
            k = (w[p + "attn.c_k.weight"] @ n).view(c.n_kv_head, c.head_dim)
            v = (w[p + "attn.c_v.weight"] @ n).view(c.n_kv_head, c.head_dim)
            if i % 2 == (c.n_layer - 1) % 2:
                ve = w[f"value_embeds.{i}.weight"][tokens[t]].view(c.n_kv_head, c.head_dim)
                gate = 3 * torch.sigmoid(w[p + "attn.ve_gate.weight"] @ n[:12])
                v = v + gate[:, None] * ve
            queries.append(torch.stack([1.2 * norm(rope(h, t)) for h in q]))
            keys.append(torch.stack([1.2 * norm(rope(h, t)) for h in k]))
            values.append(v)
        all_keys, all_values = torch.stack(keys), torch.stack(values)  # (T, Hkv, D)
        short = math.ceil(c.sequence_len / 4 / 128) * 128
        window = short if "SSL"[i % 3] == "S" and i < c.n_layer - 1 else c.sequence_len
        after = []
        for t, stream in enumerate(x):
            first = max(0, t - window)
            heads = []
            for h in range(c.n_head):
                kv = h // (c.n_head // c.n_kv_head)
                k, v = all_keys[first : t + 1, kv], all_values[first : t + 1, kv]
                scores = k @ queries[t][h] / math.sqrt(c.head_dim)
                heads.append(scores.softmax(0) @ v)
            stream = stream + w[p + "attn.c_proj.weight"] @ torch.cat(heads)
            hidden = torch.relu(w[p + "mlp.c_fc.weight"] @ norm(stream)) ** 2
            after.append(stream + w[p + "mlp.c_proj.weight"] @ hidden)
        x = after
        if i == c.n_layer // 2:
            middle = x
    out = [norm(a - w["backout_lambda"] * b) for a, b in zip(x, middle, strict=True)]
    z = torch.stack(out) @ w["lm_head.weight"].T
    return 15 * torch.tanh(z[:, : c.vocab_size] / 15)


@pytest.fixture(scope="module")
def case() -> tuple[GPT, Tensor, Tensor]:
    """A model, tokens (1, 150) beyond the short window of 128, and logits (150, vocab)."""
    model = make_model(make_config())
    tokens = torch.randint(0, VOCAB, (1, 150), generator=torch.Generator().manual_seed(1))
    return model, tokens, reference_logits(model, tokens[0].tolist())


def test_float64_logits_equal_the_equations(case: tuple[GPT, Tensor, Tensor]) -> None:
    model, tokens, expected = case
    wide = GPT(model.config).double()
    wide.load_state_dict(model.state_dict())
    logits = wide(tokens)[0]
    assert logits.dtype == torch.float64
    assert expected.std() > 1  # else small differences prove little
    torch.testing.assert_close(logits, expected, rtol=0, atol=2e-5)


def test_float32_logits_equal_the_equations(case: tuple[GPT, Tensor, Tensor]) -> None:
    model, tokens, expected = case
    torch.testing.assert_close(model(tokens)[0].double(), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("pieces", [[150], [1] * 150, [100, 1, 1, 48], [1, 127, 2, 20]])
def test_cache_in_pieces_equals_the_equations(
    case: tuple[GPT, Tensor, Tensor], pieces: list[int]
) -> None:
    """The smear term is also right for a later prefill into a used cache."""
    model, tokens, expected = case
    cache = model.new_cache()
    with torch.no_grad():
        parts = [model(piece, cache) for piece in torch.split(tokens, pieces, 1)]
    logits = torch.cat(parts, 1)[0].double()
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-3)


def test_truncation_restores_the_smear(case: tuple[GPT, Tensor, Tensor]) -> None:
    model, tokens, expected = case
    cache = model.new_cache()
    with torch.no_grad():
        model(tokens[:, :90], cache)
        model(torch.full((1, 30), 7), cache)  # a turn that is undone
        cache.truncate(90)
        logits = model(tokens[:, 90:], cache)[0].double()
    torch.testing.assert_close(logits, expected[90:], rtol=0, atol=1e-3)


def test_bfloat16_stream_over_float32_weights(case: tuple[GPT, Tensor, Tensor]) -> None:
    model, tokens, expected = case
    narrow = GPT(model.config)
    narrow.load_state_dict(model.state_dict())
    narrow.compute_dtype = torch.bfloat16
    logits = narrow(tokens)[0]
    assert logits.dtype == torch.float32
    error = (logits.double() - expected).square().mean().sqrt() / expected.std()
    assert error < 0.1


def test_every_parameter_gets_a_gradient() -> None:
    model = make_model(make_config())
    tokens = torch.randint(0, VOCAB, (2, 140))
    model(tokens).logsumexp(-1).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_initial_weights() -> None:
    config = make_config(n_layer=3, n_embd=128, vocab_size=1000)
    model = GPT(config)
    model.init_weights(seed=7)
    w = model.state_dict()
    bound = 3**0.5 * 128**-0.5
    assert w["transformer.wte.weight"].std().item() == pytest.approx(0.8, rel=0.02)
    assert w["lm_head.weight"].std().item() == pytest.approx(0.001, rel=0.02)
    for i in range(3):
        assert not w[f"transformer.h.{i}.attn.c_proj.weight"].any()
        assert not w[f"transformer.h.{i}.mlp.c_proj.weight"].any()
        assert w[f"transformer.h.{i}.attn.c_q.weight"].abs().max() <= bound
        assert w[f"transformer.h.{i}.mlp.c_fc.weight"].abs().max() <= 0.4 * bound
    assert w["resid_lambdas"].tolist() == pytest.approx([1.15, 1.10, 1.05])
    assert w["x0_lambdas"].tolist() == pytest.approx([0.20, 0.125, 0.05])
    assert w["smear_lambda"].item() == 0 and w["backout_lambda"].item() == pytest.approx(0.2)
    again = GPT(config)
    again.init_weights(seed=7)
    assert all(torch.equal(w[name], value) for name, value in again.state_dict().items())


def test_windows_follow_the_pattern() -> None:
    assert nanochat_windows("SSSL", 5, 2048) == (512, 512, 512, None, None)
    assert nanochat_windows("S", 2, 1000) == (256, None)
    assert nanochat_windows("L", 2, 2048) == (None, None)


def test_value_embeddings_can_be_left_out() -> None:
    model = GPT(make_config(value_embeds=False, tied=True))
    names = model.state_dict()
    assert not any("value_embeds" in name or "ve_gate" in name for name in names)
    assert "lm_head.weight" not in names
    assert model(torch.zeros(1, 3, dtype=torch.long)).shape == (1, 3, VOCAB)


def test_defaults() -> None:
    """A configuration without these values gets nanochat's defaults."""
    config = ModelConfig.nanochat()
    assert (config.sequence_len, config.vocab_size, config.n_layer) == (2048, 32768, 12)
    assert (config.n_head, config.n_kv_head, config.n_embd) == (6, 6, 768)
    assert config.windows == (512, 512, 512, None) * 3
    assert not (config.tied or config.qkv_bias or config.out_bias or config.mlp_bias)
    assert ModelConfig.nanochat(vocab_size=100).padded_vocab_size == 128


def test_heads_that_do_not_divide() -> None:
    with pytest.raises(ModelError, match="not a multiple of n_kv_head"):
        make_config(n_kv_head=3)
