"""The families of Hugging Face models: converts each ``config.json`` to a ModelConfig.

Settings that do not change the equations (dropout, initialisers, token ids) are ignored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from agentcli.errors import ModelError
from agentcli.model.config import MlpKind, ModelConfig, RopeConfig, RopeScaling

MOST_LAYERS = 10_000

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
        # Qwen3 does not derive head_dim from the hidden size; its default is 128.
        fields |= {"head_dim": 128, "rope": _rope(hf, 128)}
    return fields


def _gemma(hf: HfConfig) -> dict[str, Any]:
    head_dim = int(hf.get("head_dim") or 256)
    # Files may say "gelu", but the models were trained with the tanh form.
    return {
        **_llama({**hf, "head_dim": head_dim, "hidden_act": "gelu_pytorch_tanh"}),
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
        "windows": _windows(hf, types),
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
    }


def _phi3(hf: HfConfig) -> dict[str, Any]:
    settings = hf.get("rope_parameters") or hf.get("rope_scaling")
    if settings and settings.get("rope_type", settings.get("type")) in {"su", "yarn"}:
        # Early Phi-3 files use these names for LongRoPE.
        hf = {**hf, "rope_scaling": {**settings, "rope_type": "longrope"}, "rope_parameters": None}
    fields = _llama(hf)
    return {
        **fields,
        "windows": _windows(hf, ["sliding_attention"] * _layers(hf)),
        "norm_eps": float(hf.get("rms_norm_eps", 1e-5)),
    }


def _smollm3(hf: HfConfig) -> dict[str, Any]:
    every = int(hf.get("no_rope_layer_interval", 4))
    # Despite the setting's name, 1 means that the layer has RoPE.
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
    """Return the windows: Hugging Face's include the query itself, ModelConfig's do not."""
    window = hf.get("sliding_window")
    types = hf.get("layer_types") or default_types
    if not window or not types:
        return ()
    return tuple(int(window) - 1 if kind == "sliding_attention" else None for kind in types)


def _rope(hf: HfConfig, head_dim: int, default_base: float = 10_000.0) -> RopeConfig:
    """Read the RoPE settings: old files have rope_theta and rope_scaling, new rope_parameters."""
    settings = {**(hf.get("rope_scaling") or {}), **(hf.get("rope_parameters") or {})}
    base = settings.get("rope_theta") or hf.get("rope_theta") or default_base
    fraction = settings.get("partial_rotary_factor") or hf.get("partial_rotary_factor") or 1.0
    return RopeConfig(float(base), int(head_dim * fraction), _scaling(hf, settings))


def _gemma3_ropes(hf: HfConfig, head_dim: int) -> tuple[RopeConfig, RopeConfig]:
    """Return the RoPE of full and of sliding layers; old files scale only the former."""
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
    # This setting has moved over time; Phi-3 has it outside the RoPE settings.
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

# What transformers takes where a file leaves a setting out. Gemma 3's files have little more than
# what differs from this.
DEFAULTS: dict[str, HfConfig] = {
    "mistral": {
        "num_key_value_heads": 8,
        "max_position_embeddings": 131_072,
        "sliding_window": 4096,
    },
    "qwen2": {"max_position_embeddings": 32_768},
    "qwen3": {"max_position_embeddings": 32_768},
    "gemma": {"max_position_embeddings": 8192},
    "gemma2": {"num_key_value_heads": 4, "max_position_embeddings": 8192, "sliding_window": 4096},
    "gemma3_text": {
        "vocab_size": 262_208,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "max_position_embeddings": 131_072,
        "sliding_window": 4096,
    },
    "phi3": {"max_position_embeddings": 4096},
    "smollm3": {"num_key_value_heads": 4, "max_position_embeddings": 32_768, "rope_theta": 2e6},
}


def config_from_hf(data: Mapping[str, Any]) -> ModelConfig:
    """Convert the content of a Hugging Face ``config.json``.

    Raises:
        ModelError: the family or a setting, named in the message, is not supported.
    """
    # Multimodal models nest the language model's settings.
    nested = data.get("text_config")
    text = {**data, **(nested if isinstance(nested, Mapping) else {})}
    model_type = str(text.get("model_type") or "")
    reader = FAMILIES.get(model_type)
    if reader is None:
        known = ", ".join(sorted(FAMILIES))
        what = f"unknown model family {model_type!r}" if model_type else "model_type is missing"
        raise ModelError(f"config.json: {what}; known families are {known}")
    try:
        if (layers := int(text.get("num_hidden_layers", 0))) > MOST_LAYERS:
            raise ModelError(f"config.json: {layers} layers; at most {MOST_LAYERS} are supported")
        settings = {**DEFAULTS.get(model_type, {}), **text}
        return ModelConfig.from_fields({"family": model_type, **reader(settings)})
    except KeyError as error:
        raise ModelError(f"config.json of family {model_type}: {error} is missing") from None
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise ModelError(f"config.json of family {model_type}: a wrong value ({error})") from None
