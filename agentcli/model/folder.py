"""Reads the description of a model from its folder, without torch and without the weights.

There are three kinds of folder: Hugging Face (``config.json``, safetensors), agentcli's own
(``config.json`` with a ModelConfig) and nanochat (``model_<step>.pt`` with ``meta_<step>.json``,
and a tokenizer nearby).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from agentcli.errors import CheckpointError, ModelError
from agentcli.model.config import ModelConfig
from agentcli.model.families import config_from_hf
from agentcli.model.tokenizer import Tokenizer, load_tokenizer, read_json

# model_type of agentcli's own config.json.
OWN_TYPE = "agentcli"
# Its ``storage`` if matrices are int8 with a scale per row; loading expands them.
INT8_ROWS = "int8 rows"

_TRAININGS = ("chatrl_checkpoints", "chatsft_checkpoints", "base_checkpoints")  # newest first
_MODEL_FILE = re.compile(r"model_(\d+)\.pt")


@dataclass(frozen=True)
class ModelFolder:
    """The description of a model whose weights are not loaded.

    Attributes:
        path: The folder.
        kind: Its format.
        config: The model's configuration.
        data: The content of config.json, or of nanochat's meta file.
        weights: The files of the weights.
        tokenizer_folder: The folder of the tokenizer.
        chat_template: The Jinja chat template, if the files have one.
        generation: The content of generation_config.json; empty if there is none.
        own_context: The model's own context if ``config`` has another.
    """

    path: Path
    kind: Literal["hf", "own", "nanochat"]
    config: ModelConfig
    data: Mapping[str, Any]
    weights: tuple[Path, ...]
    tokenizer_folder: Path
    chat_template: str | None = None
    generation: Mapping[str, Any] = field(default_factory=dict)
    own_context: int | None = None

    @property
    def trained_context(self) -> int:
        """The context that the model was trained for."""
        return self.own_context or self.config.sequence_len

    @property
    def warning(self) -> str:
        """What a user should know before using the model like this; empty if nothing."""
        context, trained = self.config.sequence_len, self.trained_context
        if context <= trained:
            return ""
        return f"a context of {context:,} tokens is beyond the {trained:,} of the model's training"

    @property
    def family(self) -> str:
        return self.config.family

    @property
    def source(self) -> Path:
        """The path from which ``load_model`` loads exactly this model.

        A nanochat folder may have several models, so there it is the file.
        """
        return self.weights[0] if self.kind == "nanochat" else self.path

    def load_tokenizer(self) -> Tokenizer:
        """Load the tokenizer.

        Raises:
            CheckpointError: it is missing, damaged or unsafe.
        """
        return load_tokenizer(self.tokenizer_folder)

    def stop_ids(self, tokenizer: Tokenizer) -> frozenset[int]:
        """Return the tokens that end an answer."""
        stops: set[int] = set()
        ends = (self.generation.get("eos_token_id"), self.data.get("eos_token_id"))
        for value in (*ends, tokenizer.eos_id):
            tokens = value if isinstance(value, list) else [value]
            stops.update(token for token in tokens if isinstance(token, int))
        if self.family == "nanochat" and tokenizer.bos_id is not None:
            stops.add(tokenizer.bos_id)  # it begins a new document
        return frozenset(stops)


def open_folder(path: str | Path, *, context: int | None = None) -> ModelFolder:
    """Read a model folder, or a nanochat ``model_<step>.pt``.

    ``context`` overrides the model's maximum number of positions.

    Raises:
        CheckpointError: files are missing or damaged.
        ModelError: the model is not supported.
    """
    folder = Path(path).expanduser()
    if not folder.exists():
        raise CheckpointError(f"{folder}: no such file or folder")
    try:
        is_hf = (folder / "config.json").exists()
        found = _hf_folder(folder) if is_hf else _nanochat_folder(folder)
    except OSError as error:
        raise CheckpointError(f"{error.filename or folder}: {error.strerror}") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{folder}: a file with a wrong value ({error})") from None
    if context is None:
        return found
    if context < 1:
        raise ModelError(f"a context of {context} tokens is not possible")
    own = found.config.sequence_len
    return replace(found, config=replace(found.config, sequence_len=context), own_context=own)


# --- folders with a config.json ----------------------------------------------------------------


def _hf_folder(folder: Path) -> ModelFolder:
    data = read_json(folder / "config.json")
    generation_file = folder / "generation_config.json"
    template = _chat_template(folder)
    if not isinstance(template, str | None):
        raise CheckpointError(f"{folder}: the chat template is not a text")
    return ModelFolder(
        folder,
        "own" if data.get("model_type") == OWN_TYPE else "hf",
        _config_of(data, folder),
        data,
        _weight_files(folder),
        folder,
        template,
        read_json(generation_file) if generation_file.exists() else {},
    )


def _config_of(data: Mapping[str, Any], folder: Path) -> ModelConfig:
    if data.get("model_type") != OWN_TYPE:
        try:
            return config_from_hf(data)
        except ModelError as error:
            raise ModelError(f"{folder}: {error.message}", hint=error.hint) from None
    if not isinstance(data.get("model"), dict):
        raise CheckpointError(f"{folder / 'config.json'}: model is missing")
    return ModelConfig.from_dict(data["model"])


def _weight_files(folder: Path) -> tuple[Path, ...]:
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if index.exists():
        names = sorted(set(read_json(index).get("weight_map", {}).values()))
        # A hostile index must not reach files outside this folder.
        if any(Path(name).name != name for name in names):
            raise CheckpointError(f"{index}: names files outside the folder")
        files = [folder / name for name in names]
    elif whole.exists():  # others may repeat the weights under other names, as in Mistral's folders
        files = [whole]
    else:
        files = sorted(folder.glob("*.safetensors"))
    missing = [file.name for file in files if not file.exists()]
    if missing:
        raise CheckpointError(f"{folder}: {', '.join(missing)} is missing")
    if not files:
        raise CheckpointError(
            f"{folder}: no safetensors files", hint="pickled .bin weights are not loaded"
        )
    return tuple(files)


def _chat_template(folder: Path) -> str | None:
    """Read the template: newer folders have a file of its own, older ones a tokenizer setting."""
    for name in ("chat_template.jinja", "chat_template.json"):
        file = folder / name
        if file.exists():
            try:
                text = file.read_text(encoding="utf-8")
                return text if file.suffix == ".jinja" else json.loads(text).get("chat_template")
            except (ValueError, AttributeError) as error:
                raise CheckpointError(f"{file}: no chat template ({error})") from None
    settings = folder / "tokenizer_config.json"
    template = read_json(settings).get("chat_template") if settings.exists() else None
    if isinstance(template, list):  # several, by name
        named = {entry.get("name"): entry.get("template") for entry in template}
        template = named.get("tool_use") or named.get("default")
    return template


# --- nanochat ----------------------------------------------------------------------------------


def _nanochat_folder(path: Path) -> ModelFolder:
    file = _nanochat_file(path)
    meta = read_json(_meta_of(file))
    return ModelFolder(
        file.parent,
        "nanochat",
        _nanochat_config(meta),
        meta,
        (file,),
        _nanochat_tokenizer(file.parent),
    )


def _nanochat_file(path: Path) -> Path:
    """Find the checkpoint in a folder of checkpoints, of tags, or in nanochat's base folder.

    Prefers reinforcement-learned over chat over base models, then the largest ``d<N>`` tag, then
    the last step. A file is returned as it is.
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
    raise CheckpointError(
        f"{path}: no model", hint="Name a folder with config.json or model_<step>.pt"
    )


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
        # Models from before this setting were trained with full attention.
        return ModelConfig.nanochat(**{"window_pattern": "L", **settings})
    except TypeError as error:
        raise CheckpointError(f"meta_<step>.json: {error}") from None


def _nanochat_tokenizer(folder: Path) -> Path:
    """Find the tokenizer's folder: beside the model, or ``tokenizer`` in nanochat's base folder.

    Models are in ``<base>/<training>/<tag>``.
    """
    for candidate in (folder, folder / "tokenizer", *(p / "tokenizer" for p in folder.parents[:2])):
        if (candidate / "tokenizer.pkl").exists() or (candidate / "tokenizer.tiktoken").exists():
            return candidate
    raise CheckpointError(f"{folder}: no tokenizer", hint="expected tokenizer/tokenizer.pkl")
