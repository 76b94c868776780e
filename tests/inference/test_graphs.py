"""Compilation of the model, as far as it can be tested without CUDA."""

from __future__ import annotations

from typing import Any

import torch

from agentcli.inference.graphs import decode_step
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
        after = [step(model, cache, tokens[:, at : at + 1], positions, 256) for at in (100, 101)]
        torch.testing.assert_close(torch.stack(after, 1), logits[:, 100:102], rtol=0, atol=1e-4)
