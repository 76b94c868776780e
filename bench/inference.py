"""Speed of the local model beside its peers and the machine's limits, in one run.

    python bench/inference.py                 # what suits the device: CUDA if there is one
    python bench/inference.py --device cpu --shapes qwen2.5-0.5b
    python bench/inference.py --json out.json

Weights are random, in the shapes of known models; they cost what trained ones cost. Peers run on
the same shapes: transformers where it is installed, eager, as its users run it.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from limits import Limits, best_time, measure

from agentcli.inference.engine import Engine
from agentcli.inference.sampling import GREEDY
from agentcli.model.config import ModelConfig, RopeConfig
from agentcli.model.gpt import GPT
from agentcli.model.quantize import Scheme, quantize_model
from agentcli.model.tokenizer import TiktokenTokenizer

SHAPES = {
    "llama-3-8b": ModelConfig(
        family="llama", vocab_size=128_256, sequence_len=16_384, n_layer=32, n_head=32,
        n_kv_head=8, n_embd=4096, head_dim=128, n_hidden=14_336, rope=RopeConfig(5e5, 128),
        norm_eps=1e-5,
    ),
    "qwen2.5-0.5b": ModelConfig(
        family="qwen2", vocab_size=151_936, sequence_len=16_384, n_layer=24, n_head=14,
        n_kv_head=2, n_embd=896, head_dim=64, n_hidden=4864, rope=RopeConfig(1e6, 64),
        qkv_bias=True, tied=True,
    ),
    "nanochat-d20": ModelConfig.nanochat(
        vocab_size=65_536, sequence_len=2048, n_layer=20, n_head=10, n_embd=1280
    ),
}  # fmt: skip
PROMPT = 128


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

    # --- ours ----------------------------------------------------------------------------------

    def model(self, shape: str, dtype: torch.dtype, scheme: Scheme | None = None) -> GPT:
        with torch.device("meta"):
            model = GPT(SHAPES[shape], fused=True)
        model = model.to(dtype).to_empty(device=self.device).eval().requires_grad_(False)
        for rotary in model.rotaries:
            rotary.to(self.device)
        for parameter in model.parameters():
            parameter.normal_(0, 0.02)
        if scheme is not None:
            quantize_model(model, scheme)
        return model

    def decode(
        self, shape: str, engine: Engine, batch: int, label: str, prompt: int = PROMPT
    ) -> float:
        """Seconds a step, after a warm-up that compiles and captures."""
        tokens = [7 + i % 1000 for i in range(prompt)]
        rows = {"num_samples": batch, "sampling": GREEDY}
        started = time.perf_counter()
        for _ in engine.generate(tokens, max_tokens=4, cache=None, **rows):  # type: ignore[arg-type]
            pass
        warm = time.perf_counter() - started
        best = float("inf")
        for _ in range(3):
            generation = engine.generate(tokens, max_tokens=self.tokens, **rows)  # type: ignore[arg-type]
            next(generation)  # the prefill, and any capture for this generation's memory
            next(generation)
            started = time.perf_counter()
            steps = sum(1 for _ in generation)
            best = min(best, (time.perf_counter() - started) / steps)
        weights = read_bytes(engine.model)
        cache = engine.model.config.cache_bytes(prompt + self.tokens // 2) * batch
        share = (weights + cache) / best / self.limits.read
        note = f"{batch / best:8.1f} tok/s, {share:5.1%} of bandwidth, warm-up {warm:.1f} s"
        self.add(shape, f"decode {label}, batch {batch}", best * 1e3, "ms/step", note)
        return best

    def prefill(self, shape: str, model: GPT, length: int) -> None:
        tokens = torch.randint(0, 1000, (1, length), device=self.device)

        def run() -> None:
            cache = model.new_cache(capacity=length)
            model.logits(model.hidden(tokens, cache)[:, -1:])

        with torch.inference_mode():
            took = best_time(run, device=self.device, repeats=3)
            kernels = attention_kernels(run) if self.device.startswith("cuda") else ""
        flops = prefill_flops(model.config, length)
        dtype = str(model.embedding_weight.dtype).removeprefix("torch.")
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
        times, base = [], []
        for _ in range(3):
            cache.truncate(length)
            piece = torch.tensor([[9] * new], device=self.device)
            with torch.inference_mode():
                base.append(
                    best_time(self._forward_and_back(engine, cache, piece), device=self.device)
                )
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

    def _forward_and_back(
        self, engine: Engine, cache: Any, piece: torch.Tensor
    ) -> Callable[[], None]:
        at = cache.length

        def run() -> None:
            hidden = engine.model.hidden(piece, cache)
            engine.model.logits(hidden[:, -1:])
            cache.truncate(at)

        return run

    def drafts(self, shape: str, engine: Engine, single: float) -> None:
        """A forward that checks 8 drafted tokens, of which 6 are taken to hold: 7 tokens gained."""
        cache = engine.model.new_cache(capacity=1024)
        with torch.inference_mode():
            engine.model.hidden(torch.full((1, PROMPT), 7, device=self.device), cache)
            piece = torch.full((1, 9), 7)

            def run() -> None:
                engine.forward(piece, cache)
                cache.truncate(PROMPT)

            took = best_time(run, device=self.device, inner=5)
        gain = 7 * single / took
        note = f"forward of 9 costs {took / single:.2f} of one"
        self.add(shape, "prompt lookup, 6 of 8 drafts accepted", gain, "x", note)

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


def read_bytes(model: GPT) -> int:
    """Bytes of weights that one step reads: all but embeddings, of which it reads one row."""
    tensors = [*model.parameters(), *model.buffers()]
    looked_up = [m.weight for m in model.modules() if isinstance(m, torch.nn.Embedding)]
    total = sum(t.nbytes for t in tensors) - sum(t.nbytes for t in looked_up)
    return total + (model.embedding_weight.nbytes if model.lm_head is None else 0)


def prefill_flops(config: ModelConfig, length: int) -> int:
    """Matrices of the layers for every token, the head for the last, attention for half of T²."""
    mlp = (3 if config.gated else 2) * config.n_embd * config.n_hidden
    q_dim = config.n_head * config.head_dim
    attention = config.n_embd * (2 * q_dim + 2 * config.kv_dim)
    scores = sum(min(w or length, length) * length * (1 if w else 0.5) for w in config.windows)
    return int(2 * length * config.n_layer * (mlp + attention) + 4 * q_dim * scores)


def attention_kernels(run: Callable[[], None]) -> str:
    """Which attention kernels really ran, by the profiler."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        run()
        torch.cuda.synchronize()
    names = [event.key for event in profile.key_averages()]
    words = ("flash", "fmha", "cudnn", "attention", "sdpa")
    found = sorted({name[:48] for name in names if any(word in name.lower() for word in words)})
    return f"[{'; '.join(found[:2]) or 'no attention kernel by name'}]"


def hf_model(config: ModelConfig, dtype: torch.dtype, device: str) -> Any:
    import transformers

    kinds = {"llama": transformers.LlamaConfig, "qwen2": transformers.Qwen2Config}
    if config.family not in kinds:
        raise ImportError(f"transformers has no {config.family}")
    hf = kinds[config.family](
        vocab_size=config.vocab_size,
        hidden_size=config.n_embd,
        intermediate_size=config.n_hidden,
        num_hidden_layers=config.n_layer,
        num_attention_heads=config.n_head,
        num_key_value_heads=config.n_kv_head,
        max_position_embeddings=config.sequence_len,
        tie_word_embeddings=config.tied,
    )
    auto: Any = transformers.AutoModelForCausalLM
    with torch.device(device):
        return auto.from_config(hf, dtype=dtype).eval().requires_grad_(False)


# --- what is run where -------------------------------------------------------------------------


def on_cuda(bench: Bench, shapes: list[str]) -> None:
    for shape in shapes:
        bfloat16 = torch.bfloat16
        steps: dict[tuple[str, int], float] = {}
        with bench.row(shape, "model"):
            model = bench.model(shape, bfloat16)
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
                for batch in (1, 32):
                    with bench.row(shape, f"decode {label}, batch {batch}"):
                        steps[label, batch] = bench.decode(shape, engine, batch, label)
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


def on_cpu(bench: Bench, shapes: list[str]) -> None:
    tokenizer = bytes_tokenizer()
    for shape in shapes:
        steps: dict[str, float] = {}
        for label, dtype, scheme in (
            ("float32", torch.float32, None),
            ("bfloat16", torch.bfloat16, None),
            ("int8", torch.bfloat16, "int8"),
            ("int4", torch.bfloat16, "int4"),
        ):
            with bench.row(shape, f"decode {label}"):
                model = bench.model(shape, dtype, scheme)  # type: ignore[arg-type]
                engine = Engine(model, tokenizer)
                steps[label] = bench.decode(shape, engine, 1, label)
                if scheme is None:
                    eight = bench.decode(shape, engine, 8, label)
                    gain = 8 * steps[label] / eight
                    bench.add(shape, f"batch 8 over batch 1, {label}", gain, "x")
                    bench.drafts(shape, engine, steps[label])
                    bench.turn(shape, engine, 512)
                    bench.prefill(shape, model, 512)
                del model, engine
        peers = bench.transformers(shape, torch.bfloat16, [1])
        if 1 in peers and "bfloat16" in steps:
            bench.add(shape, "times transformers, bfloat16", peers[1] / steps["bfloat16"], "x")
    with suppress(Exception):
        bench.add("-", "framework overhead a layer and token", overhead(), "us")


def overhead() -> float:
    """Time a layer and token of a model so small that only the calls cost: microseconds."""
    config = ModelConfig(
        vocab_size=256, sequence_len=1024, n_layer=24, n_head=2, n_kv_head=2, n_embd=16,
        head_dim=8, n_hidden=16, rope=RopeConfig(1e4, 8),
    )  # fmt: skip
    model = GPT(config, fused=True).requires_grad_(False)
    model.init_weights()
    cache = model.new_cache()
    token = torch.ones(1, 1, dtype=torch.long)

    def run() -> None:
        model(token, cache)
        cache.truncate(0)

    with torch.inference_mode():
        return best_time(run, device="cpu", inner=50) / config.n_layer * 1e6


def bytes_tokenizer() -> TiktokenTokenizer:
    """Enough for an engine that never decodes text; it has no end token, so rows run on."""
    return TiktokenTokenizer({bytes([i]): i for i in range(256)}, r"[\s\S]", {})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--shapes", nargs="+", choices=sorted(SHAPES))
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
    (on_cuda if cuda else on_cpu)(bench, shapes)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump([vars(figure) for figure in bench.figures], file, indent=1)


if __name__ == "__main__":
    main()
