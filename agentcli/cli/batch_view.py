"""``agentcli run FOLDER``: a live table of the tasks, and one JSON line when each ends."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from agentcli.agent.events import Event, StepStarted, ToolStarted
from agentcli.cli import batch as batches
from agentcli.cli.batch import Batch
from agentcli.cli.batch_jobs import BatchOptions, run_local
from agentcli.cli.batch_ray import run_ray, settled
from agentcli.cli.errors import show_note
from agentcli.cli.signals import interruptible
from agentcli.settings import Settings
from agentcli.text import clip, counted, escape
from agentcli.wording import describe_call, duration

_STYLES = {"solved": "green", "unsolved": "yellow", "stopped": "yellow", "failed": "red"}


def run_folder(
    folder: Path,
    workspace: Path,
    settings: Settings,
    *,
    flags: Mapping[str, Any],
    mode: str,
    checks: Sequence[str],
    jobs: int | None,
    attempts: int = 1,
    executor: str = "local",
) -> int:
    """Run all tasks of a folder; returns 0 if all are solved, else 1.

    Raises:
        TaskError: the folder holds no tasks.
        UsageError: another process runs them, or one cannot be attempted several times.
    """
    options = BatchOptions(settings, flags, mode, checks, attempts)
    with batches.opened(folder, workspace) as batch:
        options.check(batch)
        if batch.ended or batch.sessions:
            show_note(f"resuming a batch: {len(batch.ended)} of {len(batch.tasks)} tasks are done")
        if batches.is_repository(workspace) and batches.is_changed(workspace):
            show_note("tasks begin at HEAD: changes that are not committed are left out")
        for result in batch.ended.values():
            _print(result)
        code = asyncio.run(_run(batch, options, jobs, executor))
        ends = Counter(result["status"] for result in batch.ended.values())
        told = ", ".join(f"{count} {status}" for status, count in sorted(ends.items()))
        show_note(f"{told or 'none ended'}; copies and patches are in {batch.folder}")
    return code or (0 if set(ends) == {"solved"} and not batch.open else 1)


async def _run(batch: Batch, options: BatchOptions, jobs: int | None, executor: str) -> int:
    task = asyncio.current_task()
    assert task is not None
    progress = Progress(list(batch.open))
    with interruptible(task.cancel) as interruption, progress.shown():
        try:
            for name in settled(batch):
                progress.ended(name, batch.ended[name])
            if executor == "ray":
                with redirect_stdout(sys.stderr):  # for Ray's own output; results bypass it
                    await run_ray(batch, options, jobs, progress.begun, progress.ended)
            else:
                await run_local(batch, options, jobs or 1, progress.event, progress.ended)
        except asyncio.CancelledError:
            if interruption.exit_code is None:
                raise
    return interruption.exit_code or 0


@dataclass
class _Row:
    state: str = "waits"
    step: int = 0
    doing: str = ""
    since: float = 0.0
    took_s: float = 0.0


@dataclass
class Progress:
    """The live table; without a terminal, one line for each task that ends."""

    names: list[str]
    _rows: dict[str, _Row] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._rows = {name: _Row() for name in self.names}
        self._console = Console(stderr=True)
        self._out = sys.stdout
        self._live = Live(console=self._console, get_renderable=self._table, refresh_per_second=4)

    def shown(self) -> AbstractContextManager[object]:
        """A context during which the table is shown."""
        return self._live if self._console.is_terminal else nullcontext()

    def begun(self, name: str) -> None:
        """A task has begun."""
        row = self._rows[name]
        row.state, row.since = "works", row.since or time.monotonic()

    def event(self, name: str, event: Event) -> None:
        """Something happened in a task."""
        self.begun(name)
        row = self._rows[name]
        match event:
            case StepStarted(step=step):
                row.step, row.doing = step, ""
            case ToolStarted(call=call):
                row.doing = describe_call(call, 60)

    def ended(self, name: str, result: dict[str, Any]) -> None:
        """A task has its result."""
        row = self._rows[name]
        row.state = result["status"]
        row.doing = result["detail"] or result["stop_reason"]
        row.took_s = time.monotonic() - row.since if row.since else 0.0
        if self._console.is_terminal and self._out.isatty():  # above the table, not into it
            line = Text(json.dumps(result, ensure_ascii=True))
            self._console.print(line, soft_wrap=True)
        else:
            _print(result, self._out)
        if not self._console.is_terminal:
            steps = counted(result["steps"], "step")
            told = f"{name}: {row.state} · {steps} · {duration(row.took_s)}"
            if row.state != "solved":
                told += f" · {clip(row.doing, 200)}"
            print(escape(told), file=sys.stderr, flush=True)

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False)
        for heading in ("task", "state", "steps", "time", ""):
            table.add_column(heading, no_wrap=True)
        for name, row in self._rows.items():
            took = row.took_s or (time.monotonic() - row.since if row.since else 0.0)
            table.add_row(
                Text(escape(name)),
                Text(row.state, style=_STYLES.get(row.state, "")),
                str(row.step or ""),
                duration(took) if took else "",
                Text(escape(row.doing), style="dim"),
            )
        return table


def _print(result: dict[str, Any], out: TextIO | None = None) -> None:
    print(json.dumps(result, ensure_ascii=True), file=out, flush=True)
