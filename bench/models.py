"""The models to measure: random weights in known shapes, prepared like users' models."""

from __future__ import annotations

import asyncio
from typing import Any

import torch

from agentcli.llm.kernels import built_kernels
from agentcli.model import native
from agentcli.model.config import ModelConfig, RopeConfig
from agentcli.model.gpt import GPT
from agentcli.model.pack import pack_model
from agentcli.model.quantize import Scheme, quantize_model
from agentcli.model.tokenizer import TiktokenTokenizer
from agentcli.sandbox.process import Supervisor

SHAPES = {
    "llama-3-8b": ModelConfig(
        family="llama", vocab_size=128_256, sequence_len=16_384, n_layer=32, n_head=32,
        n_kv_head=8, n_embd=4096, head_dim=128, n_hidden=14_336, rope=RopeConfig(5e5, 128),
        norm_eps=1e-5,
    ),
    "qwen2.5-0.5b": ModelConfig(
        family="qwen2", vocab_size=151_936, sequence_len=16_384, n_layer=24, n_head=14,
        n_kv_head=2, n_embd=896, head_dim=64, n_hidden=4864, rope=RopeConfig(1e6, 64),
        qkv_bias=True, tied=True,
    ),
    "nanochat-d20": ModelConfig.nanochat(
        vocab_size=65_536, sequence_len=2048, n_layer=20, n_head=10, n_embd=1280
    ),
    # So small that only the overhead of calls counts.
    "calls": ModelConfig(
        family="qwen2", vocab_size=256, sequence_len=1024, n_layer=24, n_head=8, n_kv_head=8,
        n_embd=64, head_dim=8, n_hidden=64, rope=RopeConfig(1e4, 8),
    ),
}  # fmt: skip
PROMPT = 128


def kernels() -> str | None:
    """The path of the kernel library, which is built on first use and then kept, as for users."""

    async def find() -> str | None:
        supervisor = Supervisor()
        try:
            path = await built_kernels(supervisor)
        finally:
            await supervisor.aclose()
        return str(path) if path else None

    return asyncio.run(find())


def use_kernels() -> bool:
    """Load the native kernels; return whether there are any."""
    return native.use(kernels())


def build(shape: str, device: str, dtype: torch.dtype, scheme: Scheme | None = None) -> GPT:
    """Build a model with random weights, prepared like ``load_model`` prepares a checkpoint."""
    with torch.device("meta"):
        model = GPT(SHAPES[shape], fused=True)
    model = model.to(dtype).to_empty(device=device).eval().requires_grad_(False)
    for rotary in model.rotaries:
        rotary.to(device)
    for parameter in model.parameters():
        parameter.normal_(0, 0.02)
    if scheme is not None:
        quantize_model(model, scheme)
    else:
        pack_model(model)
    return model


def bytes_tokenizer() -> TiktokenTokenizer:
    """A tokenizer for engines that never decode text. It has no end token, so rows do not stop."""
    return TiktokenTokenizer({bytes([i]): i for i in range(256)}, r"[\s\S]", {})


def read_bytes(model: GPT) -> int:
    """Bytes of weights read per step: all except embeddings, of which it reads only one row."""
    tensors = [*model.parameters(), *model.buffers()]
    looked_up = [m.weight for m in model.modules() if isinstance(m, torch.nn.Embedding)]
    total = sum(t.nbytes for t in tensors) - sum(t.nbytes for t in looked_up)
    return total + (model.embedding_weight.nbytes if model.lm_head is None else 0)


def prefill_flops(config: ModelConfig, length: int) -> int:
    """FLOPs of a prefill: all layers for every token, and attention over half of T²."""
    mlp = (3 if config.gated else 2) * config.n_embd * config.n_hidden
    q_dim = config.n_head * config.head_dim
    attention = config.n_embd * (2 * q_dim + 2 * config.kv_dim)
    scores = sum(min(w or length, length) * length * (1 if w else 0.5) for w in config.windows)
    return int(2 * length * config.n_layer * (mlp + attention) + 4 * q_dim * scores)


def hf_config(config: ModelConfig) -> Any:
    """The same shape for transformers; raises ``ImportError`` if that is not installed."""
    import transformers

    kinds = {"llama": transformers.LlamaConfig, "qwen2": transformers.Qwen2Config}
    if config.family not in kinds:
        raise ImportError(f"transformers has no {config.family}")
    return kinds[config.family](
        vocab_size=config.vocab_size,
        hidden_size=config.n_embd,
        intermediate_size=config.n_hidden,
        num_hidden_layers=config.n_layer,
        num_attention_heads=config.n_head,
        num_key_value_heads=config.n_kv_head,
        max_position_embeddings=config.sequence_len,
        tie_word_embeddings=config.tied,
    )


def hf_model(config: ModelConfig, dtype: torch.dtype, device: str) -> Any:
    import transformers

    auto: Any = transformers.AutoModelForCausalLM
    with torch.device(device):
        return auto.from_config(hf_config(config), dtype=dtype).eval().requires_grad_(False)
