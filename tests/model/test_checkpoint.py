"""Loading and saving checkpoints: three formats, precise errors, bounded memory."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import transformers
from torch import Tensor

from agentcli.errors import CheckpointError, ModelError
from agentcli.model.checkpoint import load_model, save_model
from agentcli.model.config import ModelConfig
from agentcli.model.folder import open_folder
from agentcli.model.gpt import GPT
from agentcli.model.tensor_file import expand_rows, read_safetensors, write_safetensors
from tests.model.families import CASES, Case, make_oracle, random_tokens, save_oracle
from tests.model.test_nanochat import make_config, make_model
from tests.model.test_tokenizer import make_pickle, nanochat
from training.weights import load_export

LLAMA = next(case for case in CASES if case.name == "llama_mqa_tied_biases")
QWEN = next(case for case in CASES if case.name == "qwen3")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_oracle(QWEN, make_oracle(QWEN), tmp_path)
    return tmp_path


def weights(folder: Path) -> dict[str, Tensor]:
    return safetensors.torch.load_file(folder / "model.safetensors")


def test_what_is_loaded(folder: Path) -> None:
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 5], "top_k": 20}')
    loaded = load_model(folder)
    assert loaded.family == "qwen3" and loaded.path == folder
    assert loaded.chat_template == "{{ 1 }}"
    assert loaded.stop_ids == {2, 5} and loaded.generation["top_k"] == 20
    assert loaded.model.config == open_folder(folder).config
    assert not any(p.requires_grad for p in loaded.model.parameters())
    (folder / "chat_template.jinja").write_text("{{ 2 }}")
    assert load_model(folder).chat_template == "{{ 2 }}"


def test_dtype_and_context(folder: Path) -> None:
    loaded = load_model(folder, dtype=torch.bfloat16, context=100)
    assert {p.dtype for p in loaded.model.parameters()} == {torch.bfloat16}
    assert loaded.model.config.sequence_len == 100
    with pytest.raises(ModelError, match="context of 0"):
        load_model(folder, context=0)


def test_the_same_weights_in_another_format(folder: Path) -> None:
    """Mistral's folders have them a second time, under other names."""
    renamed = {name.removeprefix("model."): tensor for name, tensor in weights(folder).items()}
    safetensors.torch.save_file(renamed, folder / "consolidated.safetensors")
    load_model(folder)


def test_faulty_tensors_are_named(folder: Path) -> None:
    tensors = weights(folder)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    tensors["model.norm.weight"] = torch.zeros(63)
    tensors["model.extra"] = torch.zeros(1)
    safetensors.torch.save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        load_model(folder)
    text = str(caught.value)
    assert "model.layers.1.mlp.up_proj.weight is missing" in text
    assert "model.norm.weight has shape (63,), expected (64,)" in text
    assert "model.extra is unknown" in text


@pytest.mark.parametrize("head", ["first", "last"])
def test_a_tied_head_that_differs_is_refused(folder: Path, head: str) -> None:
    tensors = weights(folder)
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "tie_word_embeddings": True}))
    embedding = tensors["model.embed_tokens.weight"]
    tensors.pop("lm_head.weight", None)

    def save(other: torch.Tensor) -> None:
        # A file may be in any order; the tensors are written by offset.
        name = "lm_head.weight"
        parts = [{name: other}, tensors] if head == "first" else [tensors, {name: other}]
        for number, part in enumerate(parts):
            safetensors.torch.save_file(part, folder / f"model-{number}.safetensors")
        files = {key: f"model-{n}.safetensors" for n, part in enumerate(parts) for key in part}
        index = {"weight_map": files}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    save(embedding.clone())
    assert torch.equal(load_model(folder).model.embedding_weight[: len(embedding)], embedding)
    other = embedding.clone()
    other[-1, -1] += 1
    save(other)
    with pytest.raises(CheckpointError, match=r"lm_head\.weight is not the embedding"):
        load_model(folder)


def test_types_by_name(folder: Path) -> None:
    assert load_model(folder, dtype="bfloat16").model.embedding_weight.dtype == torch.bfloat16
    for wrong in ("int8", "bfloat", torch.int8):
        with pytest.raises(ModelError, match="not a floating-point type"):
            load_model(folder, dtype=wrong)


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["", "model.safetensors", "config.json"])
def test_what_may_not_be_read_is_named(folder: Path, name: str) -> None:
    path = folder / name
    path.chmod(0)
    try:
        with pytest.raises(CheckpointError, match="Permission denied"):
            load_model(folder)
    finally:
        path.chmod(0o700)


@pytest.mark.parametrize("keep", [0, 5, 100, -1, -5000])
def test_truncated_file(folder: Path, keep: int) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"model\.safetensors.*truncated"):
        load_model(folder)


@pytest.mark.parametrize(
    "header",
    [b"[]", b'{"a": 1}', b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}', b"{x",
     b'{"a": {"dtype": "Z9", "shape": [1], "data_offsets": [0, 4]}}',
     b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}',
     b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [-8, -4]}}'],
)  # fmt: skip
def test_damaged_header(tmp_path: Path, header: bytes) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(CheckpointError, match=r"x\.safetensors"):
        list(read_safetensors(file))


def test_reads_and_writes_as_the_library_does(tmp_path: Path) -> None:
    tensors = {
        "half": torch.randn(3, 5).to(torch.bfloat16),
        "one": torch.randn(7),
        "empty": torch.empty(0, 4),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "ints": torch.arange(6, dtype=torch.int8).view(2, 3),
    }
    write_safetensors(tmp_path / "ours", tensors)
    theirs = safetensors.torch.load_file(tmp_path / "ours")
    safetensors.torch.save_file(tensors, tmp_path / "theirs")
    ours = {name: tensor.clone() for name, tensor in read_safetensors(tmp_path / "theirs")}
    for name, tensor in tensors.items():
        assert torch.equal(theirs[name], tensor) and torch.equal(ours[name], tensor)
        assert ours[name].dtype == tensor.dtype
    assert [p.name for p in tmp_path.iterdir() if "partial" in p.name] == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.safetensors.index.json", {"weight_map": ["model.safetensors"]}),
        ("model.safetensors.index.json", {"weight_map": {"a": 1}}),
        ("model.safetensors.index.json", {"weight_map": {"a": ["b"]}}),
        ("tokenizer_config.json", {"chat_template": [5]}),
    ],
)
def test_files_with_wrong_values(folder: Path, name: str, content: Any) -> None:
    (folder / name).write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="a file with a wrong value"):
        load_model(folder)


def test_wrong_values_that_do_not_matter(folder: Path) -> None:
    (folder / "generation_config.json").write_text('{"eos_token_id": [5, null, [6], "x"]}')
    (folder / "tokenizer_config.json").write_text('{"bos_token": 5}')
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "text_config": None}))
    assert load_model(folder).stop_ids == {2, 5}


def test_missing_pieces(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        load_model(folder / "elsewhere")
    (folder / "tokenizer.json").rename(folder / "t")
    with pytest.raises(CheckpointError, match="no tokenizer"):
        load_model(folder)
    (folder / "t").rename(folder / "tokenizer.json")
    index = folder / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "model-1.safetensors"}}')
    with pytest.raises(CheckpointError, match=r"model-1\.safetensors is missing"):
        load_model(folder)
    index.write_text('{"weight_map": {"a": "../model.safetensors"}}')
    with pytest.raises(CheckpointError, match="outside the folder"):
        load_model(folder)
    index.unlink()
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no safetensors"):
        load_model(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "bert"}, "unknown model family 'bert'"),
        ({"hidden_act": "tanh"}, "unknown activation 'tanh'"),
        ({"num_key_value_heads": 3}, "not a multiple of n_kv_head 3"),
        ({"rope_parameters": {"rope_type": "odd"}}, "unknown RoPE scaling 'odd'"),
        ({"dtype": "int7"}, "unknown dtype 'int7'"),
        ({"vocab_size": 0}, "vocab_size must be positive"),
        ({"hidden_size": 1e308}, "n_embd is too large"),
        ({"num_attention_heads": "four"}, r"config\.json of family qwen3: a wrong value .*'four'"),
        ({"num_hidden_layers": 2_000_000_000}, "2000000000 layers; at most"),
        ({"model_type": None}, "model_type is missing"),
    ],
)
def test_configs_that_cannot_run(folder: Path, change: dict[str, Any], message: str) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(ModelError, match=message):
        load_model(folder)


def test_files_that_hold_something_else(folder: Path) -> None:
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps({**settings, "chat_template": {"a": None}}))
    with pytest.raises(CheckpointError, match="the chat template is not a text"):
        open_folder(folder)
    (folder / "config.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match="not valid JSON"):
        open_folder(folder)


def test_missing_setting_is_named(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "llama", "hidden_size": 8}')
    with pytest.raises(ModelError, match="'num_attention_heads' is missing"):
        load_model(folder)


@pytest.mark.parametrize("case", [LLAMA, QWEN], ids=lambda case: case.name)
def test_own_format_keeps_every_bit(case: Case, tmp_path: Path) -> None:
    save_oracle(case, make_oracle(case), tmp_path)
    loaded = load_model(tmp_path)
    again_at = tmp_path / "own"
    template = loaded.chat_template or ""
    save_model(loaded.model, again_at, loaded.tokenizer, chat_template=template)
    again = load_model(again_at, fused=False)
    assert again.model.config == loaded.model.config == open_folder(again_at).config
    assert again.chat_template == loaded.chat_template
    tokens = random_tokens(1, 30)
    torch.testing.assert_close(again.model(tokens), loaded.model(tokens))
    names = safetensors.torch.load_file(again_at / "model.safetensors")
    assert "transformer.h.0.attn.c_q.weight" in names
    assert ("lm_head.weight" in names) != loaded.model.config.tied


def test_multimodal_wrapper(folder: Path) -> None:
    """As in Gemma 3: nested settings, prefixed names, and weights of other modalities."""
    expected = load_model(folder).model(random_tokens(1, 20))
    file = folder / "config.json"
    text = json.loads(file.read_text())
    file.write_text(json.dumps({"model_type": "qwen3_vl", "text_config": text}))
    tensors = {
        name.replace("model.", "model.language_model.", 1): tensor
        for name, tensor in weights(folder).items()
    }
    tensors["model.vision_tower.blocks.0.weight"] = torch.zeros(3)
    safetensors.torch.save_file(tensors, folder / "model.safetensors")
    torch.testing.assert_close(load_model(folder).model(random_tokens(1, 20)), expected)


# --- nanochat ----------------------------------------------------------------------------------


def nanochat_settings(config: ModelConfig) -> dict[str, Any]:
    names = ("sequence_len", "vocab_size", "n_layer", "n_head", "n_kv_head", "n_embd")
    return {name: getattr(config, name) for name in names}


def save_nanochat(folder: Path, model: GPT, step: int, **changes: Any) -> Path:
    """Save as nanochat does for a model trained under torch.compile."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {f"_orig_mod.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save(state, folder / f"model_{step:06d}.pt")
    settings = {**nanochat_settings(model.config), "window_pattern": "SSL", **changes}
    meta = {"step": step, "model_config": settings}
    (folder / f"meta_{step:06d}.json").write_text(json.dumps(meta))
    return folder / f"model_{step:06d}.pt"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "tokenizer").mkdir()
    make_pickle(tmp_path / "tokenizer")
    return tmp_path


def config_for_tokenizer() -> ModelConfig:
    return make_config(vocab_size=nanochat().vocab_size)


def test_nanochat_folder(base: Path) -> None:
    """Loads the most trained kind, the largest tag and the last step."""
    wanted = make_model(config_for_tokenizer())
    other = make_model(make_config(n_layer=1, vocab_size=271), seed=9)
    save_nanochat(base / "base_checkpoints" / "d5", other, 9000)
    save_nanochat(base / "chatsft_checkpoints" / "d4", other, 9000)
    save_nanochat(base / "chatsft_checkpoints" / "d20", other, 100)
    file = save_nanochat(base / "chatsft_checkpoints" / "d20", wanted, 700)
    tokens = random_tokens(1, 20) % 271
    for path in (base, base / "chatsft_checkpoints", file.parent, file):
        loaded = load_model(path)
        torch.testing.assert_close(loaded.model(tokens), wanted(tokens).detach())
    assert loaded.family == "nanochat" and loaded.chat_template is None
    bos, end = loaded.tokenizer.special["<|bos|>"], loaded.tokenizer.special["<|assistant_end|>"]
    assert loaded.stop_ids == {bos, end}


def test_old_nanochat_files(base: Path) -> None:
    """Old files without window pattern and residual scalars get full context and neutral terms."""
    model = make_model(config_for_tokenizer())
    with torch.no_grad():
        model.resid_lambdas.fill_(1)
        model.x0_lambdas.fill_(0)
    file = save_nanochat(base / "base_checkpoints" / "d5", model, 1)
    state = torch.load(file, weights_only=True)
    for name in ("resid_lambdas", "x0_lambdas"):
        del state[f"_orig_mod.{name}"]
    torch.save(state, file)
    meta = file.with_name("meta_000001.json")
    data = json.loads(meta.read_text())
    del data["model_config"]["window_pattern"]
    meta.write_text(json.dumps(data))
    loaded = load_model(base)
    assert set(loaded.model.config.windows) == {None}
    tokens = random_tokens(1, 20) % 271
    torch.testing.assert_close(loaded.model(tokens), model(tokens).detach())


class Hostile:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


def test_hostile_checkpoint_runs_nothing(base: Path) -> None:
    file = save_nanochat(base / "base_checkpoints" / "d5", make_model(config_for_tokenizer()), 1)
    marker = base / "ran"
    for content in (pickle.dumps(Hostile(marker)), b"junk", b""):
        file.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"model_000001\.pt"):
            load_model(base)
    torch.save({"x": Hostile(marker)}, file)
    with pytest.raises(CheckpointError, match="unsafe"):
        load_model(base)
    assert not marker.exists()


def test_nanochat_errors(base: Path) -> None:
    with pytest.raises(CheckpointError, match="no model") as raised:
        load_model(base)
    assert raised.value.hint == "Name a folder with config.json or model_<step>.pt"
    file = save_nanochat(base / "base_checkpoints" / "d5", make_model(config_for_tokenizer()), 1)
    meta = file.with_name("meta_000001.json")
    meta.write_text('{"model_config": {"n_layers": 3}}')
    with pytest.raises(CheckpointError, match="n_layers"):
        load_model(base)
    meta.write_text("{}")
    with pytest.raises(CheckpointError, match="model_config is missing"):
        load_model(base)
    meta.unlink()
    with pytest.raises(CheckpointError, match=r"meta_000001\.json"):
        load_model(base)


PEAK = """
import resource, sys, torch
from agentcli.model.checkpoint import load_model
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model = load_model(sys.argv[1]).model
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
size = sum(p.nbytes for p in model.parameters())
print((peak - before) * 1024 / size)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss and madvise as on Linux")
def test_peak_memory(tmp_path: Path) -> None:
    """Loading 130 MB takes at most 1.2 times as much memory, although the file is mapped too."""
    big = Case("big", "Llama", {"hidden_size": 512, "intermediate_size": 2048,
                                "num_hidden_layers": 16})  # fmt: skip
    auto: Any = transformers.AutoModelForCausalLM
    with torch.device("meta"):  # real random weights take seconds to draw
        model = auto.from_config(big.config(), dtype=torch.bfloat16)
    save_oracle(big, model.to_empty(device="cpu"), tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 1.2


@pytest.mark.parametrize("first", ["w", "w.scale"])
def test_rows_of_int8_are_expanded(first: str) -> None:
    scale = torch.tensor([0.5, 2.0])
    stored = {"w": torch.tensor([[1, -2], [3, 127]], dtype=torch.int8), "w.scale": scale}
    ordered = sorted(stored.items(), key=lambda item: item[0] != first)
    vector = torch.tensor([1.5])
    found = {name: value.clone() for name, value in expand_rows([("v", vector), *ordered])}
    assert set(found) == {"v", "w"}
    assert found["v"].tolist() == [1.5]
    assert found["w"].tolist() == [[0.5, -1.0], [6.0, 254.0]]


def test_int8_without_scales_is_named() -> None:
    with pytest.raises(CheckpointError, match="lonely: int8 without scales"):
        dict(expand_rows([("lonely", torch.zeros(1, 1, dtype=torch.int8))]))


def test_the_embedded_model_is_what_training_exported() -> None:
    folder = Path(__file__).parents[2] / "agentcli" / "embedded"
    config, weights = load_export(folder)
    loaded = load_model(folder, pack=False, fused=False)
    assert loaded.model.config == config
    state = loaded.model.state_dict()
    assert set(state) == set(weights)
    assert all(torch.equal(state[name], weights[name]) for name in weights)
