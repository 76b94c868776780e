"""Weights on disk: checkpoints to resume from, and the int8 export that the package ships.

A checkpoint is one ``checkpoint.pt`` (weights, optimisers, streams, counters), written atomically.
An export is ``config.json`` and safetensors files of at most 15 MiB, so that each is easy to move.
Matrices are int8 with one float32 scale per row (``NAME`` and ``NAME.scale``: weight = int8 *
scale), vectors are float32, and ``model.safetensors.index.json`` says which file holds what.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from agentcli.model.config import ModelConfig
from agentcli.model.gpt import GPT

PART_BYTES = 15 * 2**20
SCALE = ".scale"
INDEX = "model.safetensors.index.json"
# Clipping a row's largest weights can help: the best of these fractions of its maximum is used.
CLIPS = (1.0, 0.97, 0.94, 0.91, 0.88, 0.85, 0.8)


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / "checkpoint.pt.part"
    torch.save(state, partial)
    partial.replace(folder / "checkpoint.pt")


def load_checkpoint(folder: Path, device: torch.device) -> dict[str, Any]:
    path = folder / "checkpoint.pt"
    state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    return state


def quantised(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(int8 of the same shape, float32 scale per row), with the least squared error of CLIPS."""
    weight = weight.float()
    largest = weight.abs().amax(-1, keepdim=True).clamp_min(1e-8)  # (rows, 1)
    best = torch.full_like(largest, torch.inf)
    scale = largest / 127
    for clip in CLIPS:
        tried = largest * clip / 127
        error = ((weight / tried).round().clamp(-127, 127) * tried - weight).square()
        total = error.sum(-1, keepdim=True)
        scale = torch.where(total < best, tried, scale)
        best = torch.minimum(total, best)
    values = (weight / scale).round().clamp(-127, 127).to(torch.int8)
    return values, scale[:, 0]


def blend(model: GPT, folder: Path, share: float) -> None:
    """Give the model ``share`` of its own weights and the rest of those of an export.

    Forgets less of what tuning does not show (Wortsman et al. 2021, arXiv:2109.01903).
    """
    _, before = load_export(folder)
    tuned = model.state_dict()
    model.load_state_dict(
        {name: torch.lerp(before[name].to(tuned[name]), tuned[name], share) for name in tuned}
    )


def export(model: GPT, folder: Path, about: dict[str, Any]) -> int:
    """Write the int8 export; return its size in bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    parts: list[dict[str, Tensor]] = [{}]
    sizes = [0]
    for name, found in model.state_dict().items():
        value = found.detach()
        tensors = {name: value.float()}
        if value.ndim == 2:
            values, scale = quantised(value)
            tensors = {name: values, name + SCALE: scale}
        tensors = {key: tensor.cpu().contiguous() for key, tensor in tensors.items()}
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        if sizes[-1] + size > PART_BYTES - 100_000:  # room for the header
            parts.append({})
            sizes.append(0)
        parts[-1] |= tensors
        sizes[-1] += size
    for old in folder.glob("model-*.safetensors"):
        old.unlink()
    where: dict[str, str] = {}
    for i, part in enumerate(parts):
        file = f"model-{i + 1:05}-of-{len(parts):05}.safetensors"
        save_file(part, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": sum(sizes)}, "weight_map": where}
    (folder / INDEX).write_text(json.dumps(index, indent=1) + "\n")
    config = {
        "model_type": "agentcli",
        "dtype": "float32",
        "storage": "int8 rows",
        "model": model.config.to_dict(),
        **about,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    return sum(sizes)


def load_export(folder: Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    """The configuration and float32 weights of an export."""
    config = ModelConfig.from_dict(json.loads((folder / "config.json").read_text())["model"])
    files = set(json.loads((folder / INDEX).read_text())["weight_map"].values())
    stored: dict[str, Tensor] = {}
    for file in sorted(files):
        stored |= load_file(folder / file)
    weights = {name: value.float() for name, value in stored.items() if not name.endswith(SCALE)}
    for name in weights:
        if name + SCALE in stored:
            weights[name] *= stored[name + SCALE][:, None]
    return config, weights
