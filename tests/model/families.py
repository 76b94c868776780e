"""Tiny random models of every family, made with transformers, which serves as the oracle."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from tokenizers import decoders, models, pre_tokenizers
from torch import Tensor

VOCAB = 320
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@dataclass(frozen=True)
class Case:
    """A model. ``settings`` go to transformers' config; ``rewrite`` then changes config.json."""

    name: str
    kind: str
    settings: dict[str, Any] = field(default_factory=dict)
    drop: tuple[str, ...] = ()
    rewrite: dict[str, Any] = field(default_factory=dict)

    def config(self) -> Any:
        base = {
            "vocab_size": VOCAB,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 256,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "tie_word_embeddings": False,
        }
        cls = getattr(transformers, f"{self.kind}Config")
        return cls(**{**base, **self.settings})


def _old_llama3() -> dict[str, Any]:
    scaling = {key: value for key, value in LLAMA3_ROPE.items() if key != "rope_theta"}
    return {"rope_theta": 10000.0, "rope_scaling": scaling}


CASES = [
    Case("llama2_mha", "Llama", {"num_key_value_heads": 4}),
    Case("llama_mqa_tied_biases", "Llama", {
        "num_key_value_heads": 1, "tie_word_embeddings": True,
        "attention_bias": True, "mlp_bias": True,
    }),
    Case("llama3_scaled", "Llama", {"rope_parameters": LLAMA3_ROPE}),
    Case("llama3_old_spelling", "Llama", {"rope_parameters": LLAMA3_ROPE},
         drop=("rope_parameters",), rewrite=_old_llama3()),
    Case("llama_linear", "Llama", {
        "head_dim": 24,
        "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5000.0},
    }),
    Case("smollm_odd_heads", "Llama", {
        "hidden_size": 72, "num_attention_heads": 9, "num_key_value_heads": 3,
        "tie_word_embeddings": True,
    }),
    Case("mistral_window", "Mistral", {"sliding_window": 7, "head_dim": 32}),
    Case("mistral_full", "Mistral", {"sliding_window": None}),
    Case("qwen2", "Qwen2", {"tie_word_embeddings": True}),
    Case("qwen2_window", "Qwen2", {
        "use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1,
    }),
    Case("qwen2_yarn", "Qwen2", {"rope_parameters": {
        "rope_type": "yarn", "factor": 4.0, "rope_theta": 10000.0,
        "original_max_position_embeddings": 64,
    }}),
    Case("qwen3", "Qwen3", {"head_dim": 32}),
    Case("qwen3_bias", "Qwen3", {"head_dim": 16, "attention_bias": True}),
    Case("gemma", "Gemma", {"head_dim": 32, "tie_word_embeddings": True},
         rewrite={"hidden_act": "gelu"}),  # as in the first files
    Case("gemma2", "Gemma2", {
        "head_dim": 32, "sliding_window": 8, "query_pre_attn_scalar": 24,
        "attn_logit_softcapping": 3.0, "final_logit_softcapping": 5.0,
        "tie_word_embeddings": True,
    }),
    Case("gemma3", "Gemma3Text", {
        "head_dim": 32, "sliding_window": 8, "query_pre_attn_scalar": 24,
        "tie_word_embeddings": True, "num_hidden_layers": 7,
    }),
    Case("gemma3_linear", "Gemma3Text", {
        "head_dim": 32, "sliding_window": 8, "tie_word_embeddings": True,
        "sliding_window_pattern": 2,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
    }),
    Case("gemma3_old_spelling", "Gemma3Text", {
        "head_dim": 32, "sliding_window": 8, "tie_word_embeddings": True,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e5},
            "sliding_attention": {"rope_type": "default", "rope_theta": 500.0},
        },
    }, drop=("rope_parameters",), rewrite={
        "rope_theta": 1e5, "rope_local_base_freq": 500.0,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    }),
    Case("phi3", "Phi3", {"sliding_window": 11}),
    Case("phi3_partial", "Phi3", {"rope_parameters": {
        "rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5,
    }}),
    Case("phi3_longrope", "Phi3", {
        "original_max_position_embeddings": 512,
        "max_position_embeddings": 256,
        "rope_parameters": {
            "rope_type": "longrope", "rope_theta": 1e4, "attention_factor": 1.1,
            "short_factor": [1.0 + i / 8 for i in range(8)],
            "long_factor": [2.0 + i for i in range(8)],
        },
    }),
    Case("smollm3_nope", "SmolLM3", {"no_rope_layers": [1, 0, 1], "tie_word_embeddings": True}),
]  # fmt: skip


def make_oracle(case: Case, seed: int = 0) -> Any:
    """A transformers model with weights large enough for every term to matter."""
    torch.manual_seed(seed)
    auto: Any = transformers.AutoModelForCausalLM
    model = auto.from_config(case.config(), attn_implementation="eager", dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread = 0.3 if "norm" in name or "bias" in name else 0.15
            noise = torch.randn(parameter.shape) * spread
            parameter.copy_(parameter + noise if "norm" in name else noise)
    return model.eval()


def save_oracle(case: Case, model: Any, folder: Path, **options: Any) -> None:
    """Save a model as a Hugging Face folder with a byte-level tokenizer."""
    model.save_pretrained(folder, **options)
    file = folder / "config.json"
    config = json.loads(file.read_text())
    for key in case.drop:
        config.pop(key, None)
    file.write_text(json.dumps({**config, **case.rewrite}))
    save_tokenizer(folder)


def save_tokenizer(folder: Path) -> None:
    """Save a tokenizer: ids 0 to 2 are special, then the 256 bytes, then a few merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<pad>", "<s>", "</s>"]
    vocab = {token: i for i, token in enumerate([*special, *alphabet])}
    merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("Ġ", "w")]
    for left, right in merges:
        vocab[left + right] = len(vocab)
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "chat_template": "{{ 1 }}"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def random_tokens(batch: int, length: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCAB, (batch, length), generator=generator)


def near(actual: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=tolerance)
