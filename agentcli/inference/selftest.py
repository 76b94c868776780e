"""Self-test of a loaded model: its logits, KV cache, tokenizer and speed."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from agentcli.inference.engine import Engine
from agentcli.inference.sampling import GREEDY
from agentcli.model.checkpoint import LoadedModel
from agentcli.model.tokenizer import Tokenizer

# Several scripts, white space, code and other things that tokenizers get wrong.
SAMPLE = 'def größe(x):\n    return f"{x!r}"  # 日本語 🙂 e\u0301\n\n\t<|im_end|> it\'s 1,234.5\n'
PROMPT_TOKENS, NEW_TOKENS = 128, 24
# Allowed rounding differences, as a fraction of the largest logit.
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}
_HALF_TOLERANCE = 0.08


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one test."""

    what: str
    works: bool
    detail: str


@torch.inference_mode()
def selftest(loaded: LoadedModel) -> Iterator[Finding]:
    """Run all tests, yielding each finding as soon as it is known."""
    model, tokenizer = loaded.model, loaded.tokenizer
    tokens = _prompt(tokenizer, min(PROMPT_TOKENS, model.config.sequence_len // 2))
    prompt = torch.tensor([tokens], device=model.device)
    whole: Tensor = model(prompt)[0]  # (T, V)
    finite = bool(whole.isfinite().all())
    yield Finding("logits", finite, f"{'all' if finite else 'not all'} of {whole.numel():,} finite")
    if not finite:
        return  # the other tests depend on the logits
    cache = model.new_cache()
    half = len(tokens) // 2
    pieces = [model(prompt[:, :half], cache)[0]]
    pieces += [model(prompt[:, at : at + 1], cache)[0] for at in range(half, len(tokens))]
    apart = float((torch.cat(pieces) - whole).abs().max() / whole.abs().max().clamp(min=1e-9))
    allowed = _TOLERANCE.get(model.embedding_weight.dtype, _HALF_TOLERANCE)
    yield Finding("cache", apart <= allowed, f"with it and without, logits are {apart:.1e} apart")
    again = tokenizer.decode(tokenizer.encode(SAMPLE))
    special = set(tokenizer.special.values()) & set(tokenizer.encode(SAMPLE))
    # Qwen's tokenizers compose characters.
    same = again in (SAMPLE, unicodedata.normalize("NFC", SAMPLE)) and not special
    yield Finding("tokenizer", same, "gives text back as it was" if same else f"gives {again!r}")
    yield _speed(loaded, tokens)


def _speed(loaded: LoadedModel, tokens: list[int]) -> Finding:
    engine = Engine(loaded.model, loaded.tokenizer, stop_ids=frozenset())
    room = max(1, min(NEW_TOKENS, loaded.model.config.sequence_len - len(tokens)))
    started = time.perf_counter()
    generation = engine.generate(tokens, max_tokens=room, sampling=GREEDY)
    for _ in generation:
        pass
    spent = time.perf_counter() - started
    prefill = generation.prefilled / generation.prefill_s
    decode = generation.steps / generation.decode_s if generation.decode_s else 0.0
    return Finding(
        "speed", spent > 0, f"prompt {prefill:,.0f} tokens/s, answer {decode:,.1f} tokens/s"
    )


def _prompt(tokenizer: Tokenizer, size: int) -> list[int]:
    text = tokenizer.encode(SAMPLE)
    repeated = [*tokenizer.prompt_prefix, *(text * (1 + size // max(1, len(text))))]
    return repeated[: max(2, size)]
