"""Options of every command that can run a model on this machine."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer


class Dtype(StrEnum):
    """What ``--dtype`` can be."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


class Quantize(StrEnum):
    """What ``--quantize`` can be."""

    INT8 = "int8"
    INT4 = "int4"


DeviceOption = Annotated[
    str | None, typer.Option("--device", help="Local models: cpu, cuda, cuda:1.", metavar="DEVICE")
]
DtypeOption = Annotated[
    Dtype | None, typer.Option("--dtype", help="Local models: what weights are computed in.")
]
QuantizeOption = Annotated[
    Quantize | None, typer.Option("--quantize", help="Local models: matrices in 8 or 4 bits.")
]
ContextOption = Annotated[
    int | None, typer.Option("--context", min=1, help="Local models: tokens of the context window.")
]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", min=1, help="Local models: threads that compute.")
]


def local_flags(
    device: str | None,
    dtype: Dtype | None,
    quantize: Quantize | None,
    context: int | None,
    threads: int | None,
) -> dict[str, Any]:
    """The flags as settings of ``[local]``."""
    return {
        "local.device": device,
        "local.dtype": dtype.value if dtype else None,
        "local.quantize": quantize.value if quantize else None,
        "local.context": context,
        "local.threads": threads,
    }
