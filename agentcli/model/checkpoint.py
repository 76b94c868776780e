"""Checkpoints: loads a LoadedModel from files, and saves a GPT.

Three kinds of folder can be loaded: Hugging Face (``config.json`` and safetensors, in one file or
sharded), nanochat (``model_*.pt`` and ``meta_*.json``, loaded with weights_only) and agentcli's own
(``config.json`` with a ModelConfig, ``model.safetensors`` with nanochat's names).

Tensors are memory-mapped and copied into the parameters in the target dtype and on the target
device. Copied pages are released, so that the peak memory stays near the size of the weights.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from agentcli.errors import CheckpointError, ModelError
from agentcli.model.config import ModelConfig
from agentcli.model.folder import INT8_ROWS, OWN_TYPE, ModelFolder, open_folder
from agentcli.model.gpt import GPT, Attention
from agentcli.model.pack import pack_model, suited_dtype
from agentcli.model.quantize import Scheme, quantize_model
from agentcli.model.rope import Rotary
from agentcli.model.tensor_file import expand_rows, read_safetensors, write_safetensors
from agentcli.model.tokenizer import Tokenizer


@dataclass
class LoadedModel:
    """A model with all that is needed to generate with it.

    Attributes:
        model: The model, in evaluation mode.
        tokenizer: Its tokenizer.
        family: The model family.
        path: The folder it was loaded from.
        chat_template: The Jinja chat template, if the files have one.
        stop_ids: The tokens that end an answer.
        generation: The content of generation_config.json; empty if there is none.
        quantize: How the matrices are stored: "int8", "int4", or "" for the model's dtype.
    """

    model: GPT
    tokenizer: Tokenizer
    family: str
    path: Path
    chat_template: str | None = None
    stop_ids: frozenset[int] = frozenset()
    generation: dict[str, Any] = field(default_factory=dict)
    quantize: Scheme | Literal[""] = ""


def load_model(
    path: str | Path,
    *,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str = "cpu",
    quantize: Scheme | None = None,
    context: int | None = None,
    fused: bool = True,
    pack: bool = True,
) -> LoadedModel:
    """Load a model folder (or a nanochat ``model_*.pt``) for inference.

    Args:
        path: The folder or file.
        dtype: One of torch's floating-point types or its name; None keeps the stored one; "auto"
            uses float32 where half precision is slow.
        device: The device for the weights.
        quantize: Store the matrices in 8 or 4 bits.
        context: Override the maximum number of positions.
        fused: Join matrices that read the same input.
        pack: Convert matrices to the CPU's preferred layout where that is faster. A packed model
            cannot be saved.

    Raises:
        CheckpointError: a file or tensor, named in the message, is missing, damaged, unsafe or has
            the wrong shape.
        ModelError: the model is not supported.
    """
    dtype = _known_dtype(dtype)
    folder = open_folder(path, context=context)
    load = _load_nanochat if folder.kind == "nanochat" else _load_safetensors
    tokenizer = folder.load_tokenizer()
    loaded = LoadedModel(
        load(folder, dtype, device, fused),
        tokenizer,
        folder.family,
        folder.path,
        folder.chat_template,
        folder.stop_ids(tokenizer),
        dict(folder.generation),
        quantize or "",
    )
    if quantize is not None:
        quantize_model(loaded.model, quantize)
    elif pack:
        pack_model(loaded.model)
    return loaded


def _known_dtype(dtype: torch.dtype | str | None) -> torch.dtype | Literal["auto"] | None:
    if dtype is None or dtype == "auto":
        return dtype  # type: ignore[return-value]
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ModelError(f"{dtype} is not a floating-point type", hint='Use "bfloat16" or "auto"')
    return found


def save_model(
    model: GPT, folder: str | Path, tokenizer: Tokenizer | None = None, *, chat_template: str = ""
) -> None:
    """Write a folder in agentcli's own format: config.json, model.safetensors and the tokenizer.

    Fused matrices are written separately, under nanochat's names.

    Raises:
        ModelError: the model is quantised or packed.
    """
    tensors = destinations(model)
    if not any(name.endswith(".mlp.c_proj.weight") for name in tensors):
        raise ModelError("a quantised or packed model cannot be saved")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weight = model.embedding_weight
    config = {
        "model_type": OWN_TYPE,
        "dtype": str(weight.dtype).removeprefix("torch."),
        "model": model.config.to_dict(),
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    write_safetensors(folder / "model.safetensors", tensors)
    if tokenizer is not None:
        tokenizer.save(folder)
    if chat_template:
        (folder / "chat_template.jinja").write_text(chat_template, encoding="utf-8")


# --- folders with a config.json ----------------------------------------------------------------


def _load_safetensors(
    folder: ModelFolder,
    dtype: torch.dtype | Literal["auto"] | None,
    device: torch.device | str,
    fused: bool,
) -> GPT:
    data, config = folder.data, folder.config
    model = _empty_model(config, _target_dtype(dtype, _dtype_of(data), device), device, fused)
    tensors: Iterable[tuple[str, Tensor]]
    tensors = chain.from_iterable(map(read_safetensors, folder.weights))
    if data.get("storage") == INT8_ROWS:
        tensors = expand_rows(tensors)
    fill(model, tensors, None if folder.kind == "own" else hf_names(config))
    return model


def stored_in_int8(path: str | Path) -> bool:
    """Whether a folder stores its matrices in 8 bits.

    Raises:
        CheckpointError, ModelError: as for ``load_model``.
    """
    return open_folder(path).data.get("storage") == INT8_ROWS


def _dtype_of(data: Mapping[str, Any]) -> torch.dtype:
    """Return the dtype named in config.json, under its new or old key; bfloat16 by default."""
    text = {**data, **(data.get("text_config") or {})}
    name = str(text.get("dtype") or text.get("torch_dtype") or "bfloat16")
    dtype = getattr(torch, name.removeprefix("torch."), None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise CheckpointError(f"config.json: unknown dtype {name!r}")
    return dtype


def _target_dtype(
    dtype: torch.dtype | Literal["auto"] | None, stored: torch.dtype, device: torch.device | str
) -> torch.dtype:
    return suited_dtype(device, stored) if dtype == "auto" else dtype or stored


# --- names -------------------------------------------------------------------------------------

_HF_TOP = {
    "model.embed_tokens.weight": "transformer.wte.weight",
    "model.norm.weight": "final_norm.weight",
    "lm_head.weight": "lm_head.weight",
}
_HF_LAYER = {
    "input_layernorm": ("attn_norm",),
    "post_attention_layernorm": ("mlp_norm",),
    "self_attn.q_proj": ("attn.c_q",),
    "self_attn.k_proj": ("attn.c_k",),
    "self_attn.v_proj": ("attn.c_v",),
    "self_attn.qkv_proj": ("attn.c_q", "attn.c_k", "attn.c_v"),
    "self_attn.o_proj": ("attn.c_proj",),
    "self_attn.q_norm": ("attn.q_norm",),
    "self_attn.k_norm": ("attn.k_norm",),
    "mlp.gate_proj": ("mlp.c_gate",),
    "mlp.up_proj": ("mlp.c_fc",),
    "mlp.gate_up_proj": ("mlp.c_gate", "mlp.c_fc"),
    "mlp.down_proj": ("mlp.c_proj",),
}
# In models with norms before and after each part (Gemma 2 and 3), one name means another norm.
_HF_POST_NORMS = {
    "post_attention_layernorm": ("attn_post_norm",),
    "pre_feedforward_layernorm": ("mlp_norm",),
    "post_feedforward_layernorm": ("mlp_post_norm",),
}
_ROWS = 4096  # compared at a time
# Buffers in old files, and the other modalities of multimodal models.
_IGNORED = re.compile(
    r"(.*\.)?rotary_emb\.inv_freq$|(model\.)?(vision_tower|vision_model|multi_modal_projector)\."
)

Names = Mapping[str, tuple[str, ...]]


def hf_names(config: ModelConfig) -> Names:
    """Map Hugging Face's tensor names to ours; several if the file stacks matrices by rows."""
    names: dict[str, tuple[str, ...]] = {theirs: (ours,) for theirs, ours in _HF_TOP.items()}
    layer = _HF_LAYER | (_HF_POST_NORMS if config.post_norms else {})
    for i in range(config.n_layer):
        for theirs, ours in layer.items():
            for kind in ("weight", "bias"):
                targets = tuple(f"transformer.h.{i}.{name}.{kind}" for name in ours)
                names[f"model.layers.{i}.{theirs}.{kind}"] = targets
    return names


def _plain_name(name: str) -> str:
    """Remove the prefixes added by torch.compile and by multimodal models."""
    name = name.removeprefix("_orig_mod.")
    for prefix in ("model.language_model.", "language_model.model."):
        if name.startswith(prefix):
            return "model." + name.removeprefix(prefix)
    return name.removeprefix("language_model.")


def destinations(model: GPT) -> dict[str, Tensor]:
    """Map our tensor names to the parameters, or to the rows of a fused parameter."""
    found: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        data = parameter.detach()
        if ".c_qkv." in name:
            block = model.get_submodule(name.rsplit(".", 2)[0])
            assert isinstance(block, Attention)
            parts = torch.split(data, block.widths)
            for part, rows in zip(("c_q", "c_k", "c_v"), parts, strict=True):
                found[name.replace("c_qkv", part)] = rows
        elif ".c_gate_fc." in name:
            for part, rows in zip(("c_gate", "c_fc"), data.chunk(2), strict=True):
                found[name.replace("c_gate_fc", part)] = rows
        else:
            found[name] = data
    return found


def fill(model: GPT, tensors: Iterable[tuple[str, Tensor]], names: Names | None = None) -> None:
    """Copy ``tensors`` into the model, converting their dtype.

    ``names`` maps the file's tensor names to ours; None if the file uses ours.

    Raises:
        CheckpointError: tensors are missing, unknown or have the wrong shape; the message lists
            them.
    """
    targets = destinations(model)
    missing, faults = set(targets), []
    tied = _Tied(model.embedding_weight.detach())
    for raw_name, tensor in tensors:
        name = _plain_name(raw_name)
        if _IGNORED.match(raw_name):
            continue
        if name == "lm_head.weight" and model.config.tied:
            tied.head(tensor)
            continue
        ours = (name,) if names is None else names.get(name, ())
        if not ours or any(target not in targets for target in ours):
            faults.append(f"{raw_name} is unknown to this model")
            continue
        rows = sum(targets[target].shape[0] for target in ours)
        expected = (rows, *targets[ours[0]].shape[1:])
        if tuple(tensor.shape) != expected:
            faults.append(f"{raw_name} has shape {tuple(tensor.shape)}, expected {expected}")
            missing.difference_update(ours)
            continue
        pieces = torch.split(tensor, [targets[target].shape[0] for target in ours])
        for target, piece in zip(ours, pieces, strict=True):
            if targets[target].data_ptr() == tied.embedding.data_ptr():
                tied.embed(piece)
            targets[target].copy_(piece)
        missing.difference_update(ours)
    theirs = {ours[0]: name for name, ours in (names or {}).items() if len(ours) == 1}
    faults += [f"{theirs.get(name, name)} is missing" for name in sorted(missing)]
    if tied.differ:
        faults.append(
            "lm_head.weight is not the embedding, although config.json says tie_word_embeddings; "
            "set that to false"
        )
    if faults:
        more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise CheckpointError(f"weights do not fit: {'; '.join(faults[:5])}{more}")


class _Tied:
    """Compares the head of a file with the embedding that it is tied to, in either order."""

    def __init__(self, embedding: Tensor) -> None:
        self.embedding = embedding
        self.differ = False
        self._seen = ""

    def head(self, tensor: Tensor) -> None:
        if self._seen or tensor.shape != self.embedding.shape:
            self._compare(tensor)
        else:
            self.embedding.copy_(tensor)  # until the embedding itself comes, so as not to copy it
            self._seen = "head"

    def embed(self, tensor: Tensor) -> None:
        if self._seen:
            self._compare(tensor)
        self._seen = "embedding"

    def _compare(self, tensor: Tensor) -> None:
        rows = zip(torch.split(self.embedding, _ROWS), torch.split(tensor, _ROWS), strict=False)
        self.differ = tensor.shape != self.embedding.shape or not all(
            torch.equal(ours, theirs.to(ours)) for ours, theirs in rows
        )


def _empty_model(
    config: ModelConfig, dtype: torch.dtype, device: torch.device | str, fused: bool
) -> GPT:
    """Return a model with allocated, uninitialised parameters.

    Raises:
        ModelError: there is not enough memory.
    """
    with torch.device("meta"):
        model = GPT(config, fused=fused)
    try:
        # Like ``to_empty``, which would load torch's compiler and sympy.
        for module in model.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                empty = torch.empty(parameter.shape, dtype=dtype, device=device)
                module.register_parameter(name, nn.Parameter(empty, requires_grad=False))
    except (RuntimeError, MemoryError) as error:
        total = model.count_parameters()["total"] * dtype.itemsize / 1e9
        raise ModelError(f"no room for {total:.1f} GB of weights on {device}: {error}") from None
    for rotary in model.rotaries:
        assert isinstance(rotary, Rotary)
        rotary.to(device)
    return model.eval()


# --- nanochat ----------------------------------------------------------------------------------


def _load_nanochat(
    folder: ModelFolder,
    dtype: torch.dtype | Literal["auto"] | None,
    device: torch.device | str,
    fused: bool,
) -> GPT:
    (file,) = folder.weights
    try:
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except OSError as error:
        raise CheckpointError(f"{file}: {error.strerror or error}") from None
    except Exception as error:  # a damaged or hostile file may raise anything
        reason = str(error).splitlines()[0] if str(error) else repr(error)
        raise CheckpointError(f"{file}: damaged, or unsafe to load ({reason})") from None
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise CheckpointError(f"{file}: holds no tensors by name")
    state = {_plain_name(name): tensor for name, tensor in state.items()}
    config = _fit_old_files(folder.config, state)
    stored = state.get("transformer.wte.weight", torch.empty(0, dtype=torch.bfloat16))
    model = _empty_model(config, _target_dtype(dtype, stored.dtype, device), device, fused)
    fill(model, state.items())
    return model


def _fit_old_files(config: ModelConfig, state: dict[str, Tensor]) -> ModelConfig:
    """Adapt to older files: add neutral scalars for absent ones, and drop absent features."""
    neutral = {
        "resid_lambdas": torch.ones(config.n_layer),
        "x0_lambdas": torch.zeros(config.n_layer),
        "backout_lambda": torch.zeros(1),
    }
    for name, value in neutral.items():
        state.setdefault(name, value)
    has_smear = "smear_gate.weight" in state
    has_values = any(name.startswith("value_embeds.") for name in state)
    return replace(config, smear=has_smear, value_embeds=has_values)
