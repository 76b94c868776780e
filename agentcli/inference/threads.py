"""Chooses the number of CPU threads for decoding by measurement.

As soon as other work keeps a core busy, two threads that wait for each other are far slower than
one. So the number is measured at start, and again while commands run beside the model. With the
kernels of ``model/native.py``, results do not depend on the number. Without them, the last digits
may; for reproducible results, set a fixed number.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

import torch

from agentcli.model.gpt import GPT

# A step is slow if it takes this many times the expected time. Steps of long conversations are
# slow, too, which costs one trial.
SLOW = 2.0
PATIENCE = 3  # slow steps in a row that start a trial
TRIES = 2  # steps with each number of threads in a trial
# Steps to the next trial while another number than the usual one is in use; doubles each time.
MIN_INTERVAL = 32
# The most steps between trials, even with the usual number, which may have been measured on a busy
# machine.
MAX_INTERVAL = 512


class StepThreads:
    """Chooses the number of threads from the times of the decode steps themselves.

    ``seconds`` has the time of a one-row step with each number of threads.
    """

    def __init__(self, seconds: Mapping[int, float]) -> None:
        self._seconds = dict(seconds)
        self._expected = 0.0
        self._slow = 0
        self._one_row = True
        self._interval = MIN_INTERVAL
        self._steps_left = MAX_INTERVAL  # until the next trial
        self._trial: dict[int, list[float]] | None = None
        self.begin(rows=1)

    @property
    def usual(self) -> int:
        """The number of threads with the fastest one-row steps so far."""
        return min(self._seconds, key=self._seconds.__getitem__)

    def begin(self, rows: int) -> None:
        """Begin a generation, with the usual number."""
        self._slow, self._trial, self._one_row = 0, None, rows == 1
        self._expected = self._seconds[self.usual]
        self._use(self.usual)
        if rows > 1:  # their expected time is unknown
            self._try()

    def stepped(self, seconds: float) -> None:
        """Record the time of a step of one token per row."""
        if self._trial is not None:
            self._trial[self.count].append(seconds)
            self._continue_trial(self._trial)
            return
        self._slow = self._slow + 1 if seconds > SLOW * self._expected else 0
        self._steps_left -= 1
        if self._slow == PATIENCE or self._steps_left <= 0:
            self._try()

    def _try(self) -> None:
        if len(self._seconds) > 1:
            self._trial = {count: [] for count in self._seconds}
            self._use(min(self._trial))

    def _continue_trial(self, trial: dict[int, list[float]]) -> None:
        for count, taken in trial.items():
            if len(taken) < TRIES:
                self._use(count)
                return
        fastest = {count: min(taken) for count, taken in trial.items()}
        if self._one_row:
            for count, seconds in fastest.items():
                self._seconds[count] = min(self._seconds[count], seconds)
        best = min(fastest, key=fastest.__getitem__)
        if best == self.usual:
            self._steps_left, self._interval = MAX_INTERVAL, MIN_INTERVAL
        else:
            self._steps_left, self._interval = self._interval, min(2 * self._interval, MAX_INTERVAL)
        self._expected, self._slow, self._trial = fastest[best], 0, None
        self._use(best)

    def _use(self, count: int) -> None:
        self.count = count
        torch.set_num_threads(count)


def step_threads(model: GPT, limit: int | None = None, *, tries: int = 3) -> StepThreads:
    """Time decode steps with 1, 2, 4, ... threads, and set the fastest number.

    ``limit`` is the largest number; by default, that of the usable cores. A model on another device
    needs one thread, and is not timed.
    """
    if model.device.type != "cpu":
        return StepThreads({1: 0.0})
    limit = limit or usable_cores()
    counts = sorted({min(1 << power, limit) for power in range(limit.bit_length() + 1)})
    return StepThreads({count: _step_time(model, count, tries) for count in counts})


def usable_cores() -> int:
    """Return the number of cores this process may use, which a container or taskset may limit."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@torch.inference_mode()
def _step_time(model: GPT, count: int, tries: int) -> float:
    """Return the time of the fastest of ``tries`` steps, in seconds, after one to warm up."""
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
