"""Generation without a cache, as a reference: slow, but hard to get wrong."""

from __future__ import annotations

import torch

from agentcli.inference.engine import Engine
from agentcli.inference.row import InlineTools
from agentcli.inference.sampling import Sampling, adjust, choose


def naive_rows(
    engine: Engine,
    prompt: list[int],
    count: int,
    max_tokens: int,
    sampling: Sampling,
    tools: InlineTools | None = None,
) -> tuple[list[list[int]], list[list[bool]]]:
    """The generated tokens and the sampled mask of each row, including its end token."""
    generator = torch.Generator().manual_seed(sampling.seed)
    rows: list[list[int]] = [[] for _ in range(count)]
    masks: list[list[bool]] = [[] for _ in range(count)]
    forced: list[list[int]] = [[] for _ in range(count)]
    over = [False] * count
    for _ in range(max_tokens):
        draws = torch.rand(count, generator=generator, dtype=torch.float64).tolist()
        for i in range(count):
            if over[i]:
                continue
            masks[i].append(not forced[i])
            if forced[i]:
                token = forced[i].pop(0)
            else:
                history = prompt + rows[i]
                with torch.no_grad():
                    logits = engine.model(torch.tensor([history]))[:, -1]
                token = choose(adjust(logits, sampling, [history]), sampling, [draws[i]])[0]
            rows[i].append(token)
            over[i] = token in engine.stop_ids
            if tools is not None and token == tools.tags.call_end:
                forced[i] = _result(engine, rows[i], tools)
    return rows, masks


def _result(engine: Engine, row: list[int], tools: InlineTools) -> list[int]:
    tags = tools.tags
    before = row[:-1]
    starts = [at for at, token in enumerate(before) if token == tags.call_start]
    if not starts or tags.call_end in before[starts[-1] :]:
        return []
    call = before[starts[-1] + 1 :]
    result = tools.run(engine.tokenizer.decode(call)) if call else None
    if result is None:
        return []
    return [*tags.result_start, *engine.tokenizer.encode(result), *tags.result_end]
