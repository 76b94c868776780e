"""Trains the embedded model: pretraining on code and tuning on trajectories are one run.

    python -m training.train --plan training/configs/gpu.toml --data DIR --run DIR \\
        --seconds 560 --from 0 --to 0.5 --export DIR        # first sitting
    python -m training.train ... --from 0.5 --to 1 --resume # second sitting

``--data`` holds ``code.npy`` and ``held.npy`` (pack.py) and, if there are any, folders of shards
(shards.py): ``tasks``, ``openings`` (short documents, in shorter rows) and the same names with
``-held``; new shards may appear while it runs. ``--run`` gets ``log.jsonl`` and the checkpoint. A
sitting is bounded by ``--seconds`` of wall-clock time, including compilation, evaluation and
export, or by ``--steps``.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agentcli.model.gpt import GPT
from agentcli.model.pack import can_pack
from training.loss import CrossEntropy
from training.optim import Optimiser
from training.plan import CODE, OPENINGS, STREAMS, TASKS, Plan, read_plan
from training.shards import list_shards
from training.streams import Batch, CodeStream, Loader, Mixture, Stream, TaskStream
from training.weights import blend, export, load_checkpoint, load_export, save_checkpoint

LOG_EVERY = 20  # steps
AHEAD = 3  # steps prepared in advance
# Reserved from --seconds for the last evaluation, checkpoint and export.
CLOSING_SECONDS = 20.0


@dataclass(frozen=True)
class Sitting:
    """How far this process takes the run."""

    start: float  # progress
    end: float
    seconds: float | None
    steps: int | None
    least_speed: float = 0.0  # tokens/s; a slower device is not worth the sitting


class Trainer:
    def __init__(self, plan: Plan, data: Path, run: Path, *, compiled: bool, bf16: bool) -> None:
        self.begun = time.monotonic()
        self.plan, self.data, self.run = plan, data, run
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(plan.seed)
        torch.set_float32_matmul_precision("high")
        if self.device.type == "cuda":
            # Fail rather than fall back to attention that materializes its scores.
            torch.backends.cuda.enable_math_sdp(False)
        self.model = GPT(plan.model)
        self.model.init_weights(plan.seed)
        self.model.to(self.device)
        self.model.compute_dtype = torch.bfloat16 if bf16 else None
        self.optimiser = Optimiser(self.model, plan.model.n_embd, plan.rates, compiled=compiled)
        self.loss = CrossEntropy(plan.model.logit_softcap, compiled=compiled)
        self.head = self.model.get_parameter("lm_head.weight")
        self.hidden = self.model.hidden
        if compiled:
            self.hidden = torch.compile(self.model.hidden, dynamic=False)
        self.steps = 0
        self.mixture = Mixture(self._streams(), {s: plan.rows(s) for s in STREAMS})
        self.held = self._held_batches()
        run.mkdir(parents=True, exist_ok=True)
        self.log_file = (run / "log.jsonl").open("a")

    # --- data ----------------------------------------------------------------------------------

    def _streams(self) -> Mapping[str, Stream]:
        streams: dict[str, Stream] = {}
        plan = self.plan
        if (self.data / "code.npy").exists():
            tokens = np.load(self.data / "code.npy", mmap_mode="r")
            streams[CODE] = CodeStream(tokens, plan.code_length, plan.seed)
        streams |= self._tasks("")
        if not streams:
            raise FileNotFoundError(f"{self.data}: neither code.npy nor shards of tasks")
        return streams

    def _tasks(self, suffix: str) -> dict[str, Stream]:
        """The streams of the folders of shards that exist: ``tasks``, ``openings``."""
        plan = self.plan
        return {
            name: TaskStream(folder, plan.length(name), plan.seed, context=0.0)
            for name in (TASKS, OPENINGS)
            if list_shards(folder := self.data / f"{name}{suffix}")
        }

    def _held_batches(self) -> dict[str, list[Batch]]:
        """The same held-out batches at every evaluation."""
        streams: dict[str, Stream] = {}
        if (self.data / "held.npy").exists():
            streams[CODE] = CodeStream(np.load(self.data / "held.npy"), self.plan.code_length, 0)
        streams |= self._tasks("-held")
        count = self.plan.eval_batches
        return {
            name: [stream.next_batch(self.plan.rows(name)) for _ in range(count)]
            for name, stream in streams.items()
        }

    def _shares(self, progress: float) -> dict[str, float]:
        """The shares of the streams that exist."""
        streams, wanted = self.mixture.streams, self.plan.phase(progress).shares
        shares = {name: share for name, share in wanted.items() if name in streams}
        return shares if any(shares.values()) else dict.fromkeys(streams, 1.0)

    def _ask(self, loader: Loader, progress: float) -> None:
        loader.ask(self._shares(progress), self.plan.phase(progress).context)

    # --- steps ---------------------------------------------------------------------------------

    def batch_loss(self, batch: Batch) -> Tensor:
        tokens = batch.tokens.to(self.device)
        targets, weights = batch.targets.to(self.device), batch.weights.to(self.device)
        return self.loss(self.hidden(tokens), self.head, targets, weights)

    def train(self, sitting: Sitting) -> None:
        """Train for one sitting, which ends with an evaluation and a checkpoint."""
        self._compile()
        loader = Loader(self.mixture, self.plan.batches, self.device)
        started = last_eval = last_log = time.monotonic()
        progress = sitting.start
        state = self.mixture.state()
        sums: dict[str, list[Tensor]] = defaultdict(list)
        first, asked = self.steps, 0
        for _ in range(AHEAD):
            self._ask(loader, progress)
        while progress < sitting.end:
            step = loader.get()
            self._ask(loader, progress)
            for name, batch in step.batches:
                loss = self.batch_loss(batch)
                (loss / len(step.batches)).backward()  # type: ignore[no-untyped-call]
                sums[name].append(loss.detach())
            self.optimiser.step(self._rate(progress), 1.0 - progress)
            self.optimiser.zero_grad()
            self.steps, state, asked = self.steps + 1, step.state, asked + 1
            if self.steps == first + 1:  # the first step compiled the optimiser
                started = time.monotonic()
            progress = self._progress(sitting, started, self.steps - first)
            if self.steps % LOG_EVERY == 0 or progress >= sitting.end:
                losses = {name: torch.stack(parts).mean().item() for name, parts in sums.items()}
                now = time.monotonic()
                speed = asked * self.plan.step_tokens / (now - last_log)
                self.log(progress, loss=losses, tokens_per_second=round(speed))
                last_log, asked = now, 0
                sums.clear()
                # The first record still includes the warm-up.
                if self.steps - first >= 2 * LOG_EVERY and speed < sitting.least_speed:
                    raise RuntimeError(f"only {speed:.0f} tokens/s")
            if time.monotonic() - last_eval > self.plan.eval_every:
                self.evaluate(progress)
                last_eval = last_log = time.monotonic()
        loader.close()
        self.evaluate(progress)
        self.save(progress, state)

    def _rate(self, progress: float) -> float:
        return self.plan.rate(progress, self.optimiser.steps)

    def _progress(self, sitting: Sitting, started: float, steps: int) -> float:
        if sitting.steps is not None:
            done = steps / sitting.steps
        else:
            assert sitting.seconds is not None
            left = sitting.seconds - CLOSING_SECONDS - (started - self.begun)
            done = (time.monotonic() - started) / max(left, 1e-3)
        return sitting.start + (sitting.end - sitting.start) * min(1.0, done)

    def _compile(self) -> None:
        """Compile for every shape before the clock of the schedule starts."""
        for name, stream in self._streams().items():  # separate streams: the run's must not advance
            batch = stream.next_batch(self.plan.rows(name))
            self.batch_loss(batch).backward()  # type: ignore[no-untyped-call]
        self.optimiser.zero_grad()
        self.log(0.0, event="compiled")

    def evaluate(self, progress: float) -> dict[str, float]:
        """The mean loss in nats per token on held-out packages and tasks."""
        losses = {}
        for name, batches in self.held.items():
            # With unused gradients: without them, everything would be compiled again.
            found = [self.batch_loss(batch).detach() for batch in batches]
            losses[name] = torch.stack(found).mean().item()
        self.log(progress, held=losses)
        return losses

    # --- records -------------------------------------------------------------------------------

    def log(self, progress: float, **fields: Any) -> None:
        record = {
            "step": self.steps,
            "progress": round(progress, 4),
            "seconds": round(time.monotonic() - self.begun, 1),
            "tokens": self.steps * self.plan.step_tokens,
            "rate": round(self._rate(progress), 4),
            **fields,
        }
        if self.device.type == "cuda":
            record["peak_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 1)
        print(json.dumps(record), flush=True)
        self.log_file.write(json.dumps(record) + "\n")
        self.log_file.flush()
        if any(math.isnan(loss) for loss in fields.get("loss", {}).values()):
            raise FloatingPointError("the loss is not a number")

    def save(self, progress: float, streams: dict[str, Any]) -> None:
        state = {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state(),
            "streams": streams,
            "steps": self.steps,
            "progress": progress,
        }
        save_checkpoint(self.run, state)

    def resume(self) -> None:
        """Resume exactly from the checkpoint of this run."""
        state = load_checkpoint(self.run, self.device)
        self.model.load_state_dict(state["model"])
        self.optimiser.load(state["optimiser"])
        self.mixture.load(state["streams"])
        self.steps = state["steps"]

    def start_from(self, folder: Path) -> None:
        """Start from exported weights, with fresh optimisers."""
        config, weights = load_export(folder)
        if config != self.plan.model:
            raise ValueError(f"{folder}: another model than the plan's")
        self.model.load_state_dict(weights)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plan", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--export", type=Path, help="folder for the int8 weights")
    parser.add_argument("--seconds", type=float, help="of this sitting, all included")
    parser.add_argument("--steps", type=int, help="instead of --seconds")
    parser.add_argument("--from", type=float, default=0.0, dest="start", help="progress")
    parser.add_argument("--to", type=float, default=1.0, dest="end")
    parser.add_argument("--least-speed", type=float, default=0.0, help="tokens/s, else give up")
    parser.add_argument("--resume", action="store_true", help="from --run")
    parser.add_argument("--weights", type=Path, help="start from an export")
    parser.add_argument("--share", type=float, default=1.0, help="of new weights in the export")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--float32", action="store_true")
    args = parser.parse_args()
    if (args.seconds is None) == (args.steps is None):
        parser.error("give either --seconds or --steps")
    trainer = Trainer(
        read_plan(args.plan),
        args.data,
        args.run,
        compiled=not args.no_compile,
        bf16=not args.float32 and (torch.cuda.is_available() or can_pack()),
    )
    if args.resume:
        trainer.resume()
    elif args.weights:
        trainer.start_from(args.weights)
    trainer.train(Sitting(args.start, args.end, args.seconds, args.steps, args.least_speed))
    if args.export:
        if args.weights and args.share < 1:
            blend(trainer.model, args.weights, args.share)
        size = export(trainer.model, args.export, {"steps": trainer.steps, "progress": args.end})
        print(f"exported {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
