"""Compilation of the model, as far as it can be tested without CUDA."""

from __future__ import annotations

from typing import Any

import torch

from agentcli.inference.graphs import decode_step
from agentcli.inference.sampling import likeliest
from tests.model.test_nanochat import VOCAB, make_config, make_model


def test_one_graph_without_breaks() -> None:
    """Neither the whole model (for training) nor a cached step (for decoding) breaks its graph."""
    model = make_model(make_config(n_layer=3))
    tokens = torch.randint(0, VOCAB, (2, 140))
    whole: Any = torch.compile(model, fullgraph=True, backend="eager")
    logits = whole(tokens)
    torch.testing.assert_close(logits, model(tokens))
    torch.autograd.backward(logits.logsumexp(-1).sum())
    with torch.no_grad():
        cache = model.new_cache(2)
        model(tokens[:, :100], cache)
        step: Any = torch.compile(decode_step, fullgraph=True, backend="eager")
        positions = torch.full((2, 1), 100)
        read = [tokens[:, at : at + 1].clone() for at in (100, 101)]
        after = [step(model, cache, one, positions, 256)[0] for one in read]
        torch.testing.assert_close(torch.stack(after, 1), logits[:, 100:102], rtol=0, atol=1e-4)


@torch.no_grad()
def test_a_step_leaves_the_likeliest_tokens_for_the_next() -> None:
    model = make_model(make_config(n_layer=3))
    prompt = torch.randint(0, VOCAB, (2, 30))
    cache = model.new_cache(2)
    tokens, positions = model(prompt, cache)[:, -1:].argmax(-1), torch.full((2, 1), 30)
    text = torch.cat([prompt, tokens], 1)
    for _ in range(5):
        _, best = decode_step(model, cache, tokens, positions, 256)
        assert torch.equal(tokens[:, 0], best)
        expected = model(text)[:, -1].argmax(-1)  # everything computed anew
        assert torch.equal(best, expected)
        text = torch.cat([text, best[:, None]], 1)


@torch.no_grad()
def test_a_row_without_a_possible_token_is_marked() -> None:
    logits = torch.tensor([[1.0, 3.0, 3.0], [-torch.inf] * 3, [0.0, torch.nan, 1.0]])
    assert likeliest(logits).tolist() == [1, -1, -1]
