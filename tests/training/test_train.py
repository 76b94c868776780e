"""The trainer on a tiny model: it learns, resumes exactly, and exports."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra 'local'")

from agentcli.model.config import ModelConfig  # noqa: E402
from tests.model.conftest import one_thread  # noqa: E402
from training.optim import Rates  # noqa: E402
from training.plan import CODE, TASKS, Phase, Plan  # noqa: E402
from training.shards import write_shard  # noqa: E402
from training.train import Sitting, Trainer  # noqa: E402
from training.weights import export, load_export, quantised  # noqa: E402

__all__ = ["one_thread"]


@pytest.fixture
def plan() -> Plan:
    model = ModelConfig.nanochat(
        vocab_size=128, sequence_len=32, n_layer=2, n_embd=32, n_head=2, window_pattern="L"
    )
    phases = (
        Phase(0.5, {CODE: 1.0, TASKS: 0.5}, 0.3),
        Phase(1.0, {CODE: 0.5, TASKS: 1.0}, 0.0),
    )
    return Plan(
        model=model,
        rates=Rates(embedding=0.1),
        phases=phases,
        seed=3,
        code_length=16,
        task_length=32,
        batch_tokens=256,
        batches=3,
        warmup=5,
        warmdown=0.4,
        last_rate=0.1,
        eval_every=1000.0,
        eval_batches=1,
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Code that counts upwards and tasks with a constant answer: a tiny model can learn both."""
    rng = np.random.default_rng(5)
    start = rng.integers(100, size=(200, 1))
    counted = ((start + np.arange(16)) % 100).astype(np.uint16)
    np.save(tmp_path / "code.npy", counted.flatten())
    np.save(tmp_path / "held.npy", counted[:40].flatten())
    documents = []
    for _ in range(60):
        ids = [101, *(int(rng.integers(100)) for _ in range(6)), 102, 7, 8, 9, 10]
        documents.append((ids, [0] * 8 + [1] * 4))
    write_shard(tmp_path / "tasks" / "a.npz", documents)
    write_shard(tmp_path / "tasks-held" / "a.npz", documents[:10])
    return tmp_path


def trainer(plan: Plan, data: Path, run: Path) -> Trainer:
    return Trainer(plan, data, run, compiled=False, bf16=False)


def records(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_learns_both_streams(plan: Plan, data: Path, tmp_path: Path) -> None:
    found = trainer(plan, data, tmp_path / "run")
    before = found.evaluate(0.0)
    found.train(Sitting(0.0, 1.0, None, 60))
    after = records(tmp_path / "run")[-1]["held"]
    assert after["code"] < before["code"] - 1.0
    assert after["tasks"] < 0.3


def test_a_resumed_run_goes_on_exactly(plan: Plan, data: Path, tmp_path: Path) -> None:
    whole = trainer(plan, data, tmp_path / "whole")
    whole.train(Sitting(0.0, 0.4, None, 8))
    first = trainer(plan, data, tmp_path / "parts")
    first.train(Sitting(0.0, 0.2, None, 4))
    second = trainer(plan, data, tmp_path / "parts")
    second.resume()
    second.train(Sitting(0.2, 0.4, None, 4))
    assert second.steps == whole.steps == 8
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name


def test_tuning_changes_only_the_matrices(plan: Plan, data: Path, tmp_path: Path) -> None:
    rates = Rates(adam_matrix=0.002, matrix=0, embedding=0, head=0, scalar=0, weight_decay=0)
    found = trainer(replace(plan, rates=rates), data, tmp_path / "run")
    torch.nn.init.normal_(found.head, std=0.2)  # it starts small
    before = {name: value.clone() for name, value in found.model.state_dict().items()}
    held = found.evaluate(0.0)
    found.train(Sitting(0.0, 1.0, None, 30))
    after = found.model.state_dict()
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed == {n for n in before if n.startswith("transformer.h.") and "gate" not in n}
    assert records(tmp_path / "run")[-1]["held"]["tasks"] < held["tasks"] - 0.5


def test_a_sitting_ends_in_time(plan: Plan, data: Path, tmp_path: Path) -> None:
    found = trainer(plan, data, tmp_path / "run")
    found.train(Sitting(0.0, 1.0, 21.0, None))  # closing reserves all but one second
    assert records(tmp_path / "run")[-1]["seconds"] < 60
    assert found.steps > 0


def test_export_returns_nearly_the_same_weights(plan: Plan, data: Path, tmp_path: Path) -> None:
    found = trainer(plan, data, tmp_path / "run")
    export(found.model, tmp_path / "export", {"steps": 0})
    config, weights = load_export(tmp_path / "export")
    assert config == plan.model
    for name, value in found.model.state_dict().items():
        error = (weights[name] - value).abs().max()
        assert error <= value.abs().max() / 100, name


def test_quantised_rows_keep_their_own_scale() -> None:
    weight = torch.tensor([[1.0, -0.5, 0.25], [0.001, 0.0, 0.0005]])
    values, scale = quantised(weight)
    assert values.dtype == torch.int8
    assert torch.allclose(values.float() * scale[:, None], weight, rtol=0.01, atol=1e-5)
