"""ModelConfig: everything that distinguishes one decoder-only transformer from another.

One GPT class (gpt.py) runs every family; what differs is said here as data. ``nanochat`` builds
the architecture of karpathy/nanochat; ``from_hf`` reads a Hugging Face ``config.json`` through
the table of families at the end of the file.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from agentcli.errors import ModelError

NormKind = Literal["plain", "weight", "one_plus_weight"]
MlpKind = Literal["relu2", "silu_gate", "gelu_gate"]
QkNorm = Literal["none", "before_rope", "after_rope"]
ScalingKind = Literal["linear", "llama3", "yarn", "longrope"]

# nanochat calls rms_norm without eps, which means the epsilon of the accumulation dtype.
FLOAT32_EPS = 2.0**-23
# Channels of the residual stream that nanochat's gates read.
SMEAR_CHANNELS = 24
VALUE_GATE_CHANNELS = 12
# The embedding matrices of nanochat have a number of rows that tensor cores like.
VOCAB_MULTIPLE = 64


@dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are stretched beyond the trained context; rope.py has the formulas."""

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
    """Rotary embedding of one kind of layer.

    ``dim`` channels of each head are rotated (even; the rest passes), half-split. ``reverse``
    rotates by -theta, as nanochat does.
    """

    base: float
    dim: int
    scaling: RopeScaling | None = None
    reverse: bool = False


@dataclass(frozen=True)
class ModelConfig:
    """Shape and equations of a GPT.

    ``windows`` has one entry per layer: how many keys before its own position a query sees
    (so ``windows[i] + 1`` keys in all), or None for all of them.
    Raises ModelError when the numbers contradict each other.
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
    # What sliding layers use instead of ``rope`` (Gemma 3); None: the same.
    rope_sliding: RopeConfig | None = None
    # Layers without any rotary embedding (SmolLM 3).
    layers_without_rope: tuple[int, ...] = ()
    vocab_padding: int = 1
    tied: bool = False
    # norms
    norm: NormKind = "weight"
    norm_eps: float = 1e-6
    post_norms: bool = False  # also after attention and MLP, before the residual sum (Gemma)
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
        if self.n_head % self.n_kv_head:
            raise ModelError(
                f"model config: n_head {self.n_head} is no multiple of n_kv_head {self.n_kv_head}"
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
        """Rows of the embedding and of the head; logits are cropped to ``vocab_size``."""
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
        """Every other layer, counted so that the last one has it."""
        return self.value_embeds and layer % 2 == (self.n_layer - 1) % 2

    def rope_of(self, layer: int) -> RopeConfig | None:
        if layer in self.layers_without_rope:
            return None
        return self.rope_sliding if self.rope_sliding and self.windows[layer] else self.rope

    def cache_bytes(self, tokens: int, bytes_per_value: int = 2) -> int:
        """Bytes of keys and values for ``tokens`` positions of one row."""
        return 2 * self.n_layer * tokens * self.kv_dim * bytes_per_value

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; ``from_dict`` reads it back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModelConfig:
        """Raises ModelError for unknown or missing fields."""
        fields = dict(data)
        for name in ("rope", "rope_sliding"):
            if fields.get(name) is not None:
                fields[name] = _rope_from_dict(fields[name])
        for name in ("windows", "layers_without_rope"):
            fields[name] = tuple(fields.get(name, ()))
        return _construct(cls, fields)

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
        """The architecture of karpathy/nanochat (nanochat/gpt.py), with its defaults.

        ``window_pattern`` is tiled over the layers: L sees everything, S a quarter of
        ``sequence_len`` rounded up to 128; the last layer is always L.
        """
        if n_embd % n_head and head_dim is None:
            raise ModelError(f"model config: n_embd {n_embd} is no multiple of n_head {n_head}")
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
            # nanochat multiplies the normed q and k by 1.2 each.
            attention_scale=1.2 * 1.2 * head_dim**-0.5,
            mlp="relu2",
            logit_softcap=15.0,
            smear=True,
            value_embeds=value_embeds,
            residual_scalars=True,
            backout=True,
        )

    @classmethod
    def from_hf(cls, data: Mapping[str, Any]) -> ModelConfig:
        """Reads the contents of a Hugging Face ``config.json``.

        Raises ModelError, naming the family or the field, for what no family here can run.
        """
        # Multimodal folders keep the language model's settings one level down.
        text = {**data, **data.get("text_config", {})}
        model_type = str(text.get("model_type", ""))
        reader = FAMILIES.get(model_type)
        if reader is None:
            known = ", ".join(sorted(FAMILIES))
            raise ModelError(f"unknown model family {model_type!r}; known are {known}")
        try:
            return _construct(cls, {"family": model_type, **reader(text)})
        except KeyError as error:
            raise ModelError(f"config.json of family {model_type}: {error} is missing") from None


def nanochat_windows(pattern: str, n_layer: int, sequence_len: int) -> tuple[int | None, ...]:
    """Windows from a pattern of S and L; None where a window covers the whole context."""
    kinds = pattern.upper()
    if not kinds or set(kinds) - {"S", "L"}:
        raise ModelError(f"window pattern {pattern!r}: only the letters S and L are known")
    short = -(-sequence_len // 4 // 128) * 128  # ceil to the tile of the flash kernels
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


def _construct(cls: type[ModelConfig], fields: Mapping[str, Any]) -> ModelConfig:
    known = {field.name for field in dataclasses.fields(cls)}
    if unknown := sorted(set(fields) - known):
        raise ModelError(f"model config: unknown fields {', '.join(unknown)}")
    try:
        return cls(**fields)
    except TypeError as error:
        raise ModelError(f"model config: {error}") from None


# --- Hugging Face families ---------------------------------------------------------------------
# Each reader turns a config.json into fields of ModelConfig. Settings that a reader does not
# name do not change the equations (dropout, initialisers, token ids).

HfConfig = Mapping[str, Any]

ACTIVATIONS: dict[str, MlpKind] = {
    "silu": "silu_gate",
    "swish": "silu_gate",
    "gelu_pytorch_tanh": "gelu_gate",
    "gelu_new": "gelu_gate",
}


def _llama(hf: HfConfig) -> dict[str, Any]:
    n_head = int(hf["num_attention_heads"])
    head_dim = int(hf.get("head_dim") or hf["hidden_size"] // n_head)
    activation = str(hf.get("hidden_act") or hf.get("hidden_activation") or "silu")
    if activation not in ACTIVATIONS:
        raise ModelError(f"config.json: unknown activation {activation!r}")
    return {
        "vocab_size": int(hf["vocab_size"]),
        "sequence_len": int(hf.get("max_position_embeddings", 2048)),
        "n_layer": int(hf["num_hidden_layers"]),
        "n_head": n_head,
        "n_kv_head": int(hf.get("num_key_value_heads") or n_head),
        "n_embd": int(hf["hidden_size"]),
        "head_dim": head_dim,
        "n_hidden": int(hf["intermediate_size"]),
        "rope": _rope(hf, head_dim),
        "tied": bool(hf.get("tie_word_embeddings", False)),
        "norm_eps": float(hf.get("rms_norm_eps", 1e-6)),
        "qkv_bias": bool(hf.get("attention_bias", False)),
        "out_bias": bool(hf.get("attention_bias", False)),
        "mlp": ACTIVATIONS[activation],
        "mlp_bias": bool(hf.get("mlp_bias", False)),
    }


def _mistral(hf: HfConfig) -> dict[str, Any]:
    return {**_llama(hf), "windows": _windows(hf, ["sliding_attention"] * _layers(hf))}


def _qwen2(hf: HfConfig) -> dict[str, Any]:
    first = int(hf.get("max_window_layers", 28))
    types = ["full_attention" if i < first else "sliding_attention" for i in range(_layers(hf))]
    sliding = bool(hf.get("use_sliding_window", False))
    return {
        **_llama(hf),
        "qkv_bias": True,
        "out_bias": False,
        "windows": _windows(hf, types) if sliding else (),
    }


def _qwen3(hf: HfConfig) -> dict[str, Any]:
    bias = bool(hf.get("attention_bias", False))
    fields = {**_qwen2(hf), "qkv_bias": bias, "out_bias": bias, "qk_norm": "before_rope"}
    if not hf.get("head_dim"):
        # Qwen3's head width is its own setting, 128 unless the file says otherwise.
        fields |= {"head_dim": 128, "rope": _rope(hf, 128)}
    return fields


def _gemma(hf: HfConfig) -> dict[str, Any]:
    head_dim = int(hf.get("head_dim") or 256)
    return {
        **_llama({**hf, "head_dim": head_dim}),
        "mlp": "gelu_gate",  # the files say "gelu"; the models were trained with the tanh form
        "tied": bool(hf.get("tie_word_embeddings", True)),
        "norm": "one_plus_weight",
        "embed_scale": math.sqrt(hf["hidden_size"]),
    }


def _gemma2(hf: HfConfig) -> dict[str, Any]:
    types = [("sliding_attention", "full_attention")[i % 2] for i in range(_layers(hf))]
    return {
        **_gemma(hf),
        "post_norms": True,
        "attention_scale": float(hf.get("query_pre_attn_scalar") or 256) ** -0.5,
        "attention_softcap": float(hf.get("attn_logit_softcapping", 50.0) or 0.0),
        "logit_softcap": float(hf.get("final_logit_softcapping", 30.0) or 0.0),
        "windows": _windows({"sliding_window": 4096, **hf}, types),
    }


def _gemma3(hf: HfConfig) -> dict[str, Any]:
    if hf.get("use_bidirectional_attention"):
        raise ModelError("config.json: an encoder (use_bidirectional_attention) cannot generate")
    head_dim = int(hf.get("head_dim") or 256)
    every = int(hf.get("sliding_window_pattern") or 6)
    types = [
        "full_attention" if (i + 1) % every == 0 else "sliding_attention"
        for i in range(_layers(hf))
    ]
    wide, local = _gemma3_ropes(hf, head_dim)
    return {
        **_gemma2({**hf, "layer_types": hf.get("layer_types") or types}),
        "attention_softcap": float(hf.get("attn_logit_softcapping") or 0.0),
        "logit_softcap": float(hf.get("final_logit_softcapping") or 0.0),
        "qk_norm": "before_rope",
        "rope": wide,
        "rope_sliding": local,
        "sequence_len": int(hf.get("max_position_embeddings", 131_072)),
    }


def _phi3(hf: HfConfig) -> dict[str, Any]:
    settings = hf.get("rope_parameters") or hf.get("rope_scaling")
    if settings and settings.get("rope_type", settings.get("type")) in {"su", "yarn"}:
        # Early Phi-3 files call LongRoPE by these names.
        hf = {**hf, "rope_scaling": {**settings, "rope_type": "longrope"}, "rope_parameters": None}
    fields = _llama(hf)
    return {
        **fields,
        "windows": _windows(hf, ["sliding_attention"] * _layers(hf)),
        "norm_eps": float(hf.get("rms_norm_eps", 1e-5)),
    }


def _smollm3(hf: HfConfig) -> dict[str, Any]:
    every = int(hf.get("no_rope_layer_interval", 4))
    # 1 means "this layer rotates", despite the name.
    rotates = hf.get("no_rope_layers") or [int((i + 1) % every != 0) for i in range(_layers(hf))]
    return {
        **_llama(hf),
        "tied": bool(hf.get("tie_word_embeddings", True)),
        "layers_without_rope": tuple(i for i, on in enumerate(rotates) if not on),
        "windows": _windows(hf, []) if hf.get("use_sliding_window") else (),
    }


def _layers(hf: HfConfig) -> int:
    return int(hf["num_hidden_layers"])


def _windows(hf: HfConfig, default_types: list[str]) -> tuple[int | None, ...]:
    """HF counts the query itself in its window; ModelConfig does not."""
    window = hf.get("sliding_window")
    types = hf.get("layer_types") or default_types
    if not window or not types:
        return ()
    return tuple(int(window) - 1 if kind == "sliding_attention" else None for kind in types)


def _rope(hf: HfConfig, head_dim: int, default_base: float = 10_000.0) -> RopeConfig:
    """Old spelling: rope_theta and rope_scaling. New: rope_parameters holds both."""
    settings = {**(hf.get("rope_scaling") or {}), **(hf.get("rope_parameters") or {})}
    base = settings.get("rope_theta") or hf.get("rope_theta") or default_base
    fraction = settings.get("partial_rotary_factor") or hf.get("partial_rotary_factor") or 1.0
    return RopeConfig(float(base), int(head_dim * fraction), _scaling(hf, settings))


def _gemma3_ropes(hf: HfConfig, head_dim: int) -> tuple[RopeConfig, RopeConfig]:
    """(for full layers, for sliding layers); only the former are ever scaled."""
    new = hf.get("rope_parameters") or {}
    if "full_attention" in new or "sliding_attention" in new:
        wide = {"rope_theta": 1e6, **new.get("full_attention", {})}
        local = {"rope_theta": 1e4, **new.get("sliding_attention", {})}
        bare = {**hf, "rope_scaling": None}
        return (
            _rope({**bare, "rope_parameters": wide}, head_dim),
            _rope({**bare, "rope_parameters": local}, head_dim),
        )
    local_base = float(hf.get("rope_local_base_freq") or 10_000.0)
    return _rope(hf, head_dim, default_base=1e6), RopeConfig(local_base, head_dim)


def _scaling(hf: HfConfig, settings: Mapping[str, Any]) -> RopeScaling | None:
    kind = settings.get("rope_type", settings.get("type", "default"))
    context = int(hf.get("max_position_embeddings", 2048))
    # The place of this number changed over time; Phi-3 keeps it outside the RoPE settings.
    original = (
        settings.get("original_max_position_embeddings")
        or hf.get("original_max_position_embeddings")
        or context
    )
    factor = float(settings.get("factor") or context / original)
    if kind in ("default", None):
        return None
    if kind == "linear":
        return RopeScaling("linear", factor)
    if kind == "llama3":
        return RopeScaling(
            "llama3",
            factor,
            int(original),
            low_freq_factor=float(settings["low_freq_factor"]),
            high_freq_factor=float(settings["high_freq_factor"]),
        )
    attention_factor = settings.get("attention_factor")
    if kind == "yarn":
        return RopeScaling(
            "yarn",
            factor,
            int(original),
            beta_fast=float(settings.get("beta_fast") or 32),
            beta_slow=float(settings.get("beta_slow") or 1),
            truncate=bool(settings.get("truncate", True)),
            mscale=settings.get("mscale"),
            mscale_all_dim=settings.get("mscale_all_dim"),
            attention_factor=attention_factor,
        )
    if kind == "longrope":
        return RopeScaling(
            "longrope",
            factor,
            int(original),
            attention_factor=attention_factor,
            short_factors=tuple(settings["short_factor"]),
            long_factors=tuple(settings["long_factor"]),
        )
    raise ModelError(f"config.json: unknown RoPE scaling {kind!r}")


FAMILIES: dict[str, Callable[[HfConfig], dict[str, Any]]] = {
    "llama": _llama,  # Llama 2 and 3, SmolLM, SmolLM 2 and many more
    "mistral": _mistral,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3_text": _gemma3,
    "gemma3": _gemma3,
    "phi3": _phi3,
    "smollm3": _smollm3,
}
