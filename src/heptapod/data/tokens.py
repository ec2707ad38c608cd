"""Token sets: images encoded once by a frozen tokenizer, in memory or memory-mapped from a cache."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from heptapod.data.images import ImageSet
from heptapod.grid import GridSpec
from heptapod.tokenizers.base import Tokenizer
from heptapod.tokenizers.encode import encode_pixels
from heptapod.utils.logging import Progress
from heptapod.utils.random import KeyedGenerator, Stream


@dataclass
class TokenSet:
    """Encoded images. Each has one or more views (crops, mirrored or not); training reads a random one."""

    shards: list[Tensor]
    """(m, views, N) integer codes or (m, views, N, C) latents each, in memory or memory-mapped."""
    labels: Tensor
    """(M,) int64, -1 for no label."""
    names: Sequence[str]
    """Names of the images."""
    class_names: list[str]
    """Name of each class; empty for a set without labels."""
    grid: GridSpec
    """The token grid."""
    views: list[int]
    """The stored views that training reads; the first is the unaugmented image."""
    unreadable: list[str] = field(default_factory=list)
    """"name: reason" of every unreadable image."""
    rows: Tensor | None = None
    """(M,) int64: positions in the shards, for a subset of them; None for all in order."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the grid."""
        return self.grid.height, self.grid.width

    @property
    def is_slow(self) -> bool:
        """False: tokens are in memory, or memory-mapped."""
        return False

    def sha256(self) -> str:
        """Hash of the unaugmented tokens and the labels."""
        digest = hashlib.sha256(self.labels.numpy().data)
        for start in range(0, len(self), 4096):
            indices = torch.arange(start, min(start + 4096, len(self)))
            digest.update(self._read(indices, torch.full_like(indices, self.views[0])).numpy().data)
        return digest.hexdigest()

    def items(self, indices: Tensor, keys: list[tuple[int, int, int]]) -> Tensor:
        """Tokens (B, N) int64 or (B, N, C) float32 by index, of the view chosen by the random stream of each key."""
        if len(self.views) == 1:
            chosen = torch.full((len(indices),), self.views[0])
        else:
            views = (KeyedGenerator(Stream.AUGMENT, keys).uniform(1).squeeze(1) * len(self.views)).long()
            chosen = torch.tensor(self.views)[views.clamp(max=len(self.views) - 1)]
        return self._read(indices, chosen)

    def head(self, count: int) -> Tensor:
        """Unaugmented tokens of the first images: (count, N) int64 or (count, N, C) float32."""
        indices = torch.arange(min(count, len(self)))
        return self._read(indices, torch.full_like(indices, self.views[0]))

    def view(self, indices: Tensor, view: int) -> Tensor:
        """Tokens (B, N) int64 or (B, N, C) float32 of one stored view, by index."""
        return self._read(indices, torch.full_like(indices, view))

    def subset(self, indices: np.ndarray) -> TokenSet:
        """The images with the given indices, in that order, from the same shards."""
        chosen = torch.from_numpy(indices)
        rows = chosen if self.rows is None else self.rows[chosen]
        names = [self.names[i] for i in indices.tolist()]
        return TokenSet(self.shards, self.labels[chosen], names, self.class_names, self.grid, self.views, [], rows)

    @cached_property
    def _ends(self) -> Tensor:
        return torch.tensor([len(shard) for shard in self.shards]).cumsum(0)

    def _read(self, indices: Tensor, views: Tensor) -> Tensor:
        rows = indices if self.rows is None else self.rows[indices]
        dtype = torch.int64 if self.grid.is_discrete else torch.float32
        if len(self.shards) == 1:
            tokens = self.shards[0][rows, views].to(dtype)
        else:
            tokens = torch.empty(len(rows), *self.grid.token_shape, dtype=dtype)
            owner = torch.searchsorted(self._ends, rows, right=True)
            for shard in owner.unique().tolist():
                here = owner == shard
                first = int(self._ends[shard]) - len(self.shards[shard])
                tokens[here] = self.shards[shard][rows[here] - first, views[here]].to(dtype)
        low, high = torch.aminmax(tokens) if self.grid.is_discrete and tokens.numel() else (0, 0)
        if low < 0 or high >= self.grid.vocabulary_size > 0:
            row = int(((tokens < 0) | (tokens >= self.grid.vocabulary_size)).any(1).nonzero()[0])
            raise ValueError(
                f"{self.names[int(indices[row])]}: its tokens are no codes of 0 to {self.grid.vocabulary_size - 1:,}; "
                "the cache is damaged (heptapod info CACHE --verify names the file)"
            )
        return tokens

    def check_finite(self) -> None:
        """Checks every view of every image.

        Raises:
            ValueError: if a latent is not finite or a code is out of range; names the image.
        """
        for indices in torch.arange(len(self)).split(4096):
            for view in self.views:
                finite = self._read(indices, torch.full_like(indices, view)).isfinite().flatten(1).all(1)
                if not finite.all():
                    name = self.names[int(indices[~finite][0])]
                    raise ValueError(f"{name}: its latents are not finite; check the tokenizer and the cache")


@torch.inference_mode()
def encode_images(tokenizer: Tokenizer, images: ImageSet, batch_size: int = 256) -> TokenSet:
    """Encodes all images, and their mirror images if ``images.flip`` is set.

    Raises:
        ValueError: if the image size does not fit the tokenizer, or latents are not finite.
    """
    grid = tokenizer.grid(*images.size)
    num_views = 2 if images.flip else 1
    dtype = torch.int32 if grid.is_discrete else torch.float32
    tokens = torch.empty(len(images), num_views, *grid.token_shape, dtype=dtype)
    with Progress(f"tokenizing {len(images):,} images", len(images)) as progress:
        for start in range(0, len(images), batch_size):
            pixels = images.images[start : start + batch_size]
            part = tokens[start : start + len(pixels)]
            for view in range(num_views):
                names = images.names[start : start + len(pixels)]
                part[:, view] = encode_pixels(tokenizer, pixels, flip=bool(view), names=names).to(dtype)
            progress.advance(len(pixels))
    return TokenSet(
        [tokens], images.labels, images.names, images.class_names, grid, list(range(num_views)), images.unreadable
    )
