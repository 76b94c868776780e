"""The number of decoding threads: chosen by the time of a step, and adjusted to other load."""

from __future__ import annotations

import pytest
import torch

from agentcli.inference import threads
from agentcli.inference.engine import Engine
from agentcli.inference.sampling import GREEDY
from agentcli.inference.threads import MAX_INTERVAL, MIN_INTERVAL, StepThreads

QUIET = {1: 3.0, 2: 2.0}
BUSY = {1: 3.5, 2: 9.0}


def steps(chosen: StepThreads, takes: dict[int, float], count: int) -> list[int]:
    """Simulate ``count`` steps; ``takes`` maps threads to step times. Return the threads used."""
    used = []
    for _ in range(count):
        used.append(chosen.count)
        assert torch.get_num_threads() == chosen.count
        chosen.stepped(takes[chosen.count])
    return used


def test_the_fastest_is_taken(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    times = {1: 3.0, 2: 1.0, 3: 2.0}
    monkeypatch.setattr(threads, "_step_time", lambda model, count, tries: times[count])
    assert threads.step_threads(engine.model, 3).usual == 2 == torch.get_num_threads()
    assert threads.step_threads(engine.model, 1).usual == 1 == torch.get_num_threads()


def test_measuring_works(engine: Engine) -> None:
    assert threads.step_threads(engine.model).usual in range(1, threads.usable_cores() + 1)


def test_other_work_changes_the_number_and_its_end_changes_it_back() -> None:
    chosen = StepThreads(QUIET)
    assert set(steps(chosen, QUIET, 100)) == {2}
    assert steps(chosen, BUSY, 10) == [2, 2, 2, 1, 1, 2, 2, 1, 1, 1]
    used = steps(chosen, BUSY, 2000)
    assert used.count(2) <= 20  # tried again ever more rarely
    back = steps(chosen, QUIET, MAX_INTERVAL + 8)
    assert back[-1] == 2


def test_one_slow_step_changes_nothing() -> None:
    chosen = StepThreads(QUIET)
    for _ in range(20):
        chosen.stepped(50.0)
        assert set(steps(chosen, QUIET, 2)) == {2}


def test_a_new_generation_begins_with_the_usual_number() -> None:
    chosen = StepThreads(QUIET)
    steps(chosen, BUSY, 20)
    assert chosen.count == 1
    chosen.begin(rows=1)
    assert steps(chosen, QUIET, 2 * MIN_INTERVAL).count(1) <= 2


def test_a_number_that_was_measured_on_a_busy_machine_is_corrected() -> None:
    chosen = StepThreads(BUSY)
    assert chosen.usual == 1
    steps(chosen, QUIET, MAX_INTERVAL + 10)
    chosen.begin(rows=1)
    assert chosen.usual == 2 == chosen.count


def test_rows_are_tried_at_once() -> None:
    chosen = StepThreads(QUIET)
    chosen.begin(rows=8)
    assert steps(chosen, {1: 10.0, 2: 30.0}, 6) == [1, 1, 2, 2, 1, 1]
    assert chosen.usual == 2  # the number for one row


def test_every_step_of_one_token_is_timed(engine: Engine) -> None:
    class Counted(StepThreads):
        seen = 0

        def stepped(self, seconds: float) -> None:
            self.seen += 1
            super().stepped(seconds)

    timed = Counted({1: 1.0})
    own = Engine(engine.model, engine.tokenizer, stop_ids=frozenset(), threads=timed)
    generation = own.generate([1, 2, 3], max_tokens=6, sampling=GREEDY)
    assert len(list(generation)) == 6
    assert timed.seen == 5  # the prefill yields the first token
