"""Shards, packing and mixtures; and the loss and the optimiser against plain formulas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra 'local'")

from training.loss import CrossEntropy  # noqa: E402
from training.optim import orthogonal  # noqa: E402
from training.shards import list_shards, make_shard, read_shard, write_shard  # noqa: E402
from training.streams import CodeStream, Mixture, TaskStream, best_fit  # noqa: E402


def test_a_shard_returns_its_documents(tmp_path: Path) -> None:
    documents = [([8160, 1, 2], [0, 0, 1]), ([8160, 5], [0, 1])]
    write_shard(tmp_path / "a.npz", documents)
    shard = read_shard(tmp_path / "a.npz")
    found = [(ids.tolist(), mask.tolist()) for ids, mask in shard.documents()]
    assert found == documents
    assert [path.name for path in list_shards(tmp_path)] == ["a.npz"]


def test_a_document_needs_a_mask_of_its_length() -> None:
    with pytest.raises(ValueError, match="mask"):
        make_shard([([1, 2], [1])])


def test_code_is_seen_once_an_epoch() -> None:
    tokens = np.arange(1000, dtype=np.uint16)
    stream = CodeStream(tokens, length=10, seed=1)
    rows = []
    while stream.state["epoch"] == 0:
        batch = stream.next_batch(1)
        assert torch.equal(batch.targets[:, :-1], batch.tokens[:, 1:].long())
        rows.append(batch.tokens[0, 0].item())
    assert len(rows) == len(set(rows)) >= 98


def test_rows_hold_whole_documents_and_nothing_is_lost() -> None:
    rng = np.random.default_rng(2)
    documents = [
        (np.full(size, i, np.uint16), np.ones(size, np.uint8))
        for i, size in enumerate(rng.integers(2, 33, size=500))
    ]
    rows = list(best_fit(iter(documents), 32))
    assert sorted(int(ids[0]) for row in rows for ids, _ in row) == list(range(500))
    sizes = [sum(len(ids) for ids, _ in row) for row in rows]
    assert max(sizes) <= 32
    assert np.mean(sizes) > 31


def test_only_what_the_mask_names_is_learnt(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.npz", [([9, 1, 2, 3], [0, 0, 1, 1])])
    stream = TaskStream(tmp_path, length=6, seed=1, context=0.25)
    batch = stream.next_batch(1)
    assert batch.tokens.tolist() == [[9, 1, 2, 3, 0, 0]]
    assert batch.targets[0, :3].tolist() == [1, 2, 3]
    assert batch.weights.tolist() == [[0.25, 1.0, 1.0, 0.0, 0.0, 0.0]]


def test_new_shards_come_before_repeats(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.npz", [([1, 1], [0, 1])])
    stream = TaskStream(tmp_path, length=2, seed=1, context=0.0)
    assert stream.next_batch(1).tokens.tolist() == [[1, 1]]
    write_shard(tmp_path / "b.npz", [([2, 2], [0, 1])])
    assert {stream.next_batch(1).tokens[0, 0].item() for _ in range(2)} == {1, 2}
    assert stream.state["seen"] == ["a.npz", "b.npz"]


def test_documents_longer_than_a_row_are_dropped(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.npz", [([1] * 9, [1] * 9), ([2, 3], [0, 1])])
    stream = TaskStream(tmp_path, length=4, seed=1, context=0.0)
    assert stream.next_batch(2).tokens.tolist() == [[2, 3, 0, 0], [2, 3, 0, 0]]


def test_a_mixture_keeps_the_shares() -> None:
    tokens = np.arange(200, dtype=np.uint16)
    streams = {name: CodeStream(tokens, 4, seed=1) for name in ("a", "b")}
    mixture = Mixture(streams, {"a": 1, "b": 1})
    names = [mixture.next_batch({"a": 0.75, "b": 0.25})[0] for _ in range(40)]
    assert names.count("a") == 30


def test_the_loss_and_its_gradients_are_those_of_cross_entropy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("training.loss.CHUNK", 5)
    torch.manual_seed(1)
    hidden = torch.randn(2, 7, 16, requires_grad=True)
    head = torch.randn(30, 16, requires_grad=True)
    targets, weights = torch.randint(30, (2, 7)), torch.rand(2, 7)
    loss = CrossEntropy(15.0, compiled=False)(hidden, head, targets, weights)
    torch.autograd.backward(loss * 2)
    found = hidden.grad, head.grad
    hidden.grad = head.grad = None
    logits = 15 * torch.tanh(hidden @ head.T / 15)
    each = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), reduction="none"
    )
    expected = (each * weights.flatten()).sum() / weights.sum()
    torch.autograd.backward(expected * 2)
    assert torch.allclose(loss, expected, atol=1e-5)
    assert torch.allclose(found[0], hidden.grad, atol=1e-5)
    assert torch.allclose(found[1], head.grad, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 16, 64), (2, 64, 16)])
def test_muon_makes_matrices_orthogonal(shape: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    values = torch.linalg.svdvals(orthogonal(torch.randn(shape)).float())
    assert values.min() > 0.7
    assert values.max() < 1.3
