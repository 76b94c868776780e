"""Linear layers for the kernels of ``native.py``: float32 inputs, weights in 16, 8 or 4 bits.

For a few rows, the kernels multiply while they stream the weights from memory. For more, PyTorch
multiplies the expanded matrix: in bfloat16 if the model was in bfloat16 and the CPU multiplies it,
else in float32.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agentcli.model import native
from agentcli.model.gpt import GPT

# Smaller matrices, such as gates, stay ordinary float32 layers.
SMALLEST = 4096


class StreamedLinear(nn.Module):
    """A linear layer with bfloat16 weights, shared with the original layer."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("weight", weight.detach())
        self.register_buffer("bias", None if bias is None else bias.detach().float())
        self.matrix = _matrix(16, weight.shape, weight, bias=self.bias)

    def forward(self, x: Tensor) -> Tensor:
        if native.few(x):
            return native.linear(x, self.matrix)
        if native.multiplies_bfloat16():
            return _added(F.linear(x.bfloat16(), self.weight).float(), self.bias)
        return F.linear(x, native.widened(self.weight), self.bias)

    def expanded(self) -> Tensor:
        """Return the matrix, (out, in) float32."""
        return self.weight.float()


def round_to_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Quantise (out, in) to int8; return it and the float32 scale of each row, (out,)."""
    wide = weight.detach().float()
    scale = wide.abs().amax(1).clamp(min=1e-10) / 127
    return (wide / scale[:, None]).round().clamp(-127, 127).to(torch.int8), scale


class StreamedInt8Linear(nn.Module):
    """y = x @ (weight * scale[:, None]).T + bias; weight int8 (out, in), scale float32 (out,)."""

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        rounded, scale = round_to_rows(weight)
        self.register_buffer("weight", rounded)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if bias is None else bias.detach().float())
        self.matrix = _matrix(8, weight.shape, self.weight, self.scale, bias=self.bias)
        self.wide = _wide_dtype(weight)

    def forward(self, x: Tensor) -> Tensor:
        if native.few(x):
            return native.linear(x, self.matrix)
        y = F.linear(x.to(self.wide), native.widened(self.weight, self.wide)).float()
        return _added(y.mul_(self.scale), self.bias)

    def expanded(self) -> Tensor:
        """Return the dequantised matrix, (out, in) float32."""
        return self.weight.float() * self.scale[:, None]


class StreamedInt4Linear(nn.Module):
    """w = (q - 8) * scale + zero, with q in 0..15 and a scale and zero per group of 32 inputs.

    Panels of 8 outputs are stored together, the last one filled up with zeros. ``packed`` is uint8
    (panels, in / 32, 4, 8, 4): byte (panel, group, i, output, j) has input 8 i + j of the group in
    its low bits and input 8 i + 4 + j in its high bits. ``scales`` and ``zeros`` are bfloat16
    (panels, in / 32, 8).
    """

    packed: Tensor
    scales: Tensor
    zeros: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        rows, columns = weight.shape
        groups = weight.detach().float().view(rows, columns // native.GROUP, native.GROUP)
        low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
        # Round the scales first, so that q is computed for the scales that are stored.
        scale = ((high - low) / 15).clamp(min=1e-8).bfloat16().float()
        zero = (low + 8 * scale).bfloat16().float()
        q = ((groups - zero) / scale + 8).round().clamp(0, 15).to(torch.uint8)
        split = (-1, native.PANEL, columns // native.GROUP, 4, 2, 4)
        fours = _panels(q).view(split).permute(0, 2, 3, 1, 4, 5)
        packed = fours[..., 0, :] | fours[..., 1, :] << 4
        self.register_buffer("packed", packed.contiguous())
        for name, tensor in (("scales", scale), ("zeros", zero)):
            self.register_buffer(name, _panels(tensor)[..., 0].mT.contiguous().bfloat16())
        self.register_buffer("bias", None if bias is None else bias.detach().float())
        tensors = (self.packed, self.scales, self.zeros)
        self.matrix = _matrix(4, weight.shape, *tensors, bias=self.bias)
        self.wide = _wide_dtype(weight)

    @staticmethod
    def fits(weight: Tensor) -> bool:
        """Whether the kernel supports a matrix of this shape."""
        return weight.shape[1] % native.COLUMNS == 0

    def forward(self, x: Tensor) -> Tensor:
        if native.few(x):
            return native.linear(x, self.matrix)
        y = F.linear(x.to(self.wide), self.expanded().to(self.wide)).float()
        return _added(y, self.bias)

    def expanded(self) -> Tensor:
        """Return the dequantised matrix, (out, in) float32, valid until the next is expanded."""
        return native.widened_int4(self.matrix)


Streamed = StreamedLinear | StreamedInt8Linear | StreamedInt4Linear


def matrices(model: GPT) -> list[tuple[nn.Module, str, nn.Linear]]:
    """Return all linear layers worth converting, as (parent module, name, layer)."""
    found = []
    for parent in model.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.Linear) and child.weight.numel() >= SMALLEST:
                found.append((parent, name, child))
    return found


def streams(model: GPT) -> bool:
    """Whether the kernels are loaded and support all matrices of the model."""
    if not native.loaded() or model.device.type != "cpu":
        return False
    widths = {matrix.weight.shape[1] for _, _, matrix in matrices(model)} | {model.config.n_embd}
    return all(width % native.COLUMNS == 0 for width in widths)


def widen_stream(model: GPT) -> None:
    """Make the residual stream float32, along with all small parameters."""
    model.compute_dtype = torch.float32
    for module in model.modules():
        large = isinstance(module, nn.Embedding) or (
            isinstance(module, nn.Linear) and module.weight.numel() >= SMALLEST
        )
        for name, parameter in module.named_parameters(recurse=False):
            if not (large and name == "weight"):
                parameter.data = parameter.data.float()


def prepare_blocks(model: GPT) -> None:
    """Prepare each block whose matrices are streamed to run as one kernel call."""
    config = model.config
    for block in model.blocks:
        attn, mlp = block.attn, block.mlp
        up = mlp.c_gate_fc if mlp.fused else mlp.c_fc
        inner = (attn.c_qkv, attn.c_proj, up, mlp.c_proj) if attn.fused else ()
        fits = config.head_dim % 8 == 0 and config.head_dim <= native.LARGEST_HEAD
        if not fits or not inner or not all(isinstance(matrix, Streamed) for matrix in inner):
            continue
        if config.gated and not mlp.fused:
            continue
        posts = (block.attn_post_norm, block.mlp_post_norm) if block.post_norms else (None, None)
        heads = (None, None) if attn.qk_norm == "none" else (attn.q_norm, attn.k_norm)
        norms = (block.attn_norm, posts[0], block.mlp_norm, posts[1], *heads)
        pointers = [_pointer(None if norm is None else norm.weight) for norm in norms]
        gate = attn.ve_gate.weight if config.has_value_embed(attn.layer) else None
        block.native = native.Block(
            *pointers,
            _pointer(gate),
            *(matrix.matrix for matrix in inner),
            width=config.n_embd,
            heads=config.n_head,
            kv_heads=config.n_kv_head,
            dim=config.head_dim,
            window=-1 if attn.window is None else attn.window,
            qk=("none", "before_rope", "after_rope").index(config.qk_norm),
            post=block.post_norms,
            mlp=("silu_gate", "gelu_gate", "relu2").index(config.mlp),
            scale=config.softmax_scale,
            softcap=config.attention_softcap,
            eps=config.norm_eps,
            offset=float(config.norm == "one_plus_weight"),
        )


def _wide_dtype(weight: Tensor) -> torch.dtype:
    fast = native.multiplies_bfloat16() and weight.dtype == torch.bfloat16
    return torch.bfloat16 if fast else torch.float32


def _added(y: Tensor, bias: Tensor | None) -> Tensor:
    return y if bias is None else y.add_(bias)


def _panels(rows: Tensor) -> Tensor:
    """(out, ...) -> (panels, 8, ...)"""
    padding = rows.new_zeros((-rows.shape[0] % native.PANEL, *rows.shape[1:]))
    return torch.cat((rows, padding)).view(-1, native.PANEL, *rows.shape[1:])


def _matrix(
    bits: int, shape: torch.Size, weight: Tensor, *scales: Tensor, bias: Tensor | None
) -> native.Matrix:
    pointers = [_pointer(tensor) for tensor in (weight, *scales)]
    pointers += [None] * (3 - len(pointers))
    return native.Matrix(*pointers, _pointer(bias), bits, *shape)


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
