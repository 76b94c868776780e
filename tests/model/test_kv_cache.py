"""The cache: growth, truncation, forks, rows of different lengths, and its errors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from agentcli.errors import ContextLengthError, ModelError
from agentcli.model import kv_cache
from agentcli.model.config import ModelConfig
from agentcli.model.gpt import GPT
from tests.model.families import near
from tests.model.test_nanochat import VOCAB, make_config, make_model


@pytest.fixture(scope="module")
def model() -> GPT:
    return make_model(make_config(n_layer=4)).requires_grad_(False)


@pytest.fixture(scope="module")
def tokens() -> Tensor:
    return torch.randint(0, VOCAB, (3, 200), generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def whole(model: GPT, tokens: Tensor) -> Tensor:
    logits: Tensor = model(tokens)
    return logits


def test_grows_on_demand(
    model: GPT, tokens: Tensor, whole: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kv_cache, "GRAIN", 16)
    cache = model.new_cache(3)
    assert cache.capacity == 16
    parts = [model(piece, cache) for piece in torch.split(tokens, [10, 7, 1, 100, 82], 1)]
    near(torch.cat(parts, 1), whole, 1e-3)
    assert cache.capacity >= 200 and cache.capacity % 16 == 0
    assert cache.row_tokens(1) == tokens[1].tolist()


def test_layout(model: GPT) -> None:
    cache = model.new_cache(3, capacity=100)
    assert len(cache.k) == len(cache.v) == 4
    assert {t.shape for t in (*cache.k, *cache.v)} == {(3, 512, 2, 16)}  # never above the limit


def test_past_the_context_is_an_error_and_changes_nothing(model: GPT) -> None:
    cache = model.new_cache(limit=20)
    before = model(torch.arange(18)[None], cache)
    with pytest.raises(ContextLengthError, match="21 tokens do not fit the context of 20"):
        model(torch.arange(3)[None], cache)
    assert cache.lengths == [18]
    cache.truncate(10)
    again = model(torch.arange(10, 18)[None], cache)
    near(again, before[:, 10:], 1e-3)
    with pytest.raises(ContextLengthError):
        model(torch.zeros(1, 513, dtype=torch.long))


def test_truncate_each_row(model: GPT, tokens: Tensor, whole: Tensor) -> None:
    cache = model.new_cache(3)
    model(tokens[:, :150], cache)
    cache.truncate([150, 40, 0])
    assert not cache.uniform
    more = torch.stack([tokens[0, 150:170], tokens[1, 40:60], tokens[2, :20]])
    logits = model(more, cache, [20, 5, 20])
    near(logits[0], whole[0, 150:170], 1e-3)
    near(logits[1, :5], whole[1, 40:45], 1e-3)
    near(logits[2], whole[2, :20], 1e-3)
    assert cache.lengths == [170, 45, 20]
    step = torch.stack([tokens[0, 170], tokens[1, 45], tokens[2, 20]])[:, None]
    logits = model(step, cache)
    for row, at in enumerate((170, 45, 20)):
        near(logits[row, 0], whole[row, at], 1e-3)


def test_fork_lives_by_itself(model: GPT, tokens: Tensor, whole: Tensor) -> None:
    cache = model.new_cache()
    model(tokens[:1, :100], cache)
    rows = cache.fork(3)
    model(tokens[1:2, :50], cache)  # the original continues differently
    logits = model(tokens[:1, 100:120].expand(3, -1), rows)
    for row in range(3):
        near(logits[row], whole[0, 100:120], 1e-3)
    assert cache.lengths == [150] and rows.lengths == [120] * 3


def test_prefill_from_another(model: GPT, tokens: Tensor, whole: Tensor) -> None:
    one = model.new_cache()
    model(tokens[:1, :60], one)
    many = model.new_cache(2)
    many.prefill(one)
    logits = model(tokens[:1, 60:61].expand(2, -1), many)
    near(logits[:, 0], whole[:1, 60].expand(2, -1), 1e-3)
    with pytest.raises(ModelError, match="already holds"):
        many.prefill(one)
    with pytest.raises(ModelError, match="spread 2 rows over 3"):
        model.new_cache(3).prefill(many)
    with pytest.raises(ContextLengthError):
        model.new_cache(limit=10).prefill(one)
    other = GPT(ModelConfig.nanochat(n_layer=1, n_embd=64, n_head=4, vocab_size=64))
    with pytest.raises(ModelError, match="different models"):
        other.new_cache().prefill(one)


def test_select_rows(model: GPT, tokens: Tensor, whole: Tensor) -> None:
    cache = model.new_cache(3)
    model(tokens[:, :30], cache)
    cache.truncate([30, 20, 30])
    cache.select([2, 1])
    assert cache.lengths == [30, 20] and cache.batch == 2
    logits = model(torch.stack([tokens[2, 30:31], tokens[1, 20:21]]), cache)
    near(logits[0, 0], whole[2, 30], 1e-3)
    near(logits[1, 0], whole[1, 20], 1e-3)


def test_reset(model: GPT, tokens: Tensor, whole: Tensor) -> None:
    cache = model.new_cache(3)
    model(tokens[:, 100:], cache)
    cache.reset()
    near(model(tokens[:, :20], cache), whole[:, :20], 1e-3)


def test_misuse(model: GPT, tokens: Tensor) -> None:
    cache = model.new_cache(3)
    model(tokens[:, :5], cache)
    with pytest.raises(ModelError, match="cannot truncate row 0 from 5 to 6"):
        cache.truncate(6)
    with pytest.raises(ModelError, match="2 lengths"):
        cache.truncate([1, 2])
    with pytest.raises(ModelError, match="1 rows of tokens"):
        model(tokens[:1], cache)
    with pytest.raises(ModelError, match="token counts"):
        model(tokens[:, :5], cache, [5, 0, 5])


def test_no_room_is_a_clear_error(model: GPT) -> None:
    cache = model.new_cache(limit=1 << 50)
    model(torch.arange(10)[None], cache)
    with pytest.raises(ModelError, match=r"no room for .* GB of keys and values"):
        cache.reserve(1 << 45)
    assert cache.lengths == [10]
    model(torch.arange(10)[None], cache)  # the cache still works
