"""Every path of ``attend`` against a plain float64 implementation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from agentcli.errors import ModelError
from agentcli.model import attention
from agentcli.model.attention import attend, backend
from agentcli.model.kv_cache import Span


def naive(
    q: Tensor, k: Tensor, v: Tensor, first: list[int], window: int | None, softcap: float
) -> Tensor:
    """Attention in float64; query t of row b is at position first[b] + t."""
    out = torch.zeros_like(q, dtype=torch.float64)
    group = q.shape[2] // k.shape[2]
    for b in range(q.shape[0]):
        for t in range(q.shape[1]):
            position = first[b] + t
            oldest = 0 if window is None else max(0, position - window)
            for h in range(q.shape[2]):
                keys = k[b, oldest : position + 1, h // group].double()
                values = v[b, oldest : position + 1, h // group].double()
                scores = keys @ q[b, t, h].double() * 0.3
                if softcap:
                    scores = softcap * torch.tanh(scores / softcap)
                out[b, t, h] = scores.softmax(0) @ values
    return out


def tensors(batch: int, n_query: int, n_key: int, heads: int, n_kv: int) -> list[Tensor]:
    g = torch.Generator().manual_seed(n_query + n_key)
    shapes = [(batch, n_query, heads, 16), *[(batch, n_key, n_kv, 16)] * 2]
    return [torch.randn(shape, generator=g) for shape in shapes]


@pytest.mark.parametrize("window", [None, 0, 1, 5, 30, 1000])
@pytest.mark.parametrize("softcap", [0.0, 2.0])
@pytest.mark.parametrize("sizes", [(1, 1), (1, 40), (24, 24), (24, 40), (4, 40)])
@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (4, 1)])
def test_uniform_rows(
    window: int | None, softcap: float, sizes: tuple[int, int], heads: tuple[int, int]
) -> None:
    q, k, v = tensors(2, *sizes, *heads)
    span = Span(sizes[1] - sizes[0], sizes[0])
    expected = naive(q, k, v, [span.start] * 2, window, softcap)
    with torch.no_grad():
        y = attend(q, k, v, span, scale=0.3, window=window, softcap=softcap)
    torch.testing.assert_close(y.double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("n_query", [1, 3, 20])
def test_rows_at_different_positions(window: int | None, n_query: int) -> None:
    q, k, v = tensors(2, n_query, 40, 4, 2)
    first = [3, 11]
    positions = torch.tensor(first)[:, None] + torch.arange(n_query)
    span = Span(3, n_query, 40, positions)
    y = attend(q, k, v, span, scale=0.3, window=window)
    torch.testing.assert_close(y.double(), naive(q, k, v, first, window, 0.0), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("n_query", "n_key"), [(64, 64), (50, 70), (33, 90)])
def test_long_prompt_in_bands(n_query: int, n_key: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the window is much shorter than the prompt, attention is computed in blocks."""
    monkeypatch.setattr(attention, "QUERY_BLOCK", 8)
    q, k, v = tensors(1, n_query, n_key, 4, 2)
    span = Span(n_key - n_query, n_query)
    for kind in ("auto", "math"):
        with backend(kind):
            y = attend(q, k, v, span, scale=0.3, window=9)
        expected = naive(q, k, v, [span.start], 9, 0.0)
        torch.testing.assert_close(y.double(), expected, rtol=0, atol=1e-5)


def test_gradients_pass_through_every_path() -> None:
    for window in (None, 3):
        q, k, v = (t.requires_grad_() for t in tensors(1, 12, 12, 4, 2))
        torch.autograd.backward(attend(q, k, v, Span(0, 12), scale=0.3, window=window).sum())
        assert all(t.grad is not None for t in (q, k, v))


def test_forced_flash_that_cannot_run_is_an_error() -> None:
    q, k, v = tensors(1, 2, 2, 4, 2)
    with backend("flash"), pytest.raises(ModelError, match="flash-attn"):
        attend(q, k, v, Span(0, 2), scale=1.0)
    attend(q, k, v, Span(0, 2), scale=1.0)  # the override applies only inside the block


def test_a_mask_is_made_where_the_queries_are() -> None:
    # Elsewhere, each layer would copy it to the device.
    q, k, v = (t.to("meta") for t in tensors(1, 8, 8, 4, 2))
    span = Span(0, 8)
    attend(q, k, v, span, scale=1.0, window=3)
    assert span.visible(8, 3).device.type == "meta"


cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@cuda
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sizes", [(1, 300), (128, 128), (100, 300), (1200, 1200)])
@pytest.mark.parametrize("window", [None, 60])
def test_cuda_kernels_against_float64(
    dtype: torch.dtype, sizes: tuple[int, int], window: int | None
) -> None:
    q, k, v = (t.to("cuda", dtype) for t in tensors(2, *sizes, 8, 2))
    span = Span(sizes[1] - sizes[0], sizes[0])
    with torch.no_grad():
        y = attend(q, k, v, span, scale=0.3, window=window)
        with backend("math"):
            exact = attend(q.double(), k.double(), v.double(), span, scale=0.3, window=window)
    torch.testing.assert_close(y.double(), exact, rtol=0, atol=2e-2)


@cuda
def test_cuda_prefill_runs_a_flash_kernel() -> None:
    q, k, v = (t.to("cuda", torch.bfloat16) for t in tensors(1, 512, 512, 8, 2))
    with torch.no_grad(), torch.profiler.profile() as profile:
        attend(q, k, v, Span(0, 512), scale=0.3)
    names = " ".join(event.key.lower() for event in profile.key_averages())
    assert "flash" in names or "cudnn" in names
