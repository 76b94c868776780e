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
    """(written tokens, V)"""
    return model(torch.tensor([tokens[:-1]]))[0, written].float().log_softmax(-1)


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
    print(f"{'weights':10} {'KL, nats':>10} {'99th %':>8} {'same first':>10}")
    for name, options in FORMS.items():
        narrow = load(chosen.model, kernels=kernels(), **options).model
        divergences, same = [], []
        for tokens, written in texts:
            p = log_probabilities(exact, tokens, written)
            q = log_probabilities(narrow, tokens, written)
            divergences.append((p.exp() * (p - q)).sum(-1))
            same.append(p.argmax(-1) == q.argmax(-1))
        every = torch.cat(divergences)
        share = torch.cat(same).float().mean()
        print(f"{name:10} {every.mean():10.6f} {every.quantile(0.99):8.5f} {share:10.2%}")


if __name__ == "__main__":
    main()
