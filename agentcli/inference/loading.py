"""Loads a model and sets up an engine as fast as this machine allows."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from agentcli.errors import ModelError
from agentcli.inference.engine import Engine
from agentcli.inference.threads import step_threads
from agentcli.model import native
from agentcli.model.checkpoint import LoadedModel, load_model, stored_in_int8
from agentcli.model.pack import can_pack
from agentcli.model.quantize import Scheme

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def load(
    path: str | Path,
    *,
    device: str | None = None,
    dtype: str | None = None,
    quantize: Scheme | None = None,
    context: int | None = None,
    kernels: str | Path | None = None,
) -> LoadedModel:
    """Load a model for decoding.

    The default device is the first CUDA device if there is one, else the CPU. The default dtype is
    bfloat16 if the device computes with it at full speed, else the stored one. Weights stored in
    int8 stay int8 if there are ``kernels`` for them, a library of ``model/kernels.c`` that is from
    then on used in the whole process.

    Raises:
        ModelError: the device is not available, the dtype is not known, or anything else that
            ``load_model`` raises.
    """
    where = _device(device)
    on_cpu = where.type == "cpu"
    streamed = native.use(kernels if on_cpu else None)
    fast = where.type == "cuda" or (on_cpu and (can_pack() or streamed))
    if dtype is not None and dtype not in DTYPES:
        raise ModelError(f"unknown dtype {dtype!r}", hint=f"Use one of {', '.join(DTYPES)}")
    chosen: torch.dtype | Literal["auto"]
    chosen = DTYPES[dtype] if dtype else torch.bfloat16 if fast else "auto"
    if streamed and not dtype and not quantize and stored_in_int8(path):
        chosen, quantize = torch.float32, "int8"
    return load_model(path, dtype=chosen, device=where, quantize=quantize, context=context)


def engine_of(
    loaded: LoadedModel, *, threads: int | None = None, ends: frozenset[int] = frozenset()
) -> Engine:
    """Make an engine for a loaded model.

    Args:
        loaded: The model.
        threads: The number of CPU threads, for the whole process; by default, the fastest one is
            found by measuring, and again when steps become slow.
        ends: Tokens that end an answer besides the model's own.
    """
    chooser = None
    if threads:
        torch.set_num_threads(threads)
    else:
        chooser = step_threads(loaded.model)
    stop_ids = loaded.stop_ids | ends
    return Engine(loaded.model, loaded.tokenizer, stop_ids=stop_ids, threads=chooser)


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"device {name!r} cannot be used ({reason})", hint="Use cpu") from None
    return device
