"""Makes held-out tasks for the evaluation: a repository, a prompt, and the expected result.

    python -m training.cases --out DIR --count 100 --seed 1     # DIR/KIND-001/{files/,task.json}

Modules, wordings and packages are the held-out ones; ``repair_new`` uses only kinds of faults that
never occur in training, ``mistake`` those that were written by hand. A task is solved if

    repair, repair_new, repair_code, mistake, two_faults
                all tests pass and no test file has changed
    rename      the same for the renamed tests (``files_after``), and ``gone`` occurs nowhere
    question    every text of ``must`` occurs in the answer, by itself
    decline     the run ends as declined
"""

from __future__ import annotations

import argparse
import json
import random
import re
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from training import questions, repairs, sums
from training.faults import HELD_OUT_KINDS
from training.projects import Project, checked
from training.tasks import DATA, Sources, Worker
from training.trajectories import Conversation, Unusable

KINDS = (
    *("repair", "repair_new", "repair_code", "mistake", "two_faults"),
    *("rename", "question", "decline"),
)
_FACTS = re.compile(r"[\w./-]+\.py\b|`[^`]+`|\b\d+(?:\.\d+)?\b")


@dataclass(frozen=True)
class Task:
    """One held-out task; ``model_answer`` is the last text of the trajectory.

    ``files_after`` are the files after the trajectory: without the fault, or renamed.
    """

    kind: str
    prompt: str
    files: dict[str, str]
    fault_kinds: tuple[str, ...] = ()
    must: tuple[str, ...] = ()
    gone: str = ""
    files_after: dict[str, str] = field(default_factory=dict)
    model_answer: str = ""


def tasks(kind: str, count: int, seed: int, data: Path = DATA) -> Iterator[Task]:
    """Yield ``count`` tasks of one kind, deterministically by seed and data."""
    sources = Sources(data, 2, held=True)
    with tempfile.TemporaryDirectory() as folder:
        worker = Worker(sources, seed, Path(folder))
        made = 0
        for _ in range(count * 40):
            if made == count:
                return
            try:
                task = _make(kind, worker, worker.rng)
            except (Unusable, SyntaxError, ValueError, KeyError, IndexError):
                continue
            made += 1
            yield task


def _seed(worker: Worker) -> Project:
    """A held-out project in its original form."""
    seed = worker.rng.choice(worker.sources.seeds)
    project = checked(seed.name, seed.files, worker.runner)
    if project is None:
        raise Unusable("it does not pass here")
    return project


def _make(kind: str, worker: Worker, rng: random.Random) -> Task:
    runner = worker.runner
    match kind:
        case "repair" | "repair_new" | "repair_code":
            project = worker.code() if kind == "repair_code" else _seed(worker)
            only = HELD_OUT_KINDS if kind == "repair_new" else None
            without = frozenset[str]() if kind == "repair_new" else HELD_OUT_KINDS
            case = repairs.break_project(project, rng, runner, only=only, without=without)
            talk = repairs.one_fault(project, rng, runner, True, case)
            return _task(kind, talk, tuple(fault.kind for _, fault in case.faults))
        case "mistake":
            return _task(kind, worker.mistake(), (kind,))
        case "two_faults":
            return _task(kind, repairs.two_faults(_seed(worker), rng, runner, True))
        case "rename":
            talk = repairs.rename(_seed(worker), rng, runner, True)
            grep = next(c for m in talk.messages for c in m.calls if c.name == "grep")
            return _task(kind, talk, gone=json.loads(grep.arguments)["pattern"])
        case "question":
            if rng.random() < 0.3:
                return _task(kind, sums.arithmetic(rng, True))
            talk = questions.question(_seed(worker), rng, runner, True)
            if sum(message.role == "user" for message in talk.messages) > 1:
                raise Unusable("more than one question")
            return _task(kind, talk)
        case "decline":
            project = _seed(worker)
            talk = questions.decline(rng, project, True)
            return Task(kind, talk.messages[0].text, project.files)
    raise ValueError(f"unknown kind {kind}")


def _task(kind: str, talk: Conversation, fault_kinds: tuple[str, ...] = (), gone: str = "") -> Task:
    prompt, answer = talk.messages[0].text, talk.messages[-1].text
    must: tuple[str, ...] = ()
    if kind == "question":
        facts = {fact.strip("`") for fact in _FACTS.findall(answer)}
        absent = answer.startswith("There is no")
        must = (
            ("no",)
            if absent
            else tuple(sorted(fact for fact in facts if fact not in prompt)) or (answer,)
        )
    after = {} if kind == "question" else talk.workspace.files
    return Task(kind, prompt, talk.workspace.initial, fault_kinds, must, gone, after, answer)


def write(task: Task, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in task.files.items():
        target = folder / "files" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    (folder / "task.json").write_text(json.dumps(asdict(task), indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=100, help="tasks of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--data", type=Path, default=DATA)
    args = parser.parse_args()
    for kind in args.kinds:
        number = 0
        for number, task in enumerate(tasks(kind, args.count, args.seed, args.data), 1):
            write(task, args.out / f"{kind}-{number:03}")
        print(f"{kind}: {number}", flush=True)


if __name__ == "__main__":
    main()
