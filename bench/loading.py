"""How long a checkpoint takes to load, and how much memory beyond its size: in a process alone."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from models import SHAPES, hf_model, kernels

from agentcli.inference.loading import load


def memory(name: str) -> int:
    """Bytes, by a name in /proc/self/status."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))


def child(folder: str, library: str) -> None:
    """Print the seconds that loading takes in this process, and the bytes it adds at most."""
    importlib.import_module("agentcli.inference.host")  # the engine's process has it by then
    before, started = memory("VmRSS:"), time.perf_counter()
    load(folder, device="cpu", kernels=library or None)
    took = time.perf_counter() - started
    print(json.dumps([took, memory("VmHWM:") - before]))


def loading(shape: str) -> tuple[float, float, int]:
    """Seconds of the faster of two loads, peak memory over the weights' size, and that size."""
    with tempfile.TemporaryDirectory() as folder:
        hf_model(SHAPES[shape], torch.bfloat16, "cpu").save_pretrained(folder)
        path = Path(folder)
        words = {"vocab": {"a": 0}, "merges": [], "type": "BPE"}
        pieces = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
        tokenizer = {"version": "1.0", "model": words, "decoder": pieces}
        (path / "tokenizer.json").write_text(json.dumps(tokenizer))
        size = sum(file.stat().st_size for file in path.glob("*.safetensors"))
        found = []
        for _ in range(2):
            command = (sys.executable, __file__, folder, kernels() or "")
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found.append(json.loads(done.stdout))
    return min(took for took, _ in found), max(peak for _, peak in found) / size, size


if __name__ == "__main__":
    child(*sys.argv[1:])
