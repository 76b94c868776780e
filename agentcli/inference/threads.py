"""How many threads decode fastest here and now.

Two threads that wait for each other are far slower than one as soon as other work keeps a core
busy, so the number is measured, at start and again while commands run beside the model.
"""

from __future__ import annotations

import os
import time

import torch

from agentcli.model.gpt import GPT


def fastest_threads(model: GPT, most: int | None = None, *, tries: int = 3) -> int:
    """Times a decode step with 1, 2, 4, ... threads up to ``most`` (None: the usable cores).

    Sets and returns the best number; takes a few steps of the model for each. A model on another
    device needs one thread.
    """
    if model.device.type != "cpu":
        torch.set_num_threads(1)
        return 1
    most = most or usable_cores()
    counts = sorted({min(1 << power, most) for power in range(most.bit_length() + 1)})
    best = min(counts, key=lambda count: _step_time(model, count, tries))
    torch.set_num_threads(best)
    return best


def usable_cores() -> int:
    """Cores this process may run on, which a container or taskset can make fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@torch.inference_mode()
def _step_time(model: GPT, count: int, tries: int) -> float:
    """Seconds of the fastest of ``tries`` steps after a first one."""
    torch.set_num_threads(count)
    cache = model.new_cache(capacity=1)
    token = torch.zeros(1, 1, dtype=torch.long)
    best = float("inf")
    for attempt in range(tries + 1):
        cache.reset()
        started = time.perf_counter()
        model(token, cache)
        if attempt:
            best = min(best, time.perf_counter() - started)
    return best
