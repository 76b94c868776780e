"""The plan of a training run, read from a TOML file in ``configs/`` that documents each field.

``progress`` is the completed share of the whole run, 0 to 1. A run may be split into sittings of
any length, each covering a part of it (``--from``, ``--to``), limited by time or by steps.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentcli.model.config import ModelConfig
from training.optim import Rates
from training.tokenizer import VOCAB_SIZE

CODE, TASKS, OPENINGS = "code", "tasks", "openings"
STREAMS = (CODE, TASKS, OPENINGS)


@dataclass(frozen=True)
class Phase:
    until: float  # progress
    shares: Mapping[str, float]  # of the batches, by stream
    context: float


@dataclass(frozen=True)
class Plan:
    model: ModelConfig
    rates: Rates
    phases: tuple[Phase, ...]
    seed: int
    code_length: int  # tokens of a row
    task_length: int
    batch_tokens: int
    batches: int  # of an optimiser step
    warmup: int  # steps of fresh optimisers
    warmdown: float  # progress
    last_rate: float
    eval_every: float  # seconds
    eval_batches: int
    opening_length: int = 256  # tokens of a row of short documents

    @property
    def step_tokens(self) -> int:
        return self.batch_tokens * self.batches

    def rows(self, stream: str) -> int:
        return max(1, self.batch_tokens // self.length(stream))

    def length(self, stream: str) -> int:
        lengths = {CODE: self.code_length, TASKS: self.task_length, OPENINGS: self.opening_length}
        return lengths[stream]

    def phase(self, progress: float) -> Phase:
        return next((p for p in self.phases if progress < p.until), self.phases[-1])

    def rate(self, progress: float, steps: int) -> float:
        """The factor of the learning rates: a warm-up over steps, constant, then a linear decay."""
        up = min(1.0, (steps + 1) / max(1, self.warmup))
        left = min(1.0, (1.0 - progress) / self.warmdown) if self.warmdown else 1.0
        return up * (self.last_rate + (1.0 - self.last_rate) * max(0.0, left))


def read_plan(path: Path) -> Plan:
    data: dict[str, Any] = tomllib.loads(path.read_text())
    model = ModelConfig.nanochat(vocab_size=VOCAB_SIZE, window_pattern="L", **data["model"])
    phases = tuple(
        Phase(phase["until"], {s: phase.get(s, 0.0) for s in STREAMS}, phase["context"])
        for phase in data["phase"]
    )
    return Plan(model=model, rates=Rates(**data["rates"]), phases=phases, **data["run"])
