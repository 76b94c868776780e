"""GPT: one decoder-only transformer for all model families. Read it from top to bottom.

Shapes: B rows, T new tokens, S tokens so far, C = n_embd, H query heads, Hkv key/value heads,
D = head_dim. Parameters have nanochat's names; checkpoint.py maps those of other files to them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agentcli.errors import ContextLengthError
from agentcli.model import nanochat, native
from agentcli.model.attention import attend
from agentcli.model.config import SMEAR_CHANNELS, VALUE_GATE_CHANNELS, ModelConfig
from agentcli.model.kv_cache import KVCache, Span
from agentcli.model.rope import CosSin, Rotary, rotate


class Linear(nn.Linear):
    """An nn.Linear that computes in the dtype of its input.

    Master weights may be float32 while the residual stream is bfloat16.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.dtype == x.dtype:  # even a no-op conversion has a cost
            return F.linear(x, self.weight, self.bias)
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.weight.to(x.dtype), bias)


class Norm(nn.Module):
    """RMS norm over the last dimension: without weight, with weight w, or with 1 + w (Gemma)."""

    def __init__(self, config: ModelConfig, width: int) -> None:
        super().__init__()
        self.width = (width,)
        self.eps = config.norm_eps
        self.offset = config.norm == "one_plus_weight"
        initial = torch.zeros(width) if self.offset else torch.ones(width)
        self.weight = None if config.norm == "plain" else nn.Parameter(initial)

    def forward(self, x: Tensor) -> Tensor:
        if self.weight is None:
            return F.rms_norm(x, self.width, eps=self.eps)
        if self.offset:
            # Round once, at the end: in bfloat16, 1 + w alone would lose most of w.
            wide = torch.promote_types(x.dtype, torch.float32)
            y = F.rms_norm(x.to(wide), self.width, 1 + self.weight.to(wide), self.eps)
            return y.to(x.dtype)
        weight = self.weight if self.weight.dtype == x.dtype else self.weight.to(x.dtype)
        return F.rms_norm(x, self.width, weight, self.eps)


class Attention(nn.Module):
    """Causal grouped-query self-attention with rotary embeddings and an optional window.

    ``fused`` joins c_q, c_k and c_v into one matrix, c_qkv: one product instead of three.
    """

    def __init__(self, config: ModelConfig, layer: int, *, fused: bool) -> None:
        super().__init__()
        self.layer = layer
        self.head_dim = config.head_dim
        self.scale = config.softmax_scale
        self.softcap = config.attention_softcap
        self.window = config.windows[layer]
        self.qk_norm = config.qk_norm
        q_dim, kv_dim = config.n_head * config.head_dim, config.kv_dim
        self.widths = [q_dim, kv_dim, kv_dim]
        self.heads = (config.n_head, config.n_kv_head)
        # q and k can be normed and rotated together unless their norms have different weights.
        self.joint_qk = fused and (config.qk_norm == "none" or config.norm == "plain")
        bias = config.qkv_bias
        if fused:
            self.c_qkv = Linear(config.n_embd, sum(self.widths), bias=bias)
        else:
            self.c_q = Linear(config.n_embd, q_dim, bias=bias)
            self.c_k = Linear(config.n_embd, kv_dim, bias=bias)
            self.c_v = Linear(config.n_embd, kv_dim, bias=bias)
        self.c_proj = Linear(q_dim, config.n_embd, bias=config.out_bias)
        self.fused = fused
        if config.qk_norm != "none":
            self.q_norm = Norm(config, config.head_dim)
            self.k_norm = Norm(config, config.head_dim)
        if config.has_value_embed(layer):
            self.ve_gate = Linear(VALUE_GATE_CHANNELS, config.n_kv_head, bias=False)

    def forward(
        self,
        x: Tensor,
        span: Span,
        cos_sin: CosSin | None,
        cache: KVCache | None = None,
        value_embed: Tensor | None = None,
    ) -> Tensor:
        """(B, T, C) -> (B, T, C). ``value_embed`` is (B, T, Hkv * D)."""
        by_head = (*x.shape[:2], -1, self.head_dim)
        n_q, n_kv = self.heads
        if self.joint_qk:
            heads = self.c_qkv(x).view(by_head)  # (B, T, H + 2 Hkv, D)
            qk, v = heads.split_with_sizes((n_q + n_kv, n_kv), 2)
            q, k = self._norm_and_rotate(qk, cos_sin, 0).split_with_sizes((n_q, n_kv), 2)
        else:
            if self.fused:
                q, k, v = self.c_qkv(x).split_with_sizes(self.widths, -1)
            else:
                q, k, v = self.c_q(x), self.c_k(x), self.c_v(x)
            q = self._norm_and_rotate(q.reshape(by_head), cos_sin, 0)  # (B, T, H, D)
            k = self._norm_and_rotate(k.reshape(by_head), cos_sin, 1)  # (B, T, Hkv, D)
            v = v.reshape(by_head)  # (B, T, Hkv, D)
        if value_embed is not None:
            v = nanochat.add_value_embedding(v, value_embed, x, self.ve_gate)
        if cache is not None:
            k, v = cache.write(self.layer, k, v, span)  # (B, S, Hkv, D)
        y = attend(
            q, k, v, span, scale=self.scale, window=self.window, softcap=self.softcap
        )  # (B, T, H, D)
        out: Tensor = self.c_proj(y.flatten(2))
        return out

    def _norm_and_rotate(self, heads: Tensor, cos_sin: CosSin | None, which: int) -> Tensor:
        """Norm and rotate queries (``which`` 0) or keys (1), in the family's order."""
        norm = (self.q_norm, self.k_norm)[which] if self.qk_norm != "none" else None
        if norm is not None and self.qk_norm == "before_rope":
            heads = norm(heads)
        if cos_sin is not None:
            heads = rotate(heads, cos_sin)
        if norm is not None and self.qk_norm == "after_rope":
            heads = norm(heads)
        return heads


class MLP(nn.Module):
    """down(relu(up(x))²) (nanochat), or down(act(gate(x)) * up(x)).

    The matrices are called c_fc (up), c_gate and c_proj (down); ``fused`` joins the first two into
    c_gate_fc.
    """

    def __init__(self, config: ModelConfig, *, fused: bool) -> None:
        super().__init__()
        self.kind = config.mlp
        self.fused = fused and config.gated
        width, bias = config.n_hidden, config.mlp_bias
        if self.fused:
            self.c_gate_fc = Linear(config.n_embd, 2 * width, bias=bias)
        else:
            self.c_fc = Linear(config.n_embd, width, bias=bias)
            if config.gated:
                self.c_gate = Linear(config.n_embd, width, bias=bias)
        self.c_proj = Linear(width, config.n_embd, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "relu2":
            hidden = F.relu(self.c_fc(x)).square()  # (B, T, n_hidden)
        else:
            if self.fused:
                gate, up = self.c_gate_fc(x).chunk(2, -1)
            else:
                gate, up = self.c_gate(x), self.c_fc(x)
            in_place = not torch.is_grad_enabled()  # new memory costs more than the arithmetic
            if self.kind == "silu_gate":
                opened = F.silu(gate, inplace=in_place)
            else:
                opened = F.gelu(gate, approximate="tanh")
            hidden = opened.mul_(up) if in_place else opened * up
        out: Tensor = self.c_proj(hidden)
        return out


# Computes a block for (block, x, span, cos_sin, cache, value_embed), or returns None.
Step = Callable[["Block", Tensor, Span, CosSin | None, KVCache, Tensor | None], Tensor | None]


class Block(nn.Module):
    """Attention and MLP, each with a norm before (in Gemma 2 and 3 also after) and a residual."""

    def __init__(self, config: ModelConfig, layer: int, *, fused: bool) -> None:
        super().__init__()
        self.attn_norm = Norm(config, config.n_embd)
        self.attn = Attention(config, layer, fused=fused)
        self.mlp_norm = Norm(config, config.n_embd)
        self.mlp = MLP(config, fused=fused)
        self.post_norms = config.post_norms
        # The whole block as one kernel, if streamed.py has prepared it.
        self.native: native.Block | None = None
        # The same on CUDA, if pack.py has set it; it returns None where it does not apply.
        self.step: Step | None = None
        if config.post_norms:
            self.attn_post_norm = Norm(config, config.n_embd)
            self.mlp_post_norm = Norm(config, config.n_embd)

    def forward(
        self,
        x: Tensor,
        span: Span,
        cos_sin: CosSin | None,
        cache: KVCache | None = None,
        value_embed: Tensor | None = None,
    ) -> Tensor:
        if self.native is not None and cache is not None:
            step = native.steps(x, span, cos_sin, cache, value_embed, self.attn.layer)
            if step is not None:
                return native.block(x, self.native, step)
        if self.step is not None and cache is not None and not torch.compiler.is_compiling():
            after = self.step(self, x, span, cos_sin, cache, value_embed)
            if after is not None:
                return after
        y = self.attn(self.attn_norm(x), span, cos_sin, cache, value_embed)
        x = x + (self.attn_post_norm(y) if self.post_norms else y)
        y = self.mlp(self.mlp_norm(x))
        x = x + (self.mlp_post_norm(y) if self.post_norms else y)
        return x


def _embedding(rows: int, width: int) -> nn.Embedding:
    """Return an uninitialised embedding.

    Random initialisation on the meta device would load torch's compiler.
    """
    return nn.Embedding(rows, width, _weight=torch.empty(rows, width))


class GPT(nn.Module):
    """The whole model. To train it, call it without a cache.

    ``compute_dtype`` is the dtype of the residual stream (None: that of the embedding). Set it to
    bfloat16 to train float32 master weights without autocast.
    """

    def __init__(self, config: ModelConfig, *, fused: bool = False) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype: torch.dtype | None = None
        rows = config.padded_vocab_size
        blocks = [Block(config, layer, fused=fused) for layer in range(config.n_layer)]
        self.transformer = nn.ModuleDict(
            {"wte": _embedding(rows, config.n_embd), "h": nn.ModuleList(blocks)}
        )
        self.final_norm = Norm(config, config.n_embd)
        # ``logits`` of one row on CUDA, if pack.py has set it; None where it does not apply.
        self.multiply_row: Callable[[Tensor, nn.Module], Tensor | None] | None = None
        # A tied model has its own head only if it is quantised.
        self.lm_head: nn.Module | None = None
        if not config.tied:
            self.lm_head = Linear(config.n_embd, rows, bias=False)
        # Layers with the same RopeConfig share a table; ``rotary_of`` has its index per layer.
        kinds = {rope: None for i in range(config.n_layer) if (rope := config.rope_of(i))}
        self.rotaries = nn.ModuleList(Rotary(rope, config.sequence_len) for rope in kinds)
        order = list(kinds)
        ropes = [config.rope_of(i) for i in range(config.n_layer)]
        self.rotary_of = [None if rope is None else order.index(rope) for rope in ropes]
        if config.residual_scalars:
            self.resid_lambdas = nn.Parameter(torch.ones(config.n_layer))
            self.x0_lambdas = nn.Parameter(torch.zeros(config.n_layer))
        if config.smear:
            self.smear_gate = Linear(SMEAR_CHANNELS, 1, bias=False)
            self.smear_lambda = nn.Parameter(torch.zeros(1))
        if config.backout:
            self.backout_lambda = nn.Parameter(torch.full((1,), 0.2))
        self.value_embeds = nn.ModuleDict(
            {
                str(i): _embedding(rows, config.kv_dim)
                for i in range(config.n_layer)
                if config.has_value_embed(i)
            }
        )

    def forward(
        self,
        tokens: Tensor,
        cache: KVCache | None = None,
        counts: Sequence[int] | None = None,
    ) -> Tensor:
        """Return the logits (B, T, vocab_size) for tokens (B, T), in float32 or float64."""
        return self.logits(self.hidden(tokens, cache, counts))

    def hidden(
        self,
        tokens: Tensor,
        cache: KVCache | None = None,
        counts: Sequence[int] | None = None,
    ) -> Tensor:
        """Return the final hidden states, normed, (B, T, C).

        Args:
            tokens: The tokens, (B, T); with a cache, they continue its content.
            cache: The KV cache to read and extend.
            counts: The number of tokens in each row, if rows are padded on the right.

        Raises:
            ContextLengthError: the tokens exceed the context; the cache's content is unchanged.
        """
        if cache is None:
            if tokens.shape[1] > self.config.sequence_len:
                raise ContextLengthError(
                    f"{tokens.shape[1]} tokens do not fit the context of {self.config.sequence_len}"
                )
            span = Span(0, tokens.shape[1])
        else:
            span = cache.plan(tokens, counts)
        x = self.trunk(tokens, span, cache)
        if cache is not None:
            cache.commit(tokens, span)
        return x

    def trunk(self, tokens: Tensor, span: Span, cache: KVCache | None) -> Tensor:
        """Compute ``hidden`` for a planned span, without changing the cache's lengths."""
        config = self.config
        x = self._embed(tokens, span, cache)  # (B, T, C)
        cos_sins = [rotary(span, x) for rotary in self.rotaries]
        x0, middle = x, x
        for i, block in enumerate(self.blocks):
            if config.residual_scalars:
                x = nanochat.mix_residual(x, x0, self.resid_lambdas[i], self.x0_lambdas[i])
            value_embed = None
            if config.has_value_embed(i):
                value_embed = self.value_embeds[str(i)](tokens).to(x.dtype)  # (B, T, Hkv * D)
            rotary = self.rotary_of[i]
            cos_sin = None if rotary is None else cos_sins[rotary]
            x = block(x, span, cos_sin, cache, value_embed)
            if i == config.n_layer // 2:
                middle = x
        if config.backout:
            x = nanochat.backout(x, middle, self.backout_lambda)
        normed: Tensor = self.final_norm(x)
        return normed

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., C) -> (..., vocab_size), with the softcap, in float32 or float64."""
        logits = None
        if self.multiply_row is not None and not torch.compiler.is_compiling():
            head = self.transformer["wte"] if self.lm_head is None else self.lm_head
            logits = self.multiply_row(hidden, head)
        if logits is None:
            if self.lm_head is None:
                logits = F.linear(hidden, self.embedding_weight.to(hidden.dtype))
            else:
                logits = self.lm_head(hidden)
        logits = logits[..., : self.config.vocab_size]
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        cap = self.config.logit_softcap
        return cap * torch.tanh(logits / cap) if cap else logits

    def _embed(self, tokens: Tensor, span: Span, cache: KVCache | None) -> Tensor:
        """Return the token embeddings (B, T, C) after the family's scale, norm and smear."""
        x = self._embed_tokens(tokens)
        if not self.config.smear:
            return x
        first = None
        if cache is not None:
            token, exists = cache.previous(span)
            first = self._embed_tokens(token)  # (B, 1, C)
            if exists is not None:
                first = first * exists[..., None]
        return nanochat.smear(x, nanochat.shifted(x, first), self.smear_gate, self.smear_lambda)

    def _embed_tokens(self, tokens: Tensor) -> Tensor:
        x: Tensor = self.transformer["wte"](tokens)
        if self.compute_dtype is not None:
            x = x.to(self.compute_dtype)
        if self.config.embed_norm:
            x = F.rms_norm(x, (self.config.n_embd,), eps=self.config.norm_eps)
        if self.config.embed_scale != 1.0:
            # Gemma first rounds the scale to the dtype of the residual stream.
            x = x * torch.tensor(self.config.embed_scale, dtype=x.dtype)
        return x

    def new_cache(self, batch: int = 1, *, capacity: int = 0, limit: int | None = None) -> KVCache:
        """Return an empty KV cache with this model's dtype and device."""
        weight = self.embedding_weight
        return KVCache(
            self.config,
            batch,
            dtype=self.compute_dtype or weight.dtype,
            device=weight.device,
            capacity=capacity,
            limit=limit,
        )

    @property
    def blocks(self) -> Iterable[Block]:
        return self.transformer["h"]  # type: ignore[return-value]

    @property
    def embedding_weight(self) -> Tensor:
        """The token embeddings, (padded_vocab_size, C)."""
        weight: Tensor = self.transformer["wte"].weight  # type: ignore[assignment]
        return weight

    @property
    def device(self) -> torch.device:
        return self.embedding_weight.device

    @torch.no_grad()
    def init_weights(self, seed: int = 42) -> None:
        """Initialise as nanochat does, or from N(0, 0.02²); the same on every device."""
        generator = torch.Generator().manual_seed(seed)
        if self.config.residual_scalars:
            nanochat.init_weights(self, self.config.n_layer, self.config.n_embd, generator)
            return
        for name, parameter in self.named_parameters():
            if "norm" not in name and not name.endswith("bias"):
                parameter.copy_(torch.empty(parameter.shape).normal_(0, 0.02, generator=generator))

    def count_parameters(self) -> dict[str, int]:
        """Count all parameters ("total") and those of matrix products ("matrices").

        The latter leave out embeddings, which are only looked up.
        """
        total = sum(parameter.numel() for parameter in self.parameters())
        matrices = sum(m.weight.numel() for m in self.modules() if isinstance(m, nn.Linear))
        if self.config.tied:
            matrices += self.embedding_weight.numel()
        return {"total": total, "matrices": matrices}
