"""How many threads decode fastest here and now.

Two threads that wait for each other are far slower than one as soon as other work keeps a core
busy, so the number is measured: at start, and again while commands run beside the model. With the
kernels of ``model/native.py`` a step gives the same numbers with any; without them the last digits
may differ, and who wants them the same fixes the number.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

import torch

from agentcli.model.gpt import GPT

SLOW = (
    2.0  # times what a step should take; a long conversation takes longer, too, and is tried once
)
PATIENCE = 3  # such steps, one after the other
TRIES = 2  # steps with each number
AGAIN = (
    32  # steps after which another than the usual number is left again; then twice as many, up to
)
RARELY = (
    512  # after so many the usual one is tried as well: it may have been found on a busy machine
)


class StepThreads:
    """The number of threads of decode steps; what they take is found by the steps themselves.

    ``seconds`` are what a step of one row takes with each number.
    """

    def __init__(self, seconds: Mapping[int, float]) -> None:
        self._seconds = dict(seconds)
        self._expected = 0.0
        self._slow = 0
        self._one_row = True
        self._pause = AGAIN
        self._until = RARELY  # steps to the next trial
        self._trial: dict[int, list[float]] | None = None
        self.begin(rows=1)

    @property
    def usual(self) -> int:
        """The number with the fastest steps that were ever seen."""
        return min(self._seconds, key=self._seconds.__getitem__)

    def begin(self, rows: int) -> None:
        """A generation begins, with the usual number."""
        self._slow, self._trial, self._one_row = 0, None, rows == 1
        self._expected = self._seconds[self.usual]
        self._use(self.usual)
        if rows > 1:  # what these should take is not known
            self._try()

    def stepped(self, seconds: float) -> None:
        """A step of one token a row took so long."""
        if self._trial is not None:
            self._trial[self.count].append(seconds)
            self._go_on(self._trial)
            return
        self._slow = self._slow + 1 if seconds > SLOW * self._expected else 0
        self._until -= 1
        if self._slow == PATIENCE or self._until <= 0:
            self._try()

    def _try(self) -> None:
        if len(self._seconds) > 1:
            self._trial = {count: [] for count in self._seconds}
            self._use(min(self._trial))

    def _go_on(self, trial: dict[int, list[float]]) -> None:
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
            self._until, self._pause = RARELY, AGAIN
        else:
            self._until, self._pause = self._pause, min(2 * self._pause, RARELY)
        self._expected, self._slow, self._trial = fastest[best], 0, None
        self._use(best)

    def _use(self, count: int) -> None:
        self.count = count
        torch.set_num_threads(count)


def step_threads(model: GPT, most: int | None = None, *, tries: int = 3) -> StepThreads:
    """Times a decode step with 1, 2, 4, ... threads up to ``most`` (None: the usable cores).

    Sets the best number; takes a few steps of the model for each. A model on another device needs
    one thread.
    """
    if model.device.type != "cpu":
        return StepThreads({1: 0.0})
    most = most or usable_cores()
    counts = sorted({min(1 << power, most) for power in range(most.bit_length() + 1)})
    return StepThreads({count: _step_time(model, count, tries) for count in counts})


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
