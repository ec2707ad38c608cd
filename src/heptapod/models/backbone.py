"""The backbone: a plain causal Transformer over [condition, x_σ(1), x_σ(2), …].

It sees embeddings and cell indices only, never the type of a token.
"""

from __future__ import annotations

from torch import Tensor, nn

from heptapod.nn.kv_cache import KVCache
from heptapod.nn.layers import RMSNorm, SelfBlock, causal_self_attention_mask
from heptapod.nn.rotary import rotary_2d


class Backbone(nn.Module):
    """Causal Transformer: pre-norm RMSNorm, SwiGLU, QK-norm, 2D rotary positions by each token's cell.

    Args:
        width: model width D.
        depth: number of blocks.
        num_heads: attention heads.
        rotary_base: see :func:`heptapod.nn.rotary.rotary_2d`.
    """

    def __init__(self, width: int, depth: int, num_heads: int, rotary_base: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_width = width // num_heads
        self.rotary_base = rotary_base
        self.blocks = nn.ModuleList(SelfBlock(width, num_heads) for _ in range(depth))
        self.norm = RMSNorm(width)

    def forward(
        self, x: Tensor, cells: Tensor, grid_height: int, grid_width: int, cache: KVCache | None = None
    ) -> Tensor:
        """Hidden states of a sequence, or of its next tokens when a cache holds the earlier ones.

        Args:
            x: (B, T, D) embeddings.
            cells: (B, T) int64 cell of each token, ``CONDITION_CELL`` for the condition.
            grid_height: rows of the grid.
            grid_width: columns of the grid.
            cache: keys and values of the tokens before; the new ones are appended to it.

        Returns:
            (B, T, D): state i depends on tokens 0..i only.
        """
        rotary = rotary_2d(cells, grid_height, grid_width, self.head_width, self.rotary_base)
        num_new, num_past = x.shape[1], 0 if cache is None else cache.length
        causal = num_past == 0
        mask = None if causal else causal_self_attention_mask(num_new, num_past, x.device)
        for layer, block in enumerate(self.blocks):
            x = block(x, rotary, mask, causal, cache and cache.layer(layer))
        if cache is not None:
            cache.advance(num_new)
        out: Tensor = self.norm(x)
        return out
