"""Computes a model's parameters and memory from its configuration alone."""

from __future__ import annotations

from dataclasses import dataclass

from agentcli.model.config import SMEAR_CHANNELS, VALUE_GATE_CHANNELS, ModelConfig

# Bytes per parameter. int4 has a scale and a zero (2 bytes each) for every 32 inputs; the scale per
# row of int8 is negligible.
_WIDTH = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "int8": 1.0, "int4": 0.5 + 4 / 32}
FORMATS = ("float32", "bfloat16", "int8", "int4")


@dataclass(frozen=True, slots=True)
class Parameters:
    """A model's parameters by their use.

    Attributes:
        embedding: Embeddings, whose rows are looked up.
        matrices: Matrices of the blocks.
        head: The head; 0 if it is tied to the embedding.
        rest: Biases, norms, gates and scalars.
    """

    embedding: int
    matrices: int
    head: int
    rest: int

    @property
    def total(self) -> int:
        return self.embedding + self.matrices + self.head + self.rest


def parameters(config: ModelConfig) -> Parameters:
    """Count the parameters of a model."""
    c, layers = config.n_embd, config.n_layer
    q, kv = config.n_head * config.head_dim, config.kv_dim
    mlp = (3 if config.gated else 2) * c * config.n_hidden
    matrices = layers * (c * (q + 2 * kv) + q * c + mlp)
    rest = 0
    if config.qkv_bias:
        rest += layers * (q + 2 * kv)
    if config.out_bias:
        rest += layers * c
    if config.mlp_bias:
        rest += layers * ((2 if config.gated else 1) * config.n_hidden + c)
    if config.norm != "plain":
        rest += c + layers * c * (4 if config.post_norms else 2)
        rest += layers * 2 * config.head_dim if config.qk_norm != "none" else 0
    vocab = config.padded_vocab_size
    embedding = vocab * c
    for layer in range(layers):
        if config.has_value_embed(layer):
            embedding += vocab * kv
            rest += VALUE_GATE_CHANNELS * config.n_kv_head
    rest += SMEAR_CHANNELS + 1 if config.smear else 0
    rest += 2 * layers if config.residual_scalars else 0
    rest += 1 if config.backout else 0
    return Parameters(embedding, matrices, 0 if config.tied else vocab * c, rest)


def weight_bytes(config: ModelConfig, form: str) -> int:
    """Return the size of the weights in one of ``FORMATS``, in bytes.

    If matrices are quantised, the rest is bfloat16, and the head is int8: a copy if it is tied.
    """
    count = parameters(config)
    if form not in ("int8", "int4"):
        return round(count.total * _WIDTH[form])
    head = (count.head or config.padded_vocab_size * config.n_embd) * _WIDTH["int8"]
    narrow = count.matrices * _WIDTH[form]
    return round(narrow + head + (count.embedding + count.rest) * _WIDTH["bfloat16"])
