"""How far 16, 8 and 4 bits move the embedded model on its own text.

    python -m bench.quantization --documents 60

The text is trajectories of repairs and questions in held-out projects, as in use (training/tasks.py
writes them here, from the seeds alone). Compared are the distributions at the tokens that the model
itself would write, against the weights in float32.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agentcli.inference.loading import load
from agentcli.llm.local import EMBEDDED
from agentcli.model.gpt import GPT
from agentcli.model.native import FEW_TOKENS
from bench.models import kernels
from training.tasks import Sources, Worker

KINDS = ("repair_seed", "question", "mistake", "rename")
FORMS: dict[str, dict[str, Any]] = {
    "bfloat16": {"dtype": "bfloat16"},
    "as used": {},  # the stored int8, multiplied by the kernels
    "int8": {"quantize": "int8"},
    "int4": {"quantize": "int4"},
}


def documents(count: int, longest: int) -> list[tuple[list[int], Tensor]]:
    """Tokens of trajectories, and which of them the model writes."""
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        worker = Worker(Sources(Path(scratch), 0, held=True), 1, Path(scratch))
        while len(found) < count:
            made = worker.make(KINDS[len(found) % len(KINDS)])
            if made is not None and len(made[0]) <= longest:
                found.append((made[0], torch.tensor(made[1][1:]) > 0))
    return found


@torch.inference_mode()
def log_probabilities(model: GPT, tokens: list[int], written: Tensor) -> Tensor:
    """(written tokens, V), computed a few tokens at a time, as in decoding."""
    cache = model.new_cache(1)
    steps = torch.tensor([tokens[:-1]]).split(FEW_TOKENS, 1)
    return torch.cat([model(step, cache)[0] for step in steps])[written].float().log_softmax(-1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=EMBEDDED)
    parser.add_argument("--documents", type=int, default=60)
    parser.add_argument("--longest", type=int, default=1500, help="tokens of a document")
    chosen = parser.parse_args()
    texts = documents(chosen.documents, chosen.longest)
    print(
        f"{len(texts)} documents, {sum(int(each.sum()) for _, each in texts)} tokens of the model"
    )
    exact = load(chosen.model, dtype="float32").model
    narrow = {
        name: load(chosen.model, kernels=kernels(), **options).model
        for name, options in FORMS.items()
    }
    divergences: dict[str, list[Tensor]] = {name: [] for name in FORMS}
    same: dict[str, list[Tensor]] = {name: [] for name in FORMS}
    for tokens, written in texts:
        p = log_probabilities(exact, tokens, written)
        for name, model in narrow.items():
            q = log_probabilities(model, tokens, written)
            divergences[name].append((p.exp() * (p - q)).sum(-1))
            same[name].append(p.argmax(-1) == q.argmax(-1))
    print(f"{'weights':10} {'KL, nats':>10} {'99th %':>8} {'same first':>10}")
    for name in FORMS:
        every, share = torch.cat(divergences[name]), torch.cat(same[name]).float().mean()
        print(f"{name:10} {every.mean():10.6f} {every.quantile(0.99):8.5f} {share:10.2%}")


if __name__ == "__main__":
    main()
