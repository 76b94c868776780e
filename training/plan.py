"""A run as data: read from a TOML file of ``configs/``, which also says what each field is.

``progress`` is the share of the whole run that is done, 0 to 1. A run may be split into sittings
of any length, each covering a part of it (``--from``, ``--to``), on time or on steps.
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

CODE, TASKS = "code", "tasks"


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

    @property
    def step_tokens(self) -> int:
        return self.batch_tokens * self.batches

    def rows(self, stream: str) -> int:
        length = self.code_length if stream == CODE else self.task_length
        return max(1, self.batch_tokens // length)

    def phase(self, progress: float) -> Phase:
        return next((p for p in self.phases if progress < p.until), self.phases[-1])

    def rate(self, progress: float, steps: int) -> float:
        """Factor of the learning rates: up with the optimisers' steps, level, linearly down."""
        up = min(1.0, (steps + 1) / max(1, self.warmup))
        left = min(1.0, (1.0 - progress) / self.warmdown) if self.warmdown else 1.0
        return up * (self.last_rate + (1.0 - self.last_rate) * max(0.0, left))


def read_plan(path: Path) -> Plan:
    data: dict[str, Any] = tomllib.loads(path.read_text())
    model = ModelConfig.nanochat(vocab_size=VOCAB_SIZE, window_pattern="L", **data["model"])
    phases = tuple(
        Phase(phase["until"], {CODE: phase[CODE], TASKS: phase[TASKS]}, phase["context"])
        for phase in data["phase"]
    )
    return Plan(model=model, rates=Rates(**data["rates"]), phases=phases, **data["run"])
