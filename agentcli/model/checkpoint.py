"""Checkpoints: files on disk to a LoadedModel, and a GPT back to files.

Three kinds of folder are read: Hugging Face (``config.json`` and safetensors, one file or
sharded), nanochat (``model_*.pt`` and ``meta_*.json``, loaded with weights_only) and agentcli's own
(``config.json`` with a ModelConfig, ``model.safetensors`` under nanochat's names).

Tensors are memory-mapped and copied straight into the parameters in the target dtype, on the
target device; pages already copied are given back, so the peak stays near the weights' own size.
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
from torch import Tensor

from agentcli.errors import CheckpointError, ModelError
from agentcli.model.config import ModelConfig
from agentcli.model.gpt import GPT, Attention
from agentcli.model.pack import pack_model, suited_dtype
from agentcli.model.quantize import Scheme, quantize_model
from agentcli.model.rope import Rotary
from agentcli.model.tensor_file import expand_rows, read_safetensors, write_safetensors
from agentcli.model.tokenizer import Tokenizer, load_tokenizer, read_json

# model_type of agentcli's own config.json.
OWN_TYPE = "agentcli"
# Its ``storage`` where matrices are int8 with a scale a row; they are expanded while they load.
INT8_ROWS = "int8 rows"


@dataclass
class LoadedModel:
    """A model with what is needed to talk to it.

    ``stop_ids`` end an answer; ``generation`` is generation_config.json, or empty;
    ``chat_template`` is Jinja, None where the files have none.
    """

    model: GPT
    tokenizer: Tokenizer
    family: str
    path: Path
    chat_template: str | None = None
    stop_ids: frozenset[int] = frozenset()
    generation: dict[str, Any] = field(default_factory=dict)


def load_model(
    path: str | Path,
    *,
    dtype: torch.dtype | Literal["auto"] | None = None,
    device: torch.device | str = "cpu",
    quantize: Scheme | None = None,
    context: int | None = None,
    fused: bool = True,
    pack: bool = True,
) -> LoadedModel:
    """Loads a model folder (or a nanochat ``model_*.pt``) for inference.

    ``dtype`` None keeps the files' own, "auto" takes float32 where half precision is slow;
    ``quantize`` stores the matrices in 8 or 4 bits;
    ``context`` changes the number of positions allowed; ``fused`` joins matrices that read the
    same input; ``pack`` puts them into the processor's layout where that is faster (such a model
    cannot be saved). Raises CheckpointError for missing, damaged, unsafe or misshapen files, naming
    the file or tensor, and ModelError for models that cannot be run.
    """
    folder = Path(path).expanduser()
    if not folder.exists():
        raise CheckpointError(f"{folder}: no such file or folder")
    if (folder / "config.json").exists():
        loaded = _load_folder(folder, dtype, device, context, fused)
    else:
        loaded = _load_nanochat(folder, dtype, device, context, fused)
    if quantize is not None:
        quantize_model(loaded.model, quantize)
    elif pack:
        pack_model(loaded.model)
    return loaded


def read_config(path: str | Path) -> ModelConfig:
    """The configuration of a model folder, without its weights."""
    folder = Path(path).expanduser()
    if (folder / "config.json").exists():
        return _config_of(read_json(folder / "config.json"))
    return _nanochat_config(read_json(_meta_of(_nanochat_file(folder))))


def save_model(
    model: GPT, folder: str | Path, tokenizer: Tokenizer | None = None, *, chat_template: str = ""
) -> None:
    """Writes agentcli's own format: config.json, model.safetensors and the tokenizer.

    Matrices are written one by one under nanochat's names, however the model holds them.
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


def _load_folder(
    folder: Path,
    dtype: torch.dtype | Literal["auto"] | None,
    device: torch.device | str,
    context: int | None,
    fused: bool,
) -> LoadedModel:
    data = read_json(folder / "config.json")
    config = _with_context(_config_of(data), context)
    tokenizer = load_tokenizer(folder)
    files = _weight_files(folder)
    model = _empty_model(config, _wanted(dtype, _dtype_of(data), device), device, fused)
    own = data.get("model_type") == OWN_TYPE
    tensors: Iterable[tuple[str, Tensor]] = chain.from_iterable(map(read_safetensors, files))
    if data.get("storage") == INT8_ROWS:
        tensors = expand_rows(tensors)
    fill(model, tensors, None if own else hf_names(config))
    generation_file = folder / "generation_config.json"
    generation = read_json(generation_file) if generation_file.exists() else {}
    family = config.family
    return LoadedModel(
        model,
        tokenizer,
        family,
        folder,
        _chat_template(folder),
        _stop_ids(tokenizer, data, generation, family),
        generation,
    )


def _config_of(data: Mapping[str, Any]) -> ModelConfig:
    if data.get("model_type") == OWN_TYPE:
        return ModelConfig.from_dict(data["model"])
    return ModelConfig.from_hf(data)


def _dtype_of(data: Mapping[str, Any]) -> torch.dtype:
    """The dtype that config.json names, under its old or new key; bfloat16 if it is silent."""
    text = {**data, **data.get("text_config", {})}
    name = str(text.get("dtype") or text.get("torch_dtype") or "bfloat16")
    dtype = getattr(torch, name.removeprefix("torch."), None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise CheckpointError(f"config.json: unknown dtype {name!r}")
    return dtype


def _wanted(
    dtype: torch.dtype | Literal["auto"] | None, stored: torch.dtype, device: torch.device | str
) -> torch.dtype:
    return suited_dtype(device, stored) if dtype == "auto" else dtype or stored


def _with_context(config: ModelConfig, context: int | None) -> ModelConfig:
    if context is None:
        return config
    if context < 1:
        raise ModelError(f"a context of {context} tokens is not possible")
    return replace(config, sequence_len=context)


def _weight_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.exists():
        names = sorted(set(read_json(index).get("weight_map", {}).values()))
        # A name is a file of this folder, whatever an index claims.
        if any(Path(name).name != name for name in names):
            raise CheckpointError(f"{index}: names files outside the folder")
        files = [folder / name for name in names]
    else:
        files = sorted(folder.glob("*.safetensors"))
    missing = [file.name for file in files if not file.exists()]
    if missing:
        raise CheckpointError(f"{folder}: {', '.join(missing)} is missing")
    if not files:
        raise CheckpointError(
            f"{folder}: no safetensors files", hint="pickled .bin weights are not loaded"
        )
    return files


def _chat_template(folder: Path) -> str | None:
    """A file of its own in newer folders, a setting of the tokenizer in older ones."""
    for name in ("chat_template.jinja", "chat_template.json"):
        file = folder / name
        if file.exists():
            text = file.read_text(encoding="utf-8")
            return text if file.suffix == ".jinja" else json.loads(text).get("chat_template")
    settings = folder / "tokenizer_config.json"
    template = read_json(settings).get("chat_template") if settings.exists() else None
    if isinstance(template, list):  # several, by name
        named = {entry.get("name"): entry.get("template") for entry in template}
        template = named.get("tool_use") or named.get("default")
    return template


def _stop_ids(
    tokenizer: Tokenizer, data: Mapping[str, Any], generation: Mapping[str, Any], family: str
) -> frozenset[int]:
    stops: set[int] = set()
    for value in (generation.get("eos_token_id"), data.get("eos_token_id"), tokenizer.eos_id):
        stops.update(value if isinstance(value, list) else [value] if value is not None else [])
    if family == "nanochat" and tokenizer.bos_id is not None:
        stops.add(tokenizer.bos_id)  # a new document begins
    return frozenset(stops)


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
# With norms on both sides (Gemma 2 and 3), one name means another norm.
_HF_POST_NORMS = {
    "post_attention_layernorm": ("attn_post_norm",),
    "pre_feedforward_layernorm": ("mlp_norm",),
    "post_feedforward_layernorm": ("mlp_post_norm",),
}
# Buffers that old files carry, and the other modalities of a multimodal model.
_IGNORED = re.compile(
    r"(.*\.)?rotary_emb\.inv_freq$|(model\.)?(vision_tower|vision_model|multi_modal_projector)\."
)
_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)\.(weight|bias)$")

Names = Mapping[str, tuple[str, ...]]


def hf_names(config: ModelConfig) -> Names:
    """Hugging Face tensor name -> our names, several where the file stacks matrices by rows."""
    names: dict[str, tuple[str, ...]] = {theirs: (ours,) for theirs, ours in _HF_TOP.items()}
    layer = _HF_LAYER | (_HF_POST_NORMS if config.post_norms else {})
    for i in range(config.n_layer):
        for theirs, ours in layer.items():
            for kind in ("weight", "bias"):
                targets = tuple(f"transformer.h.{i}.{name}.{kind}" for name in ours)
                names[f"model.layers.{i}.{theirs}.{kind}"] = targets
    return names


def _plain_name(name: str) -> str:
    """Without the prefixes that wrappers leave: torch.compile's, and a multimodal model's."""
    name = name.removeprefix("_orig_mod.")
    for prefix in ("model.language_model.", "language_model.model."):
        if name.startswith(prefix):
            return "model." + name.removeprefix(prefix)
    return name.removeprefix("language_model.")


def destinations(model: GPT) -> dict[str, Tensor]:
    """Our tensor names -> the parameters, or the rows of a fused parameter."""
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
    """Copies ``tensors`` into the model, converting on the way.

    ``names`` maps a file's names to ours; None: they are ours. Raises CheckpointError that lists
    the missing, unknown and misshapen tensors.
    """
    targets = destinations(model)
    missing, faults = set(targets), []
    for raw_name, tensor in tensors:
        name = _plain_name(raw_name)
        if _IGNORED.match(raw_name) or (name == "lm_head.weight" and model.config.tied):
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
            targets[target].copy_(piece)
        missing.difference_update(ours)
    faults += [f"{name} is missing" for name in sorted(missing)]
    if faults:
        more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise CheckpointError(f"weights do not fit: {'; '.join(faults[:5])}{more}")


def _empty_model(
    config: ModelConfig, dtype: torch.dtype, device: torch.device | str, fused: bool
) -> GPT:
    """Allocated, not initialised."""
    with torch.device("meta"):
        model = GPT(config, fused=fused)
    try:
        model = model.to(dtype).to_empty(device=device)
    except (RuntimeError, MemoryError) as error:
        total = model.count_parameters()["total"] * dtype.itemsize / 1e9
        raise ModelError(f"no room for {total:.1f} GB of weights on {device}: {error}") from None
    for rotary in model.rotaries:
        assert isinstance(rotary, Rotary)
        rotary.to(device)
    return model.eval().requires_grad_(False)


# --- nanochat ----------------------------------------------------------------------------------

_TRAININGS = ("chatrl_checkpoints", "chatsft_checkpoints", "base_checkpoints")  # newest first
_MODEL_FILE = re.compile(r"model_(\d+)\.pt")


def _load_nanochat(
    path: Path,
    dtype: torch.dtype | Literal["auto"] | None,
    device: torch.device | str,
    context: int | None,
    fused: bool,
) -> LoadedModel:
    file = _nanochat_file(path)
    config = _with_context(_nanochat_config(read_json(_meta_of(file))), context)
    tokenizer = load_tokenizer(_nanochat_tokenizer(file.parent))
    try:
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except OSError as error:
        raise CheckpointError(f"{file}: {error.strerror or error}") from None
    except Exception as error:  # a damaged or hostile file fails in any way
        reason = str(error).splitlines()[0] if str(error) else repr(error)
        raise CheckpointError(f"{file}: damaged, or unsafe to load ({reason})") from None
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise CheckpointError(f"{file}: holds no tensors by name")
    state = {_plain_name(name): tensor for name, tensor in state.items()}
    config = _fit_old_files(config, state)
    stored = state.get("transformer.wte.weight", torch.empty(0, dtype=torch.bfloat16))
    model = _empty_model(config, _wanted(dtype, stored.dtype, device), device, fused)
    fill(model, state.items())
    stops = _stop_ids(tokenizer, {}, {}, "nanochat")
    return LoadedModel(model, tokenizer, "nanochat", file.parent, None, stops)


def _nanochat_file(path: Path) -> Path:
    """From a file, a folder of one model, of models by tag, or nanochat's base folder.

    Takes reinforced over chat over base models, the largest d<N> tag, the last step.
    """
    if path.is_file():
        return path
    for training in _TRAININGS:
        if (path / training).is_dir():
            return _nanochat_file(path / training)
    steps = {int(m[1]): f for f in path.iterdir() if (m := _MODEL_FILE.fullmatch(f.name))}
    if steps:
        return steps[max(steps)]
    tags = {int(m[1]): f for f in path.iterdir() if (m := re.fullmatch(r"d(\d+)", f.name))}
    if tags:
        return _nanochat_file(tags[max(tags)])
    raise CheckpointError(f"{path}: no model", hint="expected config.json or model_<step>.pt")


def _meta_of(file: Path) -> Path:
    match = _MODEL_FILE.fullmatch(file.name)
    if match is None:
        raise CheckpointError(f"{file}: not a nanochat checkpoint (model_<step>.pt)")
    return file.with_name(f"meta_{match[1]}.json")


def _nanochat_config(meta: Mapping[str, Any]) -> ModelConfig:
    settings = meta.get("model_config")
    if not isinstance(settings, dict):
        raise CheckpointError("meta_<step>.json: model_config is missing")
    try:
        # Files older than the setting were trained with full context.
        return ModelConfig.nanochat(**{"window_pattern": "L", **settings})
    except TypeError as error:
        raise CheckpointError(f"meta_<step>.json: {error}") from None


def _fit_old_files(config: ModelConfig, state: dict[str, Tensor]) -> ModelConfig:
    """Older files lack what came later; absent terms are neutral."""
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


def _nanochat_tokenizer(folder: Path) -> Path:
    """Beside the model, or in the base folder's ``tokenizer``: base/<training>/<tag>/."""
    for candidate in (folder, folder / "tokenizer", *(p / "tokenizer" for p in folder.parents[:2])):
        if (candidate / "tokenizer.pkl").exists() or (candidate / "tokenizer.tiktoken").exists():
            return candidate
    raise CheckpointError(f"{folder}: no tokenizer", hint="expected tokenizer/tokenizer.pkl")
