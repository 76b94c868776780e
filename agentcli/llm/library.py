"""A local model's engine in this process, for programs that use agentcli as a library.

The commands run the engine in a process of its own instead (``engine.py``).
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from agentcli.inference.engine import Engine
from agentcli.inference.loading import engine_of, load
from agentcli.llm.kernels import built_kernels
from agentcli.llm.local import EMBEDDED
from agentcli.model.quantize import Scheme
from agentcli.sandbox.process import Supervisor


def load_engine(
    model: str | Path = "embedded",
    *,
    device: str | None = None,
    dtype: str | None = None,
    quantize: Scheme | None = None,
    context: int | None = None,
    threads: int | None = None,
) -> Engine:
    """Load a model as the commands do, with agentcli's own kernels and the best number of threads.

    The first call on a machine builds the kernels, which takes a few seconds. They and the number
    of threads apply to the whole process.

    Args:
        model: A model folder, a nanochat ``model_*.pt``, or "embedded".
        device: By default, the first CUDA device if there is one, else the CPU.
        dtype: "float32", "bfloat16" or "float16"; by default, the fastest that is good enough.
        quantize: Store the matrices in 8 or 4 bits.
        context: Override the maximum number of positions.
        threads: The number of CPU threads; by default, the fastest one is found by measuring.

    Raises:
        CheckpointError: a file or tensor, named in the message, is missing, damaged or unsafe.
        ModelError: the model, the device or the dtype cannot be used.
    """
    with ThreadPoolExecutor(1) as pool:  # a thread, as the caller may have a running event loop
        kernels = pool.submit(asyncio.run, _kernels()).result()
    loaded = load(
        EMBEDDED if model == "embedded" else model,
        device=device,
        dtype=dtype,
        quantize=quantize,
        context=context,
        kernels=kernels,
    )
    return engine_of(loaded, threads=threads)


async def _kernels() -> Path | None:
    supervisor = Supervisor()
    supervisor.start()
    try:
        return await built_kernels(supervisor)
    finally:
        await supervisor.aclose()
