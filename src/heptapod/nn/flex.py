"""Attention with a mask whose empty blocks are skipped (FlexAttention, 2412.05496), for training on a GPU."""

from __future__ import annotations

from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention


def block_mask(mask: Tensor) -> BlockMask:
    """A mask (B, 1, Tq, Tk), True where attention is allowed, as a block mask that lists the non-empty blocks."""
    batch, _, queries, keys = mask.shape

    def allowed(image: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return mask[image, 0, query, key]

    return create_block_mask(allowed, batch, None, queries, keys, device=mask.device)


def attend_to_blocks(query: Tensor, key: Tensor, value: Tensor, mask: BlockMask) -> Tensor:
    """Attention of (B, K, Tq, E) to (B, K, Tk, E) -> (B, K, Tq, E); fast where the block is compiled."""
    out = flex_attention(query, key, value, block_mask=mask)
    assert isinstance(out, Tensor)
    return out
