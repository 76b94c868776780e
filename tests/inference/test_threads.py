"""The number of threads is one of those allowed, and is set; which one depends on the machine."""

from __future__ import annotations

import pytest
import torch

from agentcli.inference import threads
from agentcli.inference.engine import Engine


def test_the_fastest_is_taken(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    times = {1: 3.0, 2: 1.0, 3: 2.0}
    tried: list[int] = []

    def step_time(model: object, count: int, tries: int) -> float:
        tried.append(count)
        return times[count]

    monkeypatch.setattr(threads, "_step_time", step_time)
    assert threads.fastest_threads(engine.model, 3) == 2 == torch.get_num_threads()
    assert tried == [1, 2, 3]
    assert threads.fastest_threads(engine.model, 1) == 1


def test_measuring_works(engine: Engine) -> None:
    assert threads.fastest_threads(engine.model) in range(1, threads.usable_cores() + 1)
