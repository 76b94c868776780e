"""Runs held-out tasks through the real agent and counts what it solves.

    python -m training.cases --out DIR --count 100 --seed 1
    python -m training.evaluate DIR [--kinds repair question] [--limit 50] [--out F]
        [--baselines random shuffled prior]

Each task gets a copy of its files; a few run at a time, each with its own engine process. A repair
counts as solved if all tests pass in the sandbox at the end and no test file has changed; as
``first`` if the first edit made the next test run pass; as ``same`` if every source is then as it
was before the fault. Each task is run by the model and right after it by all ``--baselines``, so
that an interrupted evaluation compares them on the same tasks; started again with the same
``--out``, it does the rest. Intervals are Wilson's at 95 %.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agentcli.agent.events import CandidateTried, StopReason, ToolFinished, ToolStarted
from agentcli.agent.kernel import Agent
from agentcli.llm.client import LLMClient
from agentcli.llm.local import LocalClient, connect
from agentcli.messages import Outcome
from agentcli.sandbox.limits import Limits
from agentcli.settings import LimitSettings, Settings
from agentcli.tools.base import ToolKind
from agentcli.wiring import open_agent
from training.baselines import NAMES as BASELINES
from training.baselines import baseline
from training.quick_session import is_test_file

MODEL = "model"
MAX_STEPS = 24
TIME_S = 1200.0  # runs are limited by tries; this only ends those that make none
CHECK_S = 60.0  # a fault can make the tests hang
TESTS = ("-m", "pytest", "-q", "-x", "--no-header", "-p", "no:cacheprovider")


@dataclass(frozen=True)
class Score:
    """The result of one task; ``first`` is None if nothing was edited.

    ``by`` is the model or the baseline that did it. ``passed`` are the arguments of all edits that
    passed on the copy; the last one was kept.
    """

    name: str
    kind: str
    solved: bool
    first: bool | None
    stop: str
    steps: int
    seconds: float
    answer: str
    tries: int = 0
    by: str = MODEL
    same: bool = False
    passed: tuple[str, ...] = ()


async def attempt(
    name: str, task: dict[str, Any], client: LLMClient, settings: Settings, by: str = MODEL
) -> Score:
    """Run one task and return its score."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for path, text in task["files"].items():
            target = root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        started = time.monotonic()
        async with open_agent(
            settings, workspace=root, model="embedded", mode="auto", client=client
        ) as agent:
            run = agent.start(task["prompt"])
            watch = _Watch()
            async for event in run:
                watch.see(event)
            result = await run.result()
            seconds = time.monotonic() - started
            solved = await _solved(task, agent, root, result.state.stop, result.task_result)
        return Score(
            name,
            task["kind"],
            solved,
            watch.first,
            str(result.state.stop),
            result.step_count,
            seconds,
            result.task_result,
            watch.tries,
            by,
            solved and _same(task, root),
            tuple(watch.passed),
        )


class _Watch:
    """Records whether the first edit was right: the first one tried, or else the first made."""

    def __init__(self) -> None:
        self.first: bool | None = None
        self.tries = 0
        self.passed: list[str] = []
        self._kinds: dict[str, str] = {}
        self._edited = False

    def see(self, event: object) -> None:
        if isinstance(event, CandidateTried):
            self.tries += 1
            if event.failures == 0:
                self.passed.append(event.call.arguments)
            if self.first is None:
                self.first = event.failures == 0
        if isinstance(event, ToolStarted):
            self._kinds[event.call.id] = event.tool_kind
        elif isinstance(event, ToolFinished) and self.first is None:
            kind = self._kinds.get(event.result.call_id)
            if kind == ToolKind.EDIT and event.result.outcome is Outcome.OK:
                self._edited = True
            elif kind == ToolKind.CHECK and self._edited:
                self.first = event.result.outcome is Outcome.OK


async def _solved(
    task: dict[str, Any], agent: Agent, root: Path, stop: StopReason | None, answer: str
) -> bool:
    match task["kind"]:
        case "question":
            return bool(answer) and all(says(answer, text) for text in task["must"])
        case "decline":
            return stop is StopReason.DECLINED
    expected = {path: text for path, text in task["files"].items() if is_test_file(path)}
    if task["gone"]:
        expected = {p: text for p, text in task["files_after"].items() if is_test_file(p)}
        name = re.compile(rf"\b{re.escape(task['gone'])}\b")
        if any(name.search(path.read_text()) for path in root.rglob("*.py")):
            return False
    if any((root / path).read_text() != text for path, text in expected.items()):
        return False
    result = await agent.context.environment.exec(
        (sys.executable, *TESTS), limits=Limits(time_s=120.0)
    )
    return result.success


def says(answer: str, fact: str) -> bool:
    """Whether a fact occurs in the answer by itself: 0 does not count in 80, nor 5 in 5.8."""
    alone = rf"(?<!\w)(?<!\d\.){re.escape(fact)}(?!\w|\.\d)"
    return re.search(alone, answer, re.IGNORECASE) is not None


def _same(task: dict[str, Any], root: Path) -> bool:
    after: dict[str, str] = task["files_after"]
    return bool(after) and all((root / path).read_text() == text for path, text in after.items())


def wilson(hits: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a proportion."""
    if not count:
        return 0.0, 1.0
    z, share = 1.96, hits / count
    middle = share + z * z / (2 * count)
    width = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return max(0.0, (middle - width) / scale), min(1.0, (middle + width) / scale)


def table(scores: Iterable[Score]) -> str:
    """A Markdown table with a row for each kind of task and each model or baseline."""
    rows: dict[tuple[str, str], list[Score]] = {}
    for score in scores:
        rows.setdefault((score.kind, score.by), []).append(score)
    lines = [
        "| kind | by | tasks | solved | first right | tries per solve | as before | median time |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (kind, by), found in sorted(rows.items()):
        good = [score for score in found if score.solved]
        cells = [kind, by, str(len(found)), _share(len(good), len(found)), "", "", ""]
        if any(score.tries for score in found):
            cells[4] = _share(sum(score.first is True for score in found), len(found))
            cells[5] = f"{sum(score.tries for score in found) / max(len(good), 1):.1f}"
            cells[6] = f"{sum(score.same for score in good)} of {len(good)}"
        cells.append(f"{statistics.median(score.seconds for score in found):.0f} s")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _share(hits: int, count: int) -> str:
    low, high = wilson(hits, count)
    return f"{hits / max(count, 1):.0%} ({low:.0%} to {high:.0%})"


def known(out: Path) -> list[Score]:
    """The scores of an interrupted evaluation."""
    if not out.exists():
        return []
    return [Score(**json.loads(line)) for line in out.read_text().splitlines()]


async def evaluate(
    cases: Sequence[Path],
    settings: Settings,
    at_once: int,
    out: Path,
    baselines: Sequence[str] = (),
) -> None:
    """Run all cases that ``out`` does not have yet, and print the table of all scores."""
    free: asyncio.Queue[dict[str, LLMClient]] = asyncio.Queue()
    scores = known(out)
    done = {(score.name, score.by) for score in scores}
    async with AsyncExitStack() as stack:
        stack.callback(lambda: print(table(scores)))
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        file = stack.enter_context(out.open("a", encoding="utf-8"))
        for _ in range(at_once):
            client = connect(None, settings)
            stack.push_async_callback(client.aclose)
            others = {by: baseline(by, client, settings, scratch, stack) for by in baselines}
            free.put_nowait({MODEL: LocalClient.sharing(client), **others})

        async def one(folder: Path) -> None:
            asked = await free.get()
            task = json.loads((folder / "task.json").read_text())
            for by, client in asked.items():
                if (folder.name, by) not in done:
                    score = await attempt(folder.name, task, client, settings, by)
                    scores.append(score)
                    file.write(json.dumps(asdict(score)) + "\n")
                    file.flush()
            free.put_nowait(asked)

        async with asyncio.TaskGroup() as group:
            for folder in cases:
                group.create_task(one(folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", type=Path)
    parser.add_argument("--kinds", nargs="+", default=[])
    parser.add_argument("--limit", type=int, default=0, help="tasks of each kind")
    parser.add_argument("--baselines", nargs="+", choices=BASELINES, default=[])
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("build/evaluation.jsonl"))
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    chosen: dict[str, list[Path]] = {}
    for folder in sorted(path.parent for path in args.cases.glob("*/task.json")):
        chosen.setdefault(folder.name.rpartition("-")[0], []).append(folder)
    kinds = args.kinds or list(chosen)
    cases = [folder for kind in kinds for folder in chosen[kind][: args.limit or None]]
    with tempfile.TemporaryDirectory() as data:
        os.environ["AGENTCLI_DATA_DIR"] = data  # journals
        limits = LimitSettings(check_time_s=CHECK_S)
        settings = Settings(max_steps=MAX_STEPS, timeout_s=TIME_S, limits=limits)
        asyncio.run(evaluate(cases, settings, args.at_once, args.out, args.baselines))


if __name__ == "__main__":
    main()
