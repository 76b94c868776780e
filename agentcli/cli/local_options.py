"""Options of the commands that can run a model on this machine."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any

import typer

from agentcli.settings import MOST_THREADS


class Dtype(StrEnum):
    """Values of ``--dtype``."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


class Quantize(StrEnum):
    """Values of ``--quantize``."""

    INT8 = "int8"
    INT4 = "int4"


LOCAL = "Models on this machine"


def _device(device: str | None) -> str | None:
    if device is not None and not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise typer.BadParameter(f"{device!r} is not cpu, cuda or cuda:N")
    return device


DeviceOption = Annotated[
    str | None,
    typer.Option(
        "--device",
        help="cpu, cuda or cuda:1; default: cuda if there is a GPU.",
        metavar="DEVICE",
        callback=_device,
        rich_help_panel=LOCAL,
    ),
]
DtypeOption = Annotated[
    Dtype | None,
    typer.Option(
        "--dtype",
        help="The type to compute in; default: the fastest here.",
        rich_help_panel=LOCAL,
    ),
]
QuantizeOption = Annotated[
    Quantize | None,
    typer.Option(
        "--quantize",
        help="Store weights in 8 or 4 bits; default: as in the files.",
        rich_help_panel=LOCAL,
    ),
]
ContextOption = Annotated[
    int | None,
    typer.Option(
        "--context",
        min=1,
        help="The size of the context window in tokens; default: the model's own.",
        rich_help_panel=LOCAL,
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        "--threads",
        min=1,
        max=MOST_THREADS,
        help="The number of CPU threads; default: measured.",
        rich_help_panel=LOCAL,
    ),
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
