"""llama.cpp beside the Engine: the same shape, random weights, one token at a time.

    python bench/beside_llama_cpp.py                 # bfloat16, 8 and 4 bits in turns
    python bench/beside_llama_cpp.py --prefill 2048  # and a long prompt

Needs the extra ``bench`` (llama-cpp-python builds llama.cpp, which takes minutes; gguf writes the
file). Both sides decode in turns within one run, so that what disturbs one disturbs the other;
medians count.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from agentcli.llm.engine import TUNING

os.environ.update(TUNING)  # before torch reads it

import gguf
import inference
import llama_cpp
import torch
from limits import measure
from models import PROMPT, SHAPES, build, bytes_tokenizer, read_bytes, use_kernels

from agentcli.inference.engine import Engine
from agentcli.inference.sampling import GREEDY
from agentcli.model.config import ModelConfig


@llama_cpp.llama_log_callback
def unlogged(level: int, text: bytes, data: object) -> None:
    """llama.cpp would tell of every tensor."""


llama_cpp.llama_log_set(unlogged, None)

FORMATS = {
    "bfloat16": ("BF16", None),
    "int8": ("Q8_0", llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0),
    "int4": ("Q4_0", llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0),
}


def write_gguf(config: ModelConfig, path: Path) -> None:
    """A qwen2 of this shape without a vocabulary."""
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_context_length(config.sequence_len)
    writer.add_embedding_length(config.n_embd)
    writer.add_block_count(config.n_layer)
    writer.add_feed_forward_length(config.n_hidden)
    writer.add_head_count(config.n_head)
    writer.add_head_count_kv(config.n_kv_head)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_freq_base(config.rope.base)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("no_vocab")

    def add(name: str, *shape: int) -> None:
        tensor = torch.randn(shape) * 0.02
        if len(shape) == 1:
            writer.add_tensor(name, tensor.numpy())
            return
        raw = tensor.bfloat16().view(torch.uint8).numpy()
        writer.add_tensor(name, raw, raw_dtype=gguf.GGMLQuantizationType.BF16)

    width, q, kv = config.n_embd, config.n_head * config.head_dim, config.kv_dim
    add("token_embd.weight", config.vocab_size, width)
    add("output_norm.weight", width)
    for i in range(config.n_layer):
        for name, rows in (("q", q), ("k", kv), ("v", kv)):
            add(f"blk.{i}.attn_{name}.weight", rows, width)
            add(f"blk.{i}.attn_{name}.bias", rows)
        add(f"blk.{i}.attn_output.weight", width, q)
        add(f"blk.{i}.ffn_gate.weight", config.n_hidden, width)
        add(f"blk.{i}.ffn_up.weight", config.n_hidden, width)
        add(f"blk.{i}.ffn_down.weight", width, config.n_hidden)
        add(f"blk.{i}.attn_norm.weight", width)
        add(f"blk.{i}.ffn_norm.weight", width)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Peer:
    """A model in llama.cpp."""

    def __init__(self, path: Path, threads: int, length: int) -> None:
        options = llama_cpp.llama_model_default_params()
        options.n_gpu_layers = 0
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), options)
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx, settings.n_batch, settings.n_ubatch = length, length, 512
        settings.n_threads = settings.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(self.model, settings)
        if not self.context:
            raise RuntimeError(f"llama.cpp cannot load {path}")

    def run(self, count: int, *, fresh: bool = False) -> None:
        """``count`` tokens at once."""
        if fresh:
            llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        tokens = (llama_cpp.llama_token * count)(*(7 + i % 1000 for i in range(count)))
        batch = llama_cpp.llama_batch_get_one(tokens, count)
        if llama_cpp.llama_decode(self.context, batch):
            raise RuntimeError("llama.cpp cannot decode")

    def step(self, count: int) -> None:
        """``count`` tokens one after the other."""
        for _ in range(count):
            self.run(1)

    def close(self) -> None:
        llama_cpp.llama_free(self.context)
        llama_cpp.llama_model_free(self.model)


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def compare(
    bench: inference.Bench, folder: Path, kind: str, *, tokens: int, rounds: int, prefill: int
) -> None:
    """One format on both sides: decode after a prompt of 128, then a long prompt."""
    shape = "qwen2.5-0.5b"
    config = SHAPES[shape]
    name, ftype = FORMATS[kind]
    base = folder / "BF16.gguf"
    path = folder / f"{name}.gguf"
    if ftype is not None and not path.exists():
        options = llama_cpp.llama_model_quantize_default_params()
        options.ftype = ftype
        llama_cpp.llama_model_quantize(str(base).encode(), str(path).encode(), options)
    threads = torch.get_num_threads()
    peer = Peer(path, threads, max(prefill, 512))
    scheme: Any = None if kind == "bfloat16" else kind
    model = build(shape, "cpu", torch.bfloat16, scheme)
    engine = Engine(model, bytes_tokenizer())
    prompt = [7 + i % 1000 for i in range(PROMPT)]
    ours, theirs, shares = [], [], []
    read = read_bytes(model) + config.cache_bytes(PROMPT, 4)
    for _ in range(rounds):
        generation = engine.generate(prompt, max_tokens=tokens + 2, sampling=GREEDY)
        next(generation), next(generation)
        ours.append(seconds(partial(list, generation)) / tokens)
        peer.run(PROMPT, fresh=True)
        peer.run(1)
        theirs.append(seconds(lambda: peer.step(tokens)) / tokens)
        shares.append(read / ours[-1] / bench.read())
    step, other = median(ours), median(theirs)
    note = f"{1 / step:7.1f} tok/s, {median(shares):5.1%} of bandwidth, {read / 1e6:.0f} MB a token"
    bench.add(shape, f"decode {kind}", step * 1e3, "ms", note)
    bench.add(shape, f"llama.cpp {name}", other * 1e3, "ms", f"{1 / other:7.1f} tok/s")
    ratio = median(b / a for a, b in zip(ours, theirs, strict=True))
    bench.add(shape, f"decode {kind}, times llama.cpp", ratio, "x")
    if prefill:
        bench.prefill(shape, model, prefill)
        took = min(seconds(lambda: peer.run(prefill, fresh=True)) for _ in range(2))
        bench.add(shape, f"llama.cpp {name}, prefill {prefill}", took * 1e3, "ms")
    peer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--formats", nargs="+", choices=sorted(FORMATS), default=list(FORMATS))
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--prefill", type=int, default=0, help="length of a long prompt")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "bench-gguf")
    options = parser.parse_args()
    if not use_kernels():
        print("no kernels: PyTorch alone")
    options.folder.mkdir(exist_ok=True)
    if not (base := options.folder / "BF16.gguf").exists():
        write_gguf(SHAPES["qwen2.5-0.5b"], base)
    limits = measure("cpu")
    print(f"{limits.device}, {limits.threads} threads: read {limits.read / 1e9:.1f} GB/s")
    bench = inference.Bench("cpu", limits, peers=True, tokens=options.tokens)
    for kind in options.formats:
        with bench.row("qwen2.5-0.5b", kind):
            compare(
                bench,
                options.folder,
                kind,
                tokens=options.tokens,
                rounds=options.rounds,
                prefill=options.prefill,
            )


if __name__ == "__main__":
    main()
