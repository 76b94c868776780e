"""Speed of the local model beside transformers and the machine's limits, in one run.

    python bench/inference.py                 # what suits the device: CUDA if there is one
    python bench/inference.py --device cpu --shapes qwen2.5-0.5b
    python bench/inference.py --json out.json

Weights are random, in the shapes of known models; they cost what trained ones cost. Everything is
set as it is for users: the kernels, the engine process's environment, the measured number of
threads. transformers runs eager, as its users run it, where it is installed;
``beside_llama_cpp.py`` puts llama.cpp beside the same models.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

from agentcli.llm.engine import TUNING

os.environ.update(TUNING)  # before torch reads it

import torch
from limits import Limits, best_time, measure, read_bandwidth
from loading import loading
from models import (
    PROMPT,
    SHAPES,
    build,
    bytes_tokenizer,
    hf_model,
    prefill_flops,
    read_bytes,
    use_kernels,
)

from agentcli.inference.engine import Engine, Generation
from agentcli.inference.sampling import GREEDY
from agentcli.inference.speculate import Lookup, PromptLookup
from agentcli.inference.threads import step_threads
from agentcli.model.gpt import GPT

TURN = 4  # steps of each kind in a turn


@dataclass(frozen=True)
class Figure:
    shape: str
    work: str
    value: float
    unit: str
    note: str = ""


class Bench:
    """Runs rows and keeps their figures; a row that fails is reported and does not end the run."""

    def __init__(
        self, device: str, limits: Limits, *, peers: bool, tokens: int, compiled: bool = True
    ) -> None:
        self.device, self.limits = device, limits
        self.peers, self.tokens, self.compiled = peers, tokens, compiled
        self.figures: list[Figure] = []

    def add(self, shape: str, work: str, value: float, unit: str, note: str = "") -> None:
        self.figures.append(Figure(shape, work, value, unit, note))
        print(f"{shape:14} {work:44} {value:10.3f} {unit:8} {note}", flush=True)

    @contextmanager
    def row(self, shape: str, work: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # the other rows still count
            reason = str(error).splitlines()[0] if str(error) else ""
            print(
                f"{shape:14} {work:44} failed: {type(error).__name__}: {reason[:120]}", flush=True
            )
        gc.collect()
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()

    def read(self) -> float:
        """Bytes/s of memory now: a processor's changes with what else runs on the machine."""
        on_cuda = self.device.startswith("cuda")
        return self.limits.read if on_cuda else read_bandwidth(self.device, rounds=1)

    # --- ours ----------------------------------------------------------------------------------

    def decode(
        self, shape: str, engine: Engine, batches: Sequence[int], label: str, prompt: int = PROMPT
    ) -> dict[int, float]:
        """Seconds a step for each number of rows, after a warm-up that compiles and captures.

        All take turns, and turns with the memory's bandwidth, since a shared machine's changes
        within seconds; medians count.
        """
        tokens = [7 + i % 1000 for i in range(prompt)]
        turns, count = self.tokens // TURN, self.tokens // TURN * TURN + 2
        running, warm = {}, {}
        for batch in batches:
            started = time.perf_counter()
            rows = {"num_samples": batch, "sampling": GREEDY}
            generation = engine.generate(tokens, max_tokens=count, **rows)  # type: ignore[arg-type]
            next(generation)  # the prefill, and any capture for this generation's memory
            next(generation)
            running[batch], warm[batch] = generation, time.perf_counter() - started
        weights = read_bytes(engine.model)
        took: dict[int, list[float]] = {batch: [] for batch in batches}
        shares: dict[int, list[float]] = {batch: [] for batch in batches}
        for _ in range(turns):
            read = self.read()
            for batch in batches:
                started = time.perf_counter()
                for _ in range(TURN):
                    next(running[batch])
                took[batch].append((time.perf_counter() - started) / TURN)
                cache = engine.model.config.cache_bytes(prompt + self.tokens // 2) * batch
                shares[batch].append((weights + cache) / took[batch][-1] / read)
        for batch in batches:
            step, share = median(took[batch]), median(shares[batch])
            note = (
                f"{batch / step:8.1f} tok/s, {share:5.1%} of bandwidth, start {warm[batch]:.1f} s"
            )
            self.add(shape, f"decode {label}, batch {batch}", step * 1e3, "ms/step", note)
        one, many = batches[0], batches[-1]
        if one != many:
            gains = [many / one * a / b for a, b in zip(took[one], took[many], strict=True)]
            work = f"batch {many} over batch {one}, {label}, tokens/s"
            self.add(shape, work, median(gains), "x")
        return {batch: median(took[batch]) for batch in batches}

    def prefill(self, shape: str, model: GPT, length: int) -> None:
        tokens = torch.randint(0, 1000, (1, length), device=self.device)

        def run() -> None:
            cache = model.new_cache(capacity=length)
            model.logits(model.hidden(tokens, cache)[:, -1:])

        with torch.inference_mode():
            took = best_time(run, device=self.device, repeats=3)
            kernels = attention_kernels(run) if self.device.startswith("cuda") else ""
        flops = prefill_flops(model.config, length)
        computed = model.compute_dtype or model.embedding_weight.dtype
        dtype = str(computed).removeprefix("torch.")
        share = flops / took / self.limits.matrix.get(dtype, float("inf"))
        note = (
            f"{length / took:8.0f} tok/s, {flops / took / 1e12:.2f} TFLOP/s, {share:5.1%} of matrix"
        )
        self.add(shape, f"prefill {length}", took * 1e3, "ms", f"{note} {kernels}")

    def turn(self, shape: str, engine: Engine, length: int, new: int = 32) -> None:
        """A turn on a long conversation costs the prefill of its new tokens."""
        history = [7 + i % 1000 for i in range(length)]
        cache = engine.model.new_cache(capacity=length + 4 * new)
        for _ in engine.generate(history, max_tokens=1, sampling=GREEDY, cache=cache):
            pass
        piece = torch.tensor([[9] * new], device=self.device)
        times, base = [], []
        for _ in range(8):  # in turns, so that what disturbs one disturbs the other
            cache.truncate(length)
            started = time.perf_counter()
            with torch.inference_mode():
                hidden = engine.model.hidden(piece, cache)
                engine.model.logits(hidden[:, -1:]).cpu()
            base.append(time.perf_counter() - started)
            cache.truncate(length)
            started = time.perf_counter()
            generation = engine.generate(
                history + [9] * new, max_tokens=1, sampling=GREEDY, cache=cache
            )
            next(generation)
            times.append(time.perf_counter() - started)
            assert generation.reused == length
        extra = (min(times) - min(base)) * 1e3
        self.add(shape, f"turn of {new} on {length} tokens, over its own cost", extra, "ms")

    def lookup(self, shape: str, engine: Engine) -> None:
        """Tokens a second with 6 of 8 drafted tokens right, and with all wrong, over without."""
        prompt = [7 + i % 1000 for i in range(PROMPT)]

        def run(kind: type[_Known] | None) -> Generation:
            generation = engine.generate(prompt, max_tokens=self.tokens, sampling=GREEDY)
            generation.drafts = kind and kind(answer, prompt)
            for _ in generation:
                pass
            return generation

        answer: list[int] = []
        answer = run(None).rows[0].generated
        kinds = (None, _MostlyRight, _Known)
        took = dict.fromkeys(kinds, float("inf"))
        runs = {}
        for _ in range(3):  # in turns, so that what disturbs one disturbs the others
            for kind in kinds:
                runs[kind] = run(kind)
                took[kind] = min(took[kind], runs[kind].decode_s)
        for kind, name in ((_MostlyRight, "6 of 8 drafts accepted"), (_Known, "no draft accepted")):
            said = runs[kind].rows[0].generated
            same = next(
                (i for i, (a, b) in enumerate(zip(said, answer, strict=False)) if a != b), len(said)
            )
            note = f"{len(said)} tokens in {runs[kind].steps} forwards, the first {same} as without"
            self.add(shape, f"prompt lookup, {name}", took[None] / took[kind], "x", note)

    # --- peers ---------------------------------------------------------------------------------

    def transformers(self, shape: str, dtype: torch.dtype, batches: list[int]) -> dict[int, float]:
        if not self.peers:
            return {}
        try:
            model = hf_model(SHAPES[shape], dtype, self.device)
        except ImportError:
            print(f"{shape:14} transformers is not installed: no peer", flush=True)
            return {}
        out = {}
        for batch in batches:
            with self.row(shape, f"transformers, batch {batch}"):
                out[batch] = self._hf_decode(model, batch)
                note = f"{batch / out[batch]:8.1f} tok/s"
                self.add(
                    shape, f"transformers eager, batch {batch}", out[batch] * 1e3, "ms/step", note
                )
        return out

    @torch.inference_mode()
    def _hf_decode(self, model: Any, batch: int) -> float:
        tokens = torch.randint(0, 1000, (batch, PROMPT), device=self.device)
        cache = model(tokens, use_cache=True).past_key_values
        token = tokens[:, :1]
        for _ in range(3):
            token = model(token, past_key_values=cache, use_cache=True).logits[:, -1:].argmax(-1)
        steps = min(self.tokens, 64)
        token.cpu()
        started = time.perf_counter()
        for _ in range(steps):
            token = model(token, past_key_values=cache, use_cache=True).logits[:, -1:].argmax(-1)
            token.cpu()
        return (time.perf_counter() - started) / steps


class _Known(PromptLookup):
    """Drafts from the answer itself, ``right`` of 8 tokens of it."""

    right = 0

    def __init__(self, answer: list[int], prompt: list[int]) -> None:
        self.answer, self._start = answer, len(prompt)
        super().__init__(Lookup(), prompt)

    def propose(self) -> list[int]:
        if self._wait:
            self._wait -= 1
            return []
        at = len(self._tokens) - self._start
        return (self.answer[at : at + self.right] + [1] * 8)[: self._size]


class _MostlyRight(_Known):
    right = 6


def attention_kernels(run: Callable[[], None]) -> str:
    """Which attention kernels really ran, by the profiler."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        run()
        torch.cuda.synchronize()
    names = [event.key for event in profile.key_averages()]
    words = ("flash", "fmha", "cudnn", "attention", "sdpa")
    found = sorted({name[:48] for name in names if any(word in name.lower() for word in words)})
    return f"[{'; '.join(found[:2]) or 'no attention kernel by name'}]"


# --- what is run where -------------------------------------------------------------------------


def on_cuda(bench: Bench, shapes: list[str]) -> None:
    for shape in shapes:
        bfloat16 = torch.bfloat16
        steps: dict[tuple[str, int], float] = {}
        with bench.row(shape, "model"):
            model = build(shape, bench.device, bfloat16)
            tokenizer = bytes_tokenizer()
            with bench.row(shape, "prefill"):
                bench.prefill(shape, model, 8192 if model.config.sequence_len >= 8192 else 2048)
            kinds = {
                "eager": Engine(model, tokenizer, graphs=False),
                "graphs": Engine(model, tokenizer),
            }
            if bench.compiled:
                kinds["compiled + graphs"] = Engine(model, tokenizer, compiled=True)
            for label, engine in kinds.items():
                for batch in (1, 32):  # not in turns: an engine has graphs for one cache
                    with bench.row(shape, f"decode {label}, batch {batch}"):
                        steps[label, batch] = bench.decode(shape, engine, (batch,), label)[batch]
            with bench.row(shape, "turn"):
                bench.turn(shape, kinds["graphs"], 2000)
            del model, kinds, engine
        peers = bench.transformers(shape, bfloat16, [1, 32])
        for batch in (1, 32):
            ours = [took for (_, rows), took in steps.items() if rows == batch]
            if ours and batch in peers:
                bench.add(
                    shape, f"times transformers, batch {batch}", peers[batch] / min(ours), "x"
                )
        best = {b: min((t for (_, r), t in steps.items() if r == b), default=0.0) for b in (1, 32)}
        if all(best.values()):
            bench.add(shape, "batch 32 over batch 1, tokens/s", 32 * best[1] / best[32], "x")


def on_cpu(bench: Bench, shapes: list[str], fixed: int) -> None:
    if not use_kernels():
        print("no kernels: PyTorch alone", flush=True)
    for shape in shapes:
        steps: dict[str, float] = {}
        for label, scheme in (("bfloat16", None), ("int8", "int8"), ("int4", "int4")):
            with bench.row(shape, f"decode {label}"):
                model = build(shape, "cpu", torch.bfloat16, scheme)  # type: ignore[arg-type]
                threads = fixed or step_threads(model).usual
                torch.set_num_threads(threads)
                engine = Engine(model, bytes_tokenizer())
                named = f"{label}, {threads} threads"
                steps[label] = bench.decode(shape, engine, (1, 8), named)[1]
                bench.lookup(shape, engine)
                if scheme is None:
                    bench.turn(shape, engine, 2000)
                    bench.prefill(shape, model, 2048)
                del model, engine
        with bench.row(shape, "decode float32"):
            # Twice the bytes for the same arithmetic, so that memory limits one row more.
            engine = Engine(build(shape, "cpu", torch.float32), bytes_tokenizer())
            bench.decode(shape, engine, (1, 8), "float32")
            del engine
        peers = bench.transformers(shape, torch.bfloat16, [1])
        if 1 in peers and "bfloat16" in steps:
            bench.add(shape, "times transformers, bfloat16", peers[1] / steps["bfloat16"], "x")
        with bench.row(shape, "load"):
            took, peak, size = loading(shape)
            bench.add(shape, f"load {size / 1e9:.2f} GB, warm", took, "s", f"peak {peak:.2f} x")
    with bench.row("calls", "a layer and token"):
        bench.add("calls", "a layer and token, without matrices", overhead(), "us")


def overhead() -> float:
    """Time a layer and token of a model so small that only the calls cost: microseconds."""
    model = build("calls", "cpu", torch.bfloat16)
    cache = model.new_cache()
    token = torch.ones(1, 1, dtype=torch.long)

    def run() -> None:
        model(token, cache)
        cache.truncate(0)

    with torch.inference_mode():
        return best_time(run, device="cpu", inner=50) / model.config.n_layer * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--shapes", nargs="+", choices=sorted(SHAPES.keys() - {"calls"}))
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--tokens", type=int, default=128, help="decode steps per measurement")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--no-compile", action="store_true", help="saves minutes of warm-up")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    cuda = options.device.startswith("cuda")
    limits = measure(options.device)
    rates = ", ".join(f"{rate / 1e12:.1f} TFLOP/s {name}" for name, rate in limits.matrix.items())
    print(f"{limits.device}: read {limits.read / 1e9:.0f} GB/s, {rates}, torch {torch.__version__}")
    bench = Bench(
        options.device,
        limits,
        peers=not options.no_peers,
        tokens=options.tokens,
        compiled=not options.no_compile,
    )
    shapes = options.shapes or (["qwen2.5-0.5b", "llama-3-8b"] if cuda else ["qwen2.5-0.5b"])
    if cuda:
        on_cuda(bench, shapes)
    else:
        on_cpu(bench, shapes, options.threads)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump([vars(figure) for figure in bench.figures], file, indent=1)


if __name__ == "__main__":
    main()
