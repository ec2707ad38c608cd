"""The layers every part is made of: RMSNorm, SwiGLU, attention with QK-norm and rotary positions, two blocks.

Shape legend: B batch, T tokens, D width, K attention heads, E width of one head (D = K·E).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask

from heptapod.nn.flex import attend_to_blocks
from heptapod.nn.fused import gated_silu, rms_norm
from heptapod.nn.kv_cache import LayerCache
from heptapod.nn.rotary import Rotary, rotate

Mask = Tensor | BlockMask
"""True where attention is allowed, see :func:`heptapod.nn.flex.block_mask` for the second form."""


class RMSNorm(nn.Module):
    """Root-mean-square normalization over the last dimension (1910.07467)."""

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalizes (..., D); the dtype is kept."""
        return rms_norm(x, self.weight, self.eps)


ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The product x Wᵀ + b for x (..., inputs); in float32 on a CPU, sampling uses the oneDNN kernel.

    PyTorch itself calls MKL, which is slower for few rows (docs/sampling.md, an AMD processor).
    """
    sampling = not torch.compiler.is_compiling() and torch.is_inference_mode_enabled()
    if not (sampling and ONEDNN and _is_float32_on_cpu(x, weight)):
        return F.linear(x, weight, bias)
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out


def _is_float32_on_cpu(x: Tensor, weight: Tensor) -> bool:
    both = x.dtype == weight.dtype == torch.float32 and x.device.type == "cpu" and x.numel() > 0
    return both and not torch.is_autocast_enabled("cpu")


class Linear(nn.Linear):
    """A linear layer by :func:`linear`; inputs take the precision of its weights, unless autocast chooses it."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        if x.dtype != self.weight.dtype and not torch.is_autocast_enabled(x.device.type):
            x = x.to(self.weight.dtype)
        return linear(x, self.weight, self.bias)

    def in_float32(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs) float32, of inputs that are not rounded, under autocast or not."""
        bias = None if self.bias is None else self.bias.float()
        with torch.autocast(x.device.type, enabled=False):
            return linear(x.float(), self.weight.float(), bias)


class LayerNorm(nn.LayerNorm):
    """Layer normalization in the precision of its input, whatever that of its weights."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalizes (..., D)."""
        weight, bias = (None if p is None else p.to(x.dtype) for p in (self.weight, self.bias))
        return F.layer_norm(x, self.normalized_shape, weight, bias, self.eps)


class SwiGLU(nn.Module):
    """Gated feed-forward layer (2002.05202) with as many parameters as a plain one of ratio 4."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = 8 * math.ceil(width / 3)
        self.gate_up = Linear(width, 2 * inner, bias=False)
        self.down = Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (..., D) to (..., D)."""
        out: Tensor = self.down(gated_silu(self.gate_up(x)))
        return out


class Attention(nn.Module):
    """Multi-head attention with QK-norm; queries and keys can be made apart, so that keys can be kept."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.width = width
        self.num_heads = num_heads
        self.qkv = Linear(width, 3 * width, bias=False)
        self.out = Linear(width, width, bias=False)
        self.qk_scale = nn.Parameter(torch.ones(2, 1, width // num_heads))

    def project(self, x: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, D) -> queries, keys and values, (B, K, T, E) each; the first two normalized and rotated."""
        qk, value = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).split([2, 1], dim=2)  # (B, T, 2 or 1, K, E)
        qk = self.norm(qk, self.qk_scale)
        query, key = rotate(qk, Rotary(rotary.cos.unsqueeze(2), rotary.sin.unsqueeze(2))).unbind(2)
        return query.transpose(1, 2), key.transpose(1, 2), value.squeeze(2).transpose(1, 2)

    def queries(self, x: Tensor, rotary: Rotary, weight: Tensor) -> Tensor:
        """(B, T, D) -> (B, K, T, E), normalized and rotated; ``weight`` is the first of :meth:`weights`."""
        query = linear(x, weight).unflatten(-1, (self.num_heads, -1))
        return rotate(self.norm(query, self.qk_scale[0]), rotary).transpose(1, 2)

    def keys_values(self, x: Tensor, rotary: Rotary, weight: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, D) -> keys and values, (B, K, T, E) each, by the second of :meth:`weights`; keys as queries."""
        key, value = linear(x, weight).unflatten(-1, (2, self.num_heads, -1)).unbind(2)
        return rotate(self.norm(key, self.qk_scale[1]), rotary).transpose(1, 2), value.transpose(1, 2)

    def weights(self) -> tuple[Tensor, Tensor]:
        """The weights of queries (D, D), and of keys and values (2·D, D); split once, their gradients join once."""
        queries, keys_values = self.qkv.weight.split([self.width, 2 * self.width])
        return queries, keys_values

    norm = staticmethod(rms_norm)
    """Normalizes queries and keys (…, E)."""

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Mask | None = None, causal: bool = False
    ) -> Tensor:
        """Attention of (B, K, Tq, E) to (B, K, Tk, E); ``mask`` is True where attention is allowed.

        Returns:
            (B, Tq, D).
        """
        if isinstance(mask, BlockMask):
            x = attend_to_blocks(query, key, value, mask)
        elif query.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            # The CPU kernel's backward pass in bf16 is several times slower than in float32.
            with torch.autocast("cpu", enabled=False):
                x = F.scaled_dot_product_attention(
                    query.float(), key.float(), value.float(), attn_mask=mask, is_causal=causal
                )
        else:
            x = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)
        out: Tensor = self.out(x.transpose(1, 2).flatten(2))
        return out


class Block(nn.Module):
    """The layers of a pre-norm Transformer block."""

    dropout = 0.0
    """Probability of zeroing a value of a residual branch in training (scaled by 1 / (1 - p), as torch does)."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(width)
        self.attention = Attention(width, num_heads)
        self.mlp_norm = RMSNorm(width)
        self.mlp = SwiGLU(width)

    def attend_and_map(
        self, x: Tensor, query: Tensor, key: Tensor, value: Tensor, mask: Mask | None = None, causal: bool = False
    ) -> Tensor:
        """Both residual branches of x (B, T, D): attention, see :meth:`Attention.attend`, then SwiGLU."""
        x = x + self._drop(self.attention.attend(query, key, value, mask, causal))
        out: Tensor = x + self._drop(self.mlp(self.mlp_norm(x)))
        return out

    def _drop(self, branch: Tensor) -> Tensor:
        return F.dropout(branch, self.dropout, self.training)


class SelfBlock(Block):
    """Pre-norm Transformer block: self-attention, then SwiGLU."""

    def forward(
        self,
        x: Tensor,
        rotary: Rotary,
        mask: Tensor | None = None,
        causal: bool = False,
        cache: LayerCache | None = None,
        only: tuple[Tensor, Rotary] | None = None,
    ) -> Tensor:
        """(B, T, D) -> (B, T, D); with a cache the tokens also attend to those it holds.

        ``only`` names some tokens (B, L) with their angles: then all attend, but only theirs are put out, (B, L, D).
        """
        h = self.attention_norm(x)
        if only is None:
            query, key, value = self.attention.project(h, rotary)
        else:
            index = only[0].unsqueeze(-1).expand(-1, -1, x.shape[-1])
            of_queries, of_states = self.attention.weights()
            query, x = self.attention.queries(h.gather(1, index), only[1], of_queries), x.gather(1, index)
            key, value = self.attention.keys_values(h, rotary, of_states)
        if cache is not None:
            key, value = cache.append(key, value)
        return self.attend_and_map(x, query, key, value, mask, causal)


class CrossBlock(Block):
    """Pre-norm block whose queries attend to other states, then SwiGLU."""

    def forward(
        self,
        x: Tensor,
        rotary: Rotary,
        memory: Tensor,
        memory_rotary: Rotary,
        mask: Mask | None = None,
        cache: LayerCache | None = None,
    ) -> Tensor:
        """(B, T, D) -> (B, T, D), attending to states (B, Tk, D); with a cache also to those it holds."""
        of_queries, of_memory = self.attention.weights()
        query = self.attention.queries(self.attention_norm(x), rotary, of_queries)
        if cache is not None and memory.shape[1] == 0:
            key, value = cache.contents()
        else:
            key, value = self.attention.keys_values(memory, memory_rotary, of_memory)
            if cache is not None:
                key, value = cache.append(key, value)
        return self.attend_and_map(x, query, key, value, mask)


class GroupBlock(Block):
    """Pre-norm block whose queries attend to other states and to each other in one softmax, then SwiGLU."""

    def forward(
        self,
        x: Tensor,
        rotary: Rotary,
        memory: Tensor,
        memory_rotary: Rotary,
        mask: Mask | None = None,
        cache: LayerCache | None = None,
    ) -> Tensor:
        """(B, T, D) -> (B, T, D), attending to states (B, Tk, D) and to themselves.

        A cache takes the keys of the states, and behind them those of the queries; do not count the latter as cached.
        """
        query, key, value = self.attention.project(self.attention_norm(x), rotary)
        if memory.shape[1]:
            memory_key, memory_value = self.attention.keys_values(memory, memory_rotary, self.attention.weights()[1])
            key, value = torch.cat([memory_key, key], dim=2), torch.cat([memory_value, value], dim=2)
        if cache is not None:
            key, value = cache.append(key, value)
        return self.attend_and_map(x, query, key, value, mask)


def causal_self_attention_mask(num_new: int, num_past: int, device: torch.device) -> Tensor | None:
    """Mask (num_new, num_past + num_new) for new tokens behind a cache; None where all is visible."""
    if num_new == 1:
        return None
    ones = torch.ones(num_new, num_past + num_new, dtype=torch.bool, device=device)
    return ones.tril(diagonal=num_past)


def init_weights(module: nn.Module, depth: int) -> None:
    """Truncated normal 0.02 for matrices; outputs of residual branches are scaled by 1/sqrt(2·depth).

    Args:
        module: what to initialize in place, from torch's global generator (see ``seeded_initialization``).
        depth: residual blocks that a token passes through.
    """
    for name, child in module.named_modules():
        if isinstance(child, nn.Linear | nn.Embedding):
            residual = name.endswith(("attention.out", "mlp.down"))
            std = 0.02 / math.sqrt(2 * depth) if residual else 0.02
            nn.init.trunc_normal_(child.weight, std=std, a=-3 * std, b=3 * std)
            if isinstance(child, nn.Linear) and child.bias is not None:
                nn.init.zeros_(child.bias)
