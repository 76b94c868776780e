"""CUDA against the CPU: eager, with CUDA graphs, and compiled. Skipped without a device."""

from __future__ import annotations

import copy

import pytest
import torch

from agentcli.inference.engine import Engine
from agentcli.inference.sampling import GREEDY, Sampling
from agentcli.inference.speculate import Lookup
from tests.inference.conftest import make_engine
from tests.inference.test_engine import PROMPT, rows_of

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def on_cuda(engine: Engine, **options: bool) -> Engine:
    model = copy.deepcopy(engine.model).to("cuda")
    return Engine(model, engine.tokenizer, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"graphs": False}, {"graphs": True}, {"compiled": True}])
@pytest.mark.parametrize("count", [1, 4])
def test_same_tokens(engine: Engine, options: dict[str, bool], count: int) -> None:
    """In float32, so that rounding does not change a token."""
    cuda = on_cuda(engine, **options)
    for sampling in (GREEDY, Sampling(seed=3)):
        wanted = {"num_samples": count, "max_tokens": 40, "sampling": sampling}
        assert rows_of(cuda, PROMPT, **wanted) == rows_of(engine, PROMPT, **wanted)


def test_graphs_follow_the_cache() -> None:
    """Beyond a bucket, beyond the capacity, after a truncation, and after rows that ended."""
    engine = make_engine(sequence_len=4096, window_pattern="L")
    cuda = on_cuda(engine)
    prompt = [i * 7 % 256 for i in range(1000)]
    cache = cuda.model.new_cache()
    for text in (prompt, prompt[:300], [*prompt[:300], 9]):
        mine = cuda.generate(text, max_tokens=40, sampling=GREEDY, cache=cache)
        tokens = [column[0] for column, _ in mine]
        assert [tokens] == rows_of(engine, text, max_tokens=40, sampling=GREEDY)[0]
    end = engine.tokenizer.special_id("<|assistant_end|>")
    ending = Sampling(seed=11, logit_bias={end: 5.0})
    wanted = {"num_samples": 6, "max_tokens": 30, "sampling": ending}
    assert rows_of(cuda, PROMPT, **wanted) == rows_of(engine, PROMPT, **wanted)


def test_drafts(engine: Engine) -> None:
    cuda = on_cuda(engine)
    plain = rows_of(cuda, PROMPT * 4, max_tokens=40, sampling=GREEDY)
    assert plain == rows_of(cuda, PROMPT * 4, max_tokens=40, sampling=GREEDY, lookup=Lookup())


def test_bfloat16_logits_near_the_cpu() -> None:
    engine = make_engine()
    tokens = torch.tensor([[i * 7 % 256 for i in range(200)]])
    exact = engine.model(tokens)
    model = engine.model.to("cuda", torch.bfloat16)
    with torch.no_grad():
        ours = model(tokens.cuda()).cpu()
    assert (ours - exact).square().mean().sqrt() / exact.std() < 0.1
