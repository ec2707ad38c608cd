"""The layers every part is made of: RMSNorm, SwiGLU, attention with QK-norm and rotary positions, two blocks.

Shape legend: B batch, T tokens, D width, K attention heads, E width of one head (D = K·E).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heptapod.models.kv_cache import KVCache
from heptapod.models.rotary import Rotary, rotate


class RMSNorm(nn.Module):
    """Root-mean-square normalisation over the last dimension (1910.07467), computed in the input's dtype."""

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalises (..., D)."""
        # The cast keeps bf16 activations on the fused kernel, which wants one dtype.
        return F.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), self.eps)


class SwiGLU(nn.Module):
    """Gated feed-forward layer (2002.05202) with as many parameters as a plain one of ratio 4."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = 8 * math.ceil(width / 3)
        self.gate_up = nn.Linear(width, 2 * inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (..., D) to (..., D)."""
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        out: Tensor = self.down(F.silu(gate) * up)
        return out


class Attention(nn.Module):
    """Multi-head attention with QK-norm; queries and keys are made apart, so that keys can be kept."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.query_norm = RMSNorm(width // num_heads)
        self.key_norm = RMSNorm(width // num_heads)

    def queries(self, x: Tensor, rotary: Rotary) -> Tensor:
        """(B, T, D) -> (B, K, T, E), normalised and rotated."""
        return rotate(self.query_norm(self._split(self.query(x))), rotary)

    def keys_values(self, x: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor]:
        """(B, T, D) -> keys and values, (B, K, T, E) each; the keys are normalised and rotated."""
        key, value = self.key_value(x).chunk(2, dim=-1)
        return rotate(self.key_norm(self._split(key)), rotary), self._split(value)

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """Attention of (B, K, Tq, E) to (B, K, Tk, E); ``mask`` is True where attention is allowed.

        Returns:
            (B, Tq, D).
        """
        if query.device.type == "cpu":
            # The CPU kernel's backward pass in bf16 is several times slower than in float32.
            with torch.autocast("cpu", enabled=False):
                query, key, value = query.float(), key.float(), value.float()
                x = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)
        else:
            x = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)
        out: Tensor = self.out(x.transpose(1, 2).flatten(2))
        return out

    def _split(self, x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        return heads


class SelfBlock(nn.Module):
    """Pre-norm Transformer block: self-attention, then SwiGLU."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(width)
        self.attention = Attention(width, num_heads)
        self.mlp_norm = RMSNorm(width)
        self.mlp = SwiGLU(width)

    def forward(
        self,
        x: Tensor,
        rotary: Rotary,
        mask: Tensor | None = None,
        causal: bool = False,
        cache: KVCache | None = None,
        layer: int = 0,
    ) -> Tensor:
        """(B, T, D) -> (B, T, D); with a cache the tokens also attend to those it holds."""
        h = self.attention_norm(x)
        query = self.attention.queries(h, rotary)
        key, value = self.attention.keys_values(h, rotary)
        if cache is not None:
            key, value = cache.append(layer, key, value)
        x = x + self.attention.attend(query, key, value, mask, causal)
        out: Tensor = x + self.mlp(self.mlp_norm(x))
        return out


class CrossBlock(nn.Module):
    """Pre-norm block whose queries attend to given keys and values, then SwiGLU."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(width)
        self.attention = Attention(width, num_heads)
        self.mlp_norm = RMSNorm(width)
        self.mlp = SwiGLU(width)

    def forward(self, x: Tensor, rotary: Rotary, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D), attending to keys and values (B, K, Tk, E)."""
        query = self.attention.queries(self.attention_norm(x), rotary)
        x = x + self.attention.attend(query, key, value, mask)
        out: Tensor = x + self.mlp(self.mlp_norm(x))
        return out


def causal_self_attention_mask(num_new: int, num_past: int, device: torch.device) -> Tensor | None:
    """Mask (num_new, num_past + num_new) for new tokens behind a cache; None where all is visible."""
    if num_new == 1:
        return None
    ones = torch.ones(num_new, num_past + num_new, dtype=torch.bool, device=device)
    return ones.tril(diagonal=num_past)


def init_weights(module: nn.Module, depth: int) -> None:
    """Truncated normal 0.02 for matrices; outputs of residual branches are scaled by 1/sqrt(2·depth).

    Args:
        module: what to initialise in place, from torch's own generator (see ``seeded_initialization``).
        depth: residual blocks that a token passes through.
    """
    for name, child in module.named_modules():
        if isinstance(child, nn.Linear | nn.Embedding):
            residual = name.endswith(("attention.out", "mlp.down"))
            std = 0.02 / math.sqrt(2 * depth) if residual else 0.02
            nn.init.trunc_normal_(child.weight, std=std, a=-3 * std, b=3 * std)
            if isinstance(child, nn.Linear) and child.bias is not None:
                nn.init.zeros_(child.bias)
