"""Keys and values of tokens that are already processed, in buffers that are allocated once."""

from __future__ import annotations

import torch
from torch import Tensor


class KVCache:
    """Preallocated keys and values of a stack of attention layers.

    A forward pass writes its new tokens with :meth:`append` in every layer and then calls :meth:`advance` once.

    Args:
        num_layers: attention layers in the stack.
        batch: images.
        num_heads: attention heads K.
        capacity: largest number of tokens.
        head_width: width E of one head.
        device: where the buffers live.
        dtype: type of the buffers.
    """

    def __init__(
        self,
        num_layers: int,
        batch: int,
        num_heads: int,
        capacity: int,
        head_width: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        shape = (num_layers, batch, num_heads, capacity, head_width)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.length = 0
        self.capacity = capacity

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Writes (B, K, T, E) behind the tokens held; returns all of them, old and new, as views."""
        end = self.length + keys.shape[2]
        assert end <= self.capacity, f"cache of {self.capacity} tokens asked to hold {end}"
        self.keys[layer, :, :, self.length : end] = keys
        self.values[layer, :, :, self.length : end] = values
        return self.layer(layer, end)

    def layer(self, layer: int, end: int | None = None) -> tuple[Tensor, Tensor]:
        """Keys and values of one layer, (B, K, length, E) each, as views."""
        end = self.length if end is None else end
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def advance(self, num_tokens: int) -> None:
        """Counts the tokens that every layer has just appended."""
        self.length += num_tokens
