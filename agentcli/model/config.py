"""ModelConfig: everything that distinguishes one decoder-only transformer from another.

One GPT class (gpt.py) runs every family; this configuration is all that differs. ``nanochat``
returns the architecture of karpathy/nanochat; families.py converts a Hugging Face ``config.json``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from agentcli.errors import ModelError

NormKind = Literal["plain", "weight", "one_plus_weight"]
MlpKind = Literal["relu2", "silu_gate", "gelu_gate"]
QkNorm = Literal["none", "before_rope", "after_rope"]
ScalingKind = Literal["linear", "llama3", "yarn", "longrope"]

# nanochat calls rms_norm without eps, which defaults to the epsilon of the accumulation dtype.
FLOAT32_EPS = 2.0**-23
# Channels of the residual stream that nanochat's gates read.
SMEAR_CHANNELS = 24
VALUE_GATE_CHANNELS = 12
# nanochat pads the rows of its embeddings to a multiple of this, for tensor cores.
VOCAB_MULTIPLE = 64
_LARGEST = 1 << 31  # of each size


@dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are scaled beyond the trained context; rope.py has the formulas."""

    kind: ScalingKind
    factor: float = 1.0
    original_len: int = 0
    # llama3
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    # yarn
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    mscale: float | None = None
    mscale_all_dim: float | None = None
    # yarn and longrope: multiplies cos and sin; None means the formula's own value
    attention_factor: float | None = None
    # longrope: one divisor per rotated pair
    short_factors: tuple[float, ...] = ()
    long_factors: tuple[float, ...] = ()


@dataclass(frozen=True)
class RopeConfig:
    """The rotary embedding of one kind of layer.

    The first ``dim`` channels of each head (an even number) are rotated, half-split; the rest is
    left as it is. ``reverse`` rotates by -theta, like nanochat.
    """

    base: float
    dim: int
    scaling: RopeScaling | None = None
    reverse: bool = False


@dataclass(frozen=True)
class ModelConfig:
    """The shape and equations of a GPT.

    ``windows`` has one entry per layer: the number of keys before its own position that a query
    sees (so ``windows[i] + 1`` keys in all), or None for all of them.

    Raises:
        ModelError: the values are inconsistent.
    """

    vocab_size: int
    sequence_len: int
    n_layer: int
    n_head: int
    n_kv_head: int
    n_embd: int
    head_dim: int
    n_hidden: int
    rope: RopeConfig
    family: str = "nanochat"
    windows: tuple[int | None, ...] = ()
    # Replaces ``rope`` in sliding-window layers (Gemma 3).
    rope_sliding: RopeConfig | None = None
    # Layers without rotary embedding (SmolLM 3).
    layers_without_rope: tuple[int, ...] = ()
    vocab_padding: int = 1
    tied: bool = False
    # norms
    norm: NormKind = "weight"
    norm_eps: float = 1e-6
    post_norms: bool = False  # more norms after attention and MLP, before the residual sum (Gemma)
    embed_norm: bool = False  # a plain norm right after the embedding (nanochat)
    embed_scale: float = 1.0
    # attention
    qkv_bias: bool = False
    out_bias: bool = False
    qk_norm: QkNorm = "none"
    attention_scale: float | None = None  # of q·k; None: head_dim ** -0.5
    attention_softcap: float = 0.0  # 0: none
    # MLP
    mlp: MlpKind = "silu_gate"
    mlp_bias: bool = False
    # head
    logit_softcap: float = 0.0  # 0: none
    # nanochat
    smear: bool = False
    value_embeds: bool = False
    residual_scalars: bool = False
    backout: bool = False

    def __post_init__(self) -> None:
        if not self.windows:
            object.__setattr__(self, "windows", (None,) * self.n_layer)
        sizes = ("vocab_size", "sequence_len", "n_layer", "n_head", "n_kv_head", "n_embd")
        for name in (*sizes, "head_dim", "n_hidden"):
            if getattr(self, name) < 1:
                raise ModelError(f"model config: {name} must be positive")
            if getattr(self, name) > _LARGEST:
                raise ModelError(f"model config: {name} is too large")
        if self.n_head % self.n_kv_head:
            raise ModelError(
                f"model config: n_head {self.n_head} is not a multiple of "
                f"n_kv_head {self.n_kv_head}"
            )
        if len(self.windows) != self.n_layer:
            raise ModelError(f"model config: {len(self.windows)} windows for {self.n_layer} layers")
        for rope in filter(None, (self.rope, self.rope_sliding)):
            if rope.dim % 2 or not 0 < rope.dim <= self.head_dim:
                raise ModelError(
                    f"model config: cannot rotate {rope.dim} of {self.head_dim} channels"
                )
        if self.smear and self.n_embd < SMEAR_CHANNELS:
            raise ModelError(f"model config: smear needs n_embd of {SMEAR_CHANNELS} or more")

    @property
    def padded_vocab_size(self) -> int:
        """The number of rows of embedding and head; logits are cropped to ``vocab_size``."""
        return -(-self.vocab_size // self.vocab_padding) * self.vocab_padding

    @property
    def kv_dim(self) -> int:
        return self.n_kv_head * self.head_dim

    @property
    def softmax_scale(self) -> float:
        return self.head_dim**-0.5 if self.attention_scale is None else self.attention_scale

    @property
    def gated(self) -> bool:
        return self.mlp != "relu2"

    def has_value_embed(self, layer: int) -> bool:
        """Whether a layer has a value embedding: every other layer, including the last."""
        return self.value_embeds and layer % 2 == (self.n_layer - 1) % 2

    def rope_of(self, layer: int) -> RopeConfig | None:
        if layer in self.layers_without_rope:
            return None
        return self.rope_sliding if self.rope_sliding and self.windows[layer] else self.rope

    def cache_bytes(self, tokens: int, bytes_per_value: int = 2) -> int:
        """Return the size of the keys and values of ``tokens`` positions of one row, in bytes."""
        return 2 * self.n_layer * tokens * self.kv_dim * bytes_per_value

    def to_dict(self) -> dict[str, Any]:
        """Return JSON data that ``from_dict`` reads back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModelConfig:
        """Read what ``to_dict`` returned.

        Raises:
            ModelError: fields are unknown or missing.
        """
        fields = dict(data)
        for name in ("rope", "rope_sliding"):
            if fields.get(name) is not None:
                fields[name] = _rope_from_dict(fields[name])
        for name in ("windows", "layers_without_rope"):
            fields[name] = tuple(fields.get(name, ()))
        return cls.from_fields(fields)

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> ModelConfig:
        """Build a configuration from its fields by name.

        Raises:
            ModelError: fields are unknown or missing.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(fields) - known):
            raise ModelError(f"model config: unknown fields {', '.join(unknown)}")
        try:
            return cls(**fields)
        except TypeError as error:
            raise ModelError(f"model config: {error}") from None

    @classmethod
    def nanochat(
        cls,
        *,
        vocab_size: int = 32768,
        sequence_len: int = 2048,
        n_layer: int = 12,
        n_head: int = 6,
        n_kv_head: int | None = None,
        n_embd: int = 768,
        head_dim: int | None = None,
        window_pattern: str = "SSSL",
        value_embeds: bool = True,
        tied: bool = False,
        rope_base: float = 100_000.0,
    ) -> ModelConfig:
        """Return the architecture of karpathy/nanochat (nanochat/gpt.py), with its defaults.

        ``window_pattern`` is tiled over the layers: L is the full context, S a window of a quarter
        of ``sequence_len``, rounded up to 128. The last layer is always L.

        Raises:
            ModelError: the values are inconsistent.
        """
        if n_embd % n_head and head_dim is None:
            raise ModelError(f"model config: n_embd {n_embd} is not a multiple of n_head {n_head}")
        head_dim = head_dim or n_embd // n_head
        return cls(
            family="nanochat",
            vocab_size=vocab_size,
            sequence_len=sequence_len,
            n_layer=n_layer,
            n_head=n_head,
            n_kv_head=n_kv_head or n_head,
            n_embd=n_embd,
            head_dim=head_dim,
            n_hidden=4 * n_embd,
            rope=RopeConfig(rope_base, head_dim, reverse=True),
            windows=nanochat_windows(window_pattern, n_layer, sequence_len),
            vocab_padding=VOCAB_MULTIPLE,
            tied=tied,
            norm="plain",
            norm_eps=FLOAT32_EPS,
            embed_norm=True,
            qk_norm="after_rope",
            # nanochat multiplies q and k by 1.2 each, after their norms.
            attention_scale=1.2 * 1.2 * head_dim**-0.5,
            mlp="relu2",
            logit_softcap=15.0,
            smear=True,
            value_embeds=value_embeds,
            residual_scalars=True,
            backout=True,
        )


def nanochat_windows(pattern: str, n_layer: int, sequence_len: int) -> tuple[int | None, ...]:
    """Return the window of each layer; None if it covers the whole context.

    Raises:
        ModelError: the pattern is empty, or has letters other than S and L.
    """
    kinds = pattern.upper()
    if not kinds or set(kinds) - {"S", "L"}:
        raise ModelError(f"window pattern {pattern!r}: only the letters S and L are known")
    short = -(-sequence_len // 4 // 128) * 128  # rounded up to the tile size of flash kernels
    tiled = [kinds[i % len(kinds)] for i in range(n_layer - 1)] + ["L"]
    return tuple(short if kind == "S" and short < sequence_len else None for kind in tiled)


def _rope_from_dict(data: Mapping[str, Any]) -> RopeConfig:
    fields = dict(data)
    if fields.get("scaling") is not None:
        scaling = dict(fields["scaling"])
        for name in ("short_factors", "long_factors"):
            scaling[name] = tuple(scaling.get(name, ()))
        fields["scaling"] = RopeScaling(**scaling)
    return RopeConfig(**fields)
