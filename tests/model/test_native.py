"""The native kernels: they build, and compute the same as the model without them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from agentcli.inference.engine import Engine
from agentcli.inference.sampling import GREEDY
from agentcli.model import native
from agentcli.model.checkpoint import load_model
from agentcli.model.config import ModelConfig
from agentcli.model.gpt import GPT
from agentcli.model.kernel_build import build_commands, compiler, library_name
from agentcli.model.pack import pack_model
from agentcli.model.quantize import Scheme, quantize_model
from agentcli.model.streamed import StreamedInt4Linear, StreamedInt8Linear, StreamedLinear
from agentcli.model.tokenizer import TiktokenTokenizer
from tests.model.families import CASES, make_oracle, near, random_tokens, save_oracle

FAMILIES = (
    "llama_mqa_tied_biases",  # biases everywhere, one key head
    "llama3_scaled",
    "qwen2_window",
    "qwen3",  # query and key norms
    "gemma2",  # caps, windows, norms on both sides, gelu
    "gemma3",
    "phi3_partial",  # half of each head is rotated
    "smollm3_nope",  # a layer without rotation
)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cc = compiler()
    if cc is None:
        pytest.skip("no C compiler")
    path = tmp_path_factory.mktemp("kernels") / library_name()
    for command in build_commands(cc, path):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0 and not done.stderr, done.stderr
    return path


@pytest.fixture
def kernels(library: Path) -> Iterator[None]:
    assert native.use(library)
    yield
    native.use(None)


def stepwise(model: GPT, tokens: Tensor) -> Tensor:
    """Logits (B, T, V), computed for a long piece, single tokens, and a short piece."""
    with torch.inference_mode():
        cache = model.new_cache(tokens.shape[0])
        pieces = [tokens[:, :20], *torch.split(tokens[:, 20:30], 1, 1), tokens[:, 30:]]
        return torch.cat([model(piece, cache) for piece in pieces], 1)


@pytest.mark.parametrize("name", FAMILIES)
def test_bfloat16_is_computed_exactly(name: str, tmp_path: Path, kernels: None) -> None:
    """Activations are float32, so the result equals that of the same weights in float32.

    Except on processors that multiply bfloat16, where products round their inputs.
    """
    case = next(case for case in CASES if case.name == name)
    case = replace(case, settings={**case.settings, "intermediate_size": 128})
    save_oracle(case, make_oracle(case).to(torch.bfloat16), tmp_path)
    exact = load_model(tmp_path, dtype=torch.float32, pack=False).model
    streamed = load_model(tmp_path).model
    assert all(block.native is not None for block in streamed.blocks)
    assert isinstance(streamed.lm_head, StreamedLinear)
    tokens = random_tokens(2, 37)
    expected = exact(tokens)
    error = (stepwise(streamed, tokens) - expected).norm() / expected.norm()
    assert error < (2e-2 if native.multiplies_bfloat16() else 1e-5)


def nanochat(scheme: Scheme | None = None) -> GPT:
    config = ModelConfig.nanochat(vocab_size=512, n_layer=4, n_head=4, n_kv_head=2, n_embd=128)
    model = GPT(config, fused=True).requires_grad_(False)
    model.init_weights()
    for name, parameter in model.named_parameters():
        if "c_proj" in name:  # initially zero, which would hide the block
            parameter.copy_(torch.randn(parameter.shape) * 0.05)
        if "lambda" in name:
            parameter.add_(0.1)
    if scheme is not None:
        quantize_model(model, scheme)
    return model


@pytest.mark.parametrize("scheme", ["int8", "int4"])
def test_narrow_weights(scheme: Scheme, kernels: None) -> None:
    """Quantized weights against their dequantized matrices, multiplied in float64."""
    torch.manual_seed(0)
    model = nanochat(scheme)
    assert all(block.native is not None for block in model.blocks)
    wide = nanochat().double()
    for name, module in model.named_modules():
        if isinstance(module, StreamedInt8Linear | StreamedInt4Linear):
            wide.get_submodule(name).weight.copy_(module.expanded())  # type: ignore[operator]
    wide_names = dict(wide.named_parameters())
    for name, parameter in model.named_parameters():
        wide_names[name].copy_(parameter)
    tokens = torch.randint(0, 512, (3, 37))
    exact = wide(tokens)
    error = (stepwise(model, tokens) - exact).abs().max() / exact.abs().max()
    assert error < {"int8": 1e-3, "int4": 5e-3}[scheme]


def test_rows_of_different_lengths(kernels: None) -> None:
    torch.manual_seed(0)
    model = nanochat("int8")
    tokens, counts = torch.randint(0, 512, (3, 30)), [5, 9, 7]
    with torch.inference_mode():
        cache = model.new_cache(3)
        model(tokens[:, :9], cache, counts)
        new = torch.stack([tokens[row, count] for row, count in enumerate(counts)])[:, None]
        ours = model(new, cache)[:, 0]
        for row, count in enumerate(counts):
            alone = model(tokens[row : row + 1, : count + 1])[0, -1]
            near(ours[row], alone, 2e-3)


@pytest.mark.parametrize("inputs", [192, 1344])  # less and more than a panel's piece
@pytest.mark.parametrize("kind", [StreamedLinear, StreamedInt8Linear, StreamedInt4Linear])
def test_product(inputs: int, kind: type[StreamedLinear], kernels: None) -> None:
    """For every number of rows that the tiles of a panel split differently, and some more."""
    torch.manual_seed(0)
    far_out = torch.tensor([1.0] * (inputs - 1) + [1e3])  # an outlier channel
    for rows in (1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 40):
        outputs = 66 + rows % 7  # panels have three, in pairs
        weight, bias = torch.randn(outputs, inputs).bfloat16(), torch.randn(outputs)
        matrix = kind(weight, bias)
        x = torch.randn(rows, inputs) * far_out
        if kind is StreamedLinear and native.multiplies_bfloat16():
            x = x.bfloat16().float()  # the products round them
        expected = x.double() @ matrix.expanded().double().T + bias
        # Inputs are rounded, by the largest of a group or piece, and sums to float32.
        group, largest = (32, 127) if kind.__name__ == "StreamedInt4Linear" else (192, 32767)
        steps = (x.abs().view(rows, -1, group).amax(-1) / largest).repeat_interleave(group, 1)
        most = (
            steps.double() / 2 @ matrix.expanded().abs().double().T + 1e-4 * expected.abs() + 1e-2
        )
        with torch.inference_mode():
            assert ((matrix(x) - expected).abs() <= most).all()
    with torch.inference_mode():
        wide = torch.cat([x] * 2)  # so many rows use the expanded matrix
        error = (matrix(wide) - torch.cat([expected] * 2)).norm() / expected.norm()
        assert error < (5e-3 if native.multiplies_bfloat16() else 1e-5)


@pytest.mark.parametrize("kind", [StreamedLinear, StreamedInt8Linear, StreamedInt4Linear])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_visible(
    value: float, kind: type[StreamedLinear], kernels: None
) -> None:
    matrix, x = kind(torch.randn(66, 1088).bfloat16()), torch.randn(5, 1088)
    x[3, 700] = value
    with torch.inference_mode():
        assert matrix(x).isfinite().all(1).tolist() == [True, True, True, False, True]
        assert not matrix(x[3:4]).isfinite().any()


@pytest.mark.parametrize("kind", [StreamedLinear, StreamedInt8Linear, StreamedInt4Linear])
def test_rows_do_not_depend_on_each_other(kind: type[StreamedLinear], kernels: None) -> None:
    """A row has the same product alone and among others: drafts change no token."""
    torch.manual_seed(0)
    matrix, x = kind(torch.randn(131, 1088).bfloat16()), torch.randn(40, 1088)
    with torch.inference_mode():
        expected = matrix(x)
        for rows in (1, 2, 3, 4, 5, 8, 11, 16, 17):
            assert torch.equal(matrix(x[:rows]), expected[:rows])


@pytest.mark.parametrize("scheme", [None, "int8", "int4"])
def test_any_number_of_threads_gives_the_same_steps(scheme: Scheme | None, kernels: None) -> None:
    torch.manual_seed(0)
    model = nanochat(scheme)
    if scheme is None:
        pack_model(model.bfloat16())
    assert all(block.native is not None for block in model.blocks)
    tokens, before = torch.randint(0, 512, (2, 24)), torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            with torch.inference_mode():
                torch.set_num_threads(before)
                cache = model.new_cache(2)
                model(tokens[:, :20], cache)  # prefill uses the usual number of threads
                torch.set_num_threads(threads)
                found.append(torch.cat([model(tokens[:, [at]], cache) for at in range(20, 24)], 1))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_generation_is_the_same_without(kernels: None) -> None:
    torch.manual_seed(0)
    model = nanochat("int8")
    tokenizer = TiktokenTokenizer({bytes([i]): i for i in range(256)}, r"[\s\S]", {})
    engine = Engine(model, tokenizer)
    with_kernels, _ = engine.generate_batch([7, 8, 9] * 5, max_tokens=20, sampling=GREEDY)
    prepared = [block.native for block in model.blocks]
    for block in model.blocks:
        block.native = None
    without, _ = engine.generate_batch([7, 8, 9] * 5, max_tokens=20, sampling=GREEDY)
    assert prepared[0] is not None and with_kernels == without


def test_what_cannot_be_streamed_is_left_alone(kernels: None) -> None:
    odd = GPT(ModelConfig.nanochat(vocab_size=64, n_layer=1, n_head=3, n_embd=96), fused=True)
    odd.to(torch.bfloat16)
    quantize_model(odd, "int8")
    assert next(iter(odd.blocks)).native is None
    assert not pack_model(nanochat())  # float32


def test_a_library_that_cannot_be_used(tmp_path: Path) -> None:
    damaged = tmp_path / "kernels.so"
    damaged.write_bytes(b"\x7fELF")
    for path in (damaged, tmp_path / "missing.so", None):
        assert not native.use(path) and not native.loaded()
