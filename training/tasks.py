"""Generates shards of tokenised trajectories, with many processes, until the time is up.

    python -m training.tasks --out DIR --seconds 480 --workers 14 --seed 1

Needs the seeds and mistakes (training/seeds, training/mistakes), and from ``training/data``
``functions.xz`` (functions.py), ``fixes.xz`` (releases.py) and the packed corpus (``code-*.xz``);
missing sources are left out.
Shards are named ``tasks-WORKER-NUMBER.npz``. A worker that hangs (a fault may loop inside C code)
is replaced.
"""

from __future__ import annotations

import argparse
import functools
import gc
import json
import lzma
import multiprocessing
import os
import random
import resource
import shutil
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from agentcli.llm.nanochat_format import NanochatFormat
from training import denoise, questions, repairs, sums
from training.compose import compose
from training.functions import mine_aside
from training.mistakes import Mistake, load_mistakes
from training.projects import Project, checked, renamed, renames, vary
from training.quick_tests import QuickTests
from training.seeds import Seed, load_seeds
from training.shards import write_shard
from training.tokenizer import load
from training.trajectories import Conversation, Unusable

DATA = Path(__file__).parent / "data"
SHARD_TOKENS = 2_000_000
SILENCE_S = 40.0
DECLINED = 20  # tokens of a refusal, up to what cannot be done; the rest is always the same
MINED_FIRST = 250  # functions that a worker looks for eagerly
MINED_FILES = 24  # files that are searched at a time
# Documents of each kind; tokens differ.
MIXES = {
    "all": {
        "mistake": 0.06,
        "repair_seed": 0.23,
        "repair_code": 0.21,
        "denoise": 0.245,
        "fix": 0.015,
        "two_faults": 0.055,
        "rename": 0.045,
        "question": 0.07,
        "arithmetic": 0.025,
        "decline": 0.03,
        "small_talk": 0.015,
    },
    # What people say and the model's first turns: where a misread request goes wrong.
    "openings": {
        "repair_opening": 0.13,
        "repair_second": 0.10,
        "question_opening": 0.14,
        "question_third": 0.17,
        "failing_second": 0.07,
        "rename_opening": 0.09,
        "rename_second": 0.06,
        "decline_opening": 0.13,
        "arithmetic": 0.10,
        "small_talk": 0.01,
    },
    # Whole documents beside them, so that the rest is not forgotten.
    "whole": {
        "question": 0.26,
        "failing": 0.16,
        "decline": 0.06,
        "rename": 0.10,
        "mistake": 0.24,
        "repair_seed": 0.09,
        "repair_code": 0.07,
        "two_faults": 0.02,
    },
}
# What is cut short, and after how many turns of the model.
BEGINNINGS: dict[str, tuple[Callable[..., Conversation], int]] = {
    "repair_opening": (repairs.one_fault, 1),
    "repair_second": (repairs.one_fault, 2),
    "question_opening": (questions.question, 1),
    "question_third": (questions.question, 3),
    "failing_second": (questions.failing, 2),
    "rename_opening": (repairs.rename, 1),
    "rename_second": (repairs.rename, 2),
}
KINDS = list(dict.fromkeys(kind for mix in MIXES.values() for kind in mix))


class Sources:
    """The material for tasks; loaded once and shared by forked workers."""

    def __init__(self, data: Path, corpus_parts: int, held: bool) -> None:
        self.held = held
        self.seeds = load_seeds("held_out" if held else "train")
        known = load_mistakes()
        self.mistakes = [(seed, made) for seed in self.seeds for made in known.get(seed.name, ())]
        self.functions: dict[str, list[dict[str, Any]]] = {}
        if (data / "functions.xz").exists():
            with lzma.open(data / "functions.xz", "rt", encoding="utf-8") as lines:
                for line in lines:
                    record = json.loads(line)
                    if _is_held(record["package"]) == held:
                        self.functions.setdefault(record["package"], []).append(record)
        self.fixes: list[dict[str, str]] = []
        if (data / "fixes.xz").exists():
            with lzma.open(data / "fixes.xz", "rt", encoding="utf-8") as lines:
                found = [json.loads(line) for line in lines]
            self.fixes = [fix for fix in found if _is_held(fix["package"]) == held]
        self.files: list[str] = []
        pieces = sorted(data.glob("held*.xz" if held else "code-*.xz"))[:corpus_parts]
        for piece in pieces:
            self.files += lzma.decompress(piece.read_bytes()).decode("utf-8").split("\0")


def _is_held(package: str) -> bool:
    """Whether what is made from a package of the training corpus is for evaluation."""
    return sum(map(ord, package)) % 12 == 0


class Worker:
    """Makes one document after another."""

    def __init__(self, sources: Sources, seed: int, scratch: Path) -> None:
        self.rng = random.Random(seed)
        self.sources = sources
        self.functions = dict(sources.functions)
        self.mined = 0
        self.runner = QuickTests(scratch)
        self.form = NanochatFormat(load())
        self.varied: list[Project] = []
        self.composed: list[Project] = []
        self.pieces: list[tuple[str, str]] = []
        self.mistakes: list[tuple[Seed, Mistake]] = []  # in random order, until all were used
        self.drawn: Counter[int] = Counter()
        self.makers: dict[str, Callable[[], Conversation]] = {
            "repair_seed": lambda: repairs.one_fault(self.seed(), *self.tools()),
            "repair_code": lambda: repairs.one_fault(self.code(), *self.tools()),
            "mistake": self.mistake,
            "failing": lambda: questions.failing(self.either(), *self.tools()),
            "denoise": lambda: denoise.denoise(*self.piece(), self.rng, self.sources.held),
            "fix": self.fix,
            "two_faults": lambda: repairs.two_faults(self.either(), *self.tools()),
            "rename": lambda: repairs.rename(self.either(), *self.tools()),
            "question": lambda: questions.question(self.either(), *self.tools()),
            "arithmetic": lambda: sums.arithmetic(self.rng, self.sources.held),
            "decline": self.decline,
            "decline_opening": lambda: self.decline().opening(learnt=DECLINED),
            "small_talk": lambda: questions.small_talk(self.rng, self.sources.held),
        }
        for kind, (whole, turns) in BEGINNINGS.items():
            self.makers[kind] = functools.partial(self.start, whole, turns)

    def start(self, whole: Callable[..., Conversation], turns: int) -> Conversation:
        """The beginning of a conversation, up to the model's turn number ``turns``."""
        return whole(self.either(), *self.tools()).opening(turns)

    def tools(self) -> tuple[random.Random, QuickTests, bool]:
        return self.rng, self.runner, self.sources.held

    def make(self, kind: str) -> tuple[list[int], list[int]] | None:
        """Make one document; None if this draw is not usable."""
        try:
            return self.makers[kind]().tokens(self.form)
        except Exception:
            # Faulty code of others can fail in any way; make another draw.
            return None

    def fix(self) -> Conversation:
        if not self.sources.fixes:
            raise Unusable("no fixes")
        fix = self.rng.choice(self.sources.fixes)
        path = fix["path"] if self.rng.random() < 0.3 else fix["path"].rsplit("/", 1)[-1]
        return denoise.fix(path, fix["before"], fix["after"], self.rng, self.sources.held)

    def mistake(self) -> Conversation:
        """The repair of a hand-written mistake, mostly with other names; each in its turn."""
        if not self.sources.mistakes:
            raise Unusable("no mistakes")
        if not self.mistakes:
            self.mistakes = self.rng.sample(self.sources.mistakes, len(self.sources.mistakes))
        seed, mistake = self.mistakes.pop()
        right = seed.files
        names = renames(right, self.rng) if self.rng.random() < 0.8 else {}
        faulty = renamed(mistake.made(right), names)
        case = repairs.mistaken(seed.name, renamed(right, names), faulty, self.runner)
        return repairs.one_fault(case.project, *self.tools(), case)

    def decline(self) -> Conversation:
        return questions.decline(self.rng, self.either(), self.sources.held)

    def seed(self) -> Project:
        return self._pool(self.varied, self._new_seed, keep=24, uses=6)

    def code(self) -> Project:
        return self._pool(self.composed, self._new_code, keep=24, uses=4)

    def either(self) -> Project:
        if self.rng.random() < 0.6:
            return self.seed()
        return self.code()

    def _pool(
        self, pool: list[Project], new: Callable[[], Project | None], keep: int, uses: int
    ) -> Project:
        """A project from a pool. Each is used a few times, because making one takes a test run."""
        if len(pool) < keep:
            made = new()
            if made is not None:
                pool.append(made)
        if not pool:
            raise Unusable("no project")
        project = self.rng.choice(pool)
        self.drawn[id(project)] += 1
        if self.drawn[id(project)] >= uses:
            pool.remove(project)
            del self.drawn[id(project)]
        return project

    def _new_seed(self) -> Project | None:
        seed = self.rng.choice(self.sources.seeds)
        project = checked(seed.name, seed.files, self.runner)
        if project is None or self.rng.random() < 0.2:
            return project
        return vary(project, self.rng, self.runner) or project

    def _mine(self) -> None:
        """Record functions of some more files of the corpus, only for this worker."""
        files = [self.rng.choice(self.sources.files) for _ in range(MINED_FILES)]
        records = [{"package": "", "text": text.partition("\n")[2]} for text in files]
        found = mine_aside(records, self.rng.randrange(1 << 30), timeout=8.0)
        for record in found:
            bucket = self.functions.setdefault(f"mined {self.mined // 8}", [])
            bucket.append(record)
            self.mined += 1

    def _new_code(self) -> Project | None:
        few = len(self.functions) < 20 and self.mined < MINED_FIRST
        if self.sources.files and (few or self.rng.random() < 0.04):
            self._mine()
        packages = self.functions
        if not packages:
            return None
        names = list(packages)
        weights = [min(60, len(packages[name])) for name in names]
        records = packages[self.rng.choices(names, weights)[0]]
        start = self.rng.randrange(len(records))
        count = self.rng.choice([1, 2, 3, 3, 4, 5, 6, 8])
        near = [records[(start + i) % len(records)] for i in range(min(count, len(records)))]
        if self.rng.random() < 0.5:
            near = self.rng.sample(records, min(count, len(records)))
        return compose(near, self.rng, self.runner)

    def piece(self) -> tuple[str, str]:
        """A path and an excerpt from the corpus."""
        if not self.sources.files:
            raise Unusable("no corpus")
        while not self.pieces:
            text = self.rng.choice(self.sources.files)
            first, _, rest = text.partition("\n")
            path = first.removeprefix("# ")
            if "test" in path and self.rng.random() < 0.85:
                continue
            if self.rng.random() < 0.7:
                path = path.rsplit("/", 1)[-1]
            self.pieces = [(path, piece) for piece in denoise.excerpts(rest, self.rng)][:6]
        return self.pieces.pop()


def work(
    sources: Sources,
    index: int,
    life: int,
    args: argparse.Namespace,
    beat: Any,
    counts: Any,
    deadline: float,
) -> None:
    """One worker's loop; ``beat`` is the time of its last sign of life."""
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    warnings.simplefilter("ignore")
    sys.setrecursionlimit(700)
    gc.freeze()
    base = Path("/dev/shm") if os.path.isdir("/dev/shm") else Path("/tmp")
    scratch = base / f"tasks-{os.getpid()}"
    worker = Worker(sources, args.seed * 100_003 + index * 101 + life, scratch)
    os.chdir(scratch)  # what mined functions write must not end up in the repository
    shares = MIXES[args.mix]
    kinds = [kind for kind in args.kinds if kind in shares]
    weights = [shares[kind] for kind in kinds]
    documents: list[tuple[list[int], list[int]]] = []
    size = number = 0
    try:
        while time.monotonic() < deadline:
            beat.value = time.monotonic()
            kind = worker.rng.choices(kinds, weights)[0]
            document = worker.make(kind)
            if document is None:
                continue
            place = KINDS.index(kind)
            counts[3 * place] += 1
            counts[3 * place + 1] += len(document[0])
            counts[3 * place + 2] += sum(weight > 0 for weight in document[1])
            documents.append(document)
            size += len(document[0])
            if size >= args.shard_tokens:
                write_shard(args.out / _name(index, life, number), documents)
                documents, size, number = [], 0, number + 1
        if documents:
            write_shard(args.out / _name(index, life, number), documents)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _name(index: int, life: int, number: int) -> str:
    return f"tasks-{index:02}-{life}{number:04}.npz"


def run(args: argparse.Namespace) -> None:
    began = time.monotonic()
    deadline = began + args.seconds
    sources = Sources(args.data, args.corpus_parts, args.held_out)
    print(
        f"{len(sources.seeds)} seeds, {sum(map(len, sources.functions.values()))} functions, "
        f"{len(sources.files)} files of code, loaded in {time.monotonic() - began:.0f} s",
        flush=True,
    )
    gc.freeze()
    args.out = args.out.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("fork")
    size = 3 * len(KINDS)
    counts = [context.Array("q", size, lock=False) for _ in range(args.workers)]
    beats = [context.Value("d", time.monotonic(), lock=False) for _ in range(args.workers)]
    lives = [0] * args.workers

    def start(index: int) -> Any:
        beats[index].value = time.monotonic() + 10
        arguments = (sources, index, lives[index], args, beats[index], counts[index], deadline)
        process = context.Process(target=work, args=arguments)
        process.start()
        return process

    processes = [start(index) for index in range(args.workers)]
    told = time.monotonic()
    while any(process.is_alive() for process in processes):
        time.sleep(0.5)
        now = time.monotonic()
        for index, process in enumerate(processes):
            hung = (
                process.is_alive() and now - beats[index].value > SILENCE_S and now < deadline + 15
            )
            died = not process.is_alive() and process.exitcode != 0 and now < deadline - 5
            if hung:
                process.kill()
                process.join()
            if (hung and now < deadline) or died:
                print(f"worker {index} {'hung' if hung else 'died'}; a new one", flush=True)
                lives[index] += 1
                processes[index] = start(index)
        if now - told > 30:
            told = now
            tokens = sum(sum(array[1::3]) for array in counts)
            print(f"{now - began:.0f} s: {tokens / 1e6:.1f} M tokens", flush=True)
    _report(counts, time.monotonic() - began, args.workers)


def _report(counts: Sequence[Any], seconds: float, workers: int) -> None:
    totals = [sum(array[i] for array in counts) for i in range(3 * len(KINDS))]
    for place, kind in enumerate(KINDS):
        documents, tokens, own = totals[3 * place : 3 * place + 3]
        mean = tokens / documents if documents else 0
        print(
            f"{kind:12} {documents:8} documents {tokens:12} tokens {own:11} learnt {mean:7.0f} mean"
        )
    tokens = sum(totals[1::3])
    print(
        f"{sum(totals[0::3])} documents, {tokens} tokens, {sum(totals[2::3])} learnt in "
        f"{seconds:.0f} s: {tokens / seconds / workers:.0f} tokens/s a worker, "
        f"{tokens / _cpu_seconds():.0f} a CPU second"
    )


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return max(0.01, used.ru_utime + used.ru_stime)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mix", choices=MIXES, default="all")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--corpus-parts", type=int, default=99, help="packed files of code to use")
    parser.add_argument("--shard-tokens", type=int, default=SHARD_TOKENS)
    parser.add_argument(
        "--held-out", action="store_true", help="seeds and wordings of the evaluation"
    )
    run(parser.parse_args())


if __name__ == "__main__":
    main()
