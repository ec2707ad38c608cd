"""Token sets: images seen through a frozen tokenizer, encoded once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from heptapod.data.images import ImageSet, flipped
from heptapod.progress import Progress
from heptapod.tokenizers.base import GridSpec, Tokenizer, to_float


@dataclass
class TokenSet:
    """Encoded images."""

    views: list[Tensor]
    """(M, N) int32 each: the images as they are and, with flipping, mirrored."""
    labels: Tensor
    """(M,) int64, -1 where there is no label."""
    names: list[str]
    """Names of the images."""
    grid: GridSpec
    """The token grid."""

    def __len__(self) -> int:
        return len(self.labels)

    def items(self, indices: Tensor, keys: list[tuple[int, int, int]]) -> Tensor:
        """Tokens (B, N) int64 by index, of the mirrored view where an image's stream says so."""
        tokens = self.views[0][indices]
        if len(self.views) == 2:
            tokens = torch.where(flipped(keys).unsqueeze(1), self.views[1][indices], tokens)
        return tokens.long()


@torch.inference_mode()
def encode_images(tokenizer: Tokenizer, images: ImageSet, batch_size: int = 256) -> TokenSet:
    """Encodes all images, and their mirror images if ``images.flip`` is set.

    Raises:
        ValueError: if the image size does not fit the tokenizer.
    """
    grid = tokenizer.grid(*images.size)
    views = []
    for mirrored in [False, True] if images.flip else [False]:
        what = "mirrored images" if mirrored else "images"
        tokens = torch.empty(len(images), grid.num_cells, dtype=torch.int32)
        with Progress(f"tokenizing {len(images):,} {what}", len(images)) as progress:
            for start in range(0, len(images), batch_size):
                pixels = to_float(images.images[start : start + batch_size]).to(tokenizer.device)
                pixels = pixels.flip(-1) if mirrored else pixels
                tokens[start : start + len(pixels)] = tokenizer.encode(pixels).int().cpu()
                progress.advance(len(pixels))
        views.append(tokens)
    return TokenSet(views, images.labels, images.names, grid)
