"""Keys and values of tokens that are already processed, in buffers that are allocated once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class LayerCache(NamedTuple):
    """Keys and values of one layer. It names no layer, so that what is compiled for one serves all."""

    keys: Tensor
    """(B, K, capacity, E)."""
    values: Tensor
    """(B, K, capacity, E)."""
    length: int
    """Number of cached tokens."""

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Writes (B, K, T, E) after the cached tokens; returns all of them, old and new, as views."""
        end, capacity = self.length + keys.shape[2], self.keys.shape[2]
        assert end <= capacity, f"cache of {capacity} tokens asked to hold {end}"
        self.keys[:, :, self.length : end] = keys
        self.values[:, :, self.length : end] = values
        return self.keys[:, :, :end], self.values[:, :, :end]

    def contents(self) -> tuple[Tensor, Tensor]:
        """Keys and values (B, K, length, E) of the cached tokens, as views."""
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]


class KVCache:
    """Preallocated keys and values of a stack of attention layers.

    A forward pass writes its new tokens with :meth:`LayerCache.append` in every layer and then calls :meth:`advance`
    once.

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

    def layer(self, layer: int) -> LayerCache:
        """The part of one layer."""
        return LayerCache(self.keys[layer], self.values[layer], self.length)

    def advance(self, num_tokens: int) -> None:
        """Counts the tokens that every layer has just appended."""
        self.length += num_tokens
