"""What this machine can do at most: read bandwidth and matrix rate. ``python bench/limits.py``

Decoding one token reads all weights once, so bandwidth bounds its speed; a long prompt multiplies
matrices, so the matrix rate bounds that. Figures of bench/inference.py are shares of these.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

import torch

# Streams read at once, and how many floats of each: their sum stays in the cache.
STREAMS = 8
STRIP = 1 << 18


@dataclass(frozen=True)
class Limits:
    """``read`` in bytes/s; ``matrix`` in floating-point operations/s, by dtype."""

    device: str
    threads: int
    read: float
    matrix: dict[str, float]


def best_time(
    work: Callable[[], object], *, device: str, repeats: int = 5, inner: int = 1
) -> float:
    """Seconds of the fastest of ``repeats`` runs of ``inner`` calls each, per call."""
    work()
    best = float("inf")
    for _ in range(repeats):
        _wait(device)
        started = time.perf_counter()
        for _ in range(inner):
            work()
        _wait(device)
        best = min(best, (time.perf_counter() - started) / inner)
    return best


def read_bandwidth(device: str, rounds: int = 5) -> float:
    """Bytes/s of the fastest of several ways to read memory.

    On shared machines this changes within minutes: take it beside what is compared with it.
    """
    on_cuda = device.startswith("cuda")
    size = 4 << 30 if on_cuda else 512 << 20  # far above any cache
    # float32 sums run at full vector width on every machine; a sum reads and writes nothing back.
    data = torch.ones(size // 4, dtype=torch.float32, device=device)
    took = best_time(data.sum, device=device, repeats=rounds)
    if not on_cuda:  # where more streams than one a thread read faster, that is the limit
        rows = data.view(STREAMS, -1, STRIP).unbind(1)
        total = torch.empty(STRIP)

        def sum_streams() -> None:
            for strip in rows:
                torch.sum(strip, 0, out=total)

        took = min(took, best_time(sum_streams, device=device, repeats=rounds))
    return size / took


def measure(device: str) -> Limits:
    """Takes a few seconds."""
    on_cuda = device.startswith("cuda")
    read = read_bandwidth(device)
    matrix = {}
    for dtype in (torch.bfloat16, torch.float32):
        if on_cuda:
            n = 8192 if dtype == torch.bfloat16 else 4096
        else:  # many processors have no instructions for bfloat16: a large product takes minutes
            n = 512 if dtype == torch.bfloat16 else 1536
        a = torch.randn(n, n, device=device).to(dtype)
        b = torch.randn(n, n, device=device).to(dtype)
        inner = 10 if on_cuda else 1
        took = best_time(partial(torch.matmul, a, b), device=device, repeats=3, inner=inner)
        matrix[str(dtype).removeprefix("torch.")] = 2 * n**3 / took
    name = torch.cuda.get_device_name(device) if on_cuda else _processor()
    return Limits(name, torch.get_num_threads(), read, matrix)


def _processor() -> str:
    return (
        f"{platform.processor() or platform.machine()} ({torch.backends.cpu.get_cpu_capability()})"
    )


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    limits = measure(options.device)
    if options.json:
        print(json.dumps(asdict(limits)))
        return
    print(f"{limits.device}, {limits.threads} threads")
    print(f"read    {limits.read / 1e9:10.1f} GB/s")
    for dtype, rate in limits.matrix.items():
        print(f"matrix  {rate / 1e12:10.2f} TFLOP/s {dtype}")


if __name__ == "__main__":
    main()
