"""An engine in this process, as programs load it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="models on this machine need the extra 'local'")

import torch

from agentcli import load_engine
from agentcli.errors import CheckpointError, ModelError
from agentcli.inference.sampling import GREEDY
from agentcli.model import native
from agentcli.model.checkpoint import load_model
from tests.llm.folders import make_folder


@pytest.fixture(autouse=True)
def unchanged() -> Iterator[None]:
    """Kernels and threads are set for the whole process."""
    before = torch.get_num_threads()
    yield
    native.use(None)
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder("qwen2", tmp_path_factory.mktemp("model") / "tiny", context=512)


def continued(model: str | Path) -> str:
    engine = load_engine(model, dtype="float32", threads=1)
    tokens = engine.tokenizer.prompt("def add(a, b):")
    made = [token for (token,), _ in engine.generate(tokens, max_tokens=12, sampling=GREEDY)]
    return engine.tokenizer.decode(made, skip_special=True)


def test_it_continues_as_the_model_alone_does(folder: Path) -> None:
    loaded = load_model(folder, dtype="float32")
    tokens = loaded.tokenizer.prompt("def add(a, b):")
    start = len(tokens)
    for _ in range(12):
        tokens.append(int(loaded.model(torch.tensor([tokens]))[0, -1].argmax()))
        if tokens[-1] in loaded.stop_ids:
            break
    assert continued(folder) == loaded.tokenizer.decode(tokens[start:], skip_special=True)


async def test_it_can_be_loaded_while_an_event_loop_runs(folder: Path) -> None:
    await asyncio.sleep(0)
    assert load_engine(folder, threads=1).model.config.sequence_len == 512


def test_it_is_set_up_as_asked(folder: Path) -> None:
    engine = load_engine(folder, quantize="int8", context=64, threads=1)
    assert engine.model.config.sequence_len == 64 and torch.get_num_threads() == 1
    assert load_engine(folder).threads is not None


def test_the_embedded_model_needs_no_path() -> None:
    assert "return" in continued("embedded")


def test_what_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file or folder"):
        load_engine(tmp_path / "none")
    with pytest.raises(ModelError, match="device 'cuda:99' cannot be used"):
        load_engine(device="cuda:99")
    with pytest.raises(ModelError, match="unknown dtype 'int3'"):
        load_engine(dtype="int3")
