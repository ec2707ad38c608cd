"""A trained model and its tokenizer, with everything known about both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor

from heptapod.configs.grid import TokenOrder
from heptapod.configs.sampling import DEFAULT_BATCH
from heptapod.inference.images_in import ImagesInput, image_batch
from heptapod.models import HeptapodModel
from heptapod.sampling import SamplingConfig
from heptapod.tokenizers import Tokenizer
from heptapod.tokenizers.encode import decode_pixels, encode_pixels
from heptapod.utils.checks import check_at_least
from heptapod.utils.weights import unwrapped


class ModelBundle:
    """A trained model and its tokenizer.

    Args:
        model: the token model; wrappers (torch.compile, DistributedDataParallel) are taken off.
        tokenizer: turns its tokens into pixels, likewise.
        class_names: names of the classes.
        token_order: the order(s) the model was trained on.
        sampling: defaults of :meth:`generate`.
        metadata: anything worth knowing about the weights (the step, held-out figures).
        label_dropout: how often it was trained without the label; None if that is not known.
    """

    def __init__(
        self,
        model: HeptapodModel,
        tokenizer: Tokenizer,
        class_names: Sequence[str] = (),
        token_order: TokenOrder = "raster",
        sampling: SamplingConfig | None = None,
        metadata: dict[str, str] | None = None,
        label_dropout: float | None = None,
    ) -> None:
        self.model = cast(HeptapodModel, unwrapped(model)).eval()
        self.tokenizer = cast(Tokenizer, unwrapped(tokenizer)).eval()
        self.class_names = list(class_names)
        self.token_order = token_order
        self.sampling = sampling or SamplingConfig()
        self.metadata = metadata or {}
        self.label_dropout = label_dropout

    @torch.no_grad()
    def decode(self, tokens: Tensor, batch_size: int | None = None) -> Tensor:
        """Tokens (M, N) or (M, N, C) to pixels (M, 3, h, w) uint8 on the CPU; ``batch_size`` as in :meth:`generate`."""
        parts = [
            decode_pixels(self.tokenizer, tokens[rows], self.model.grid, self.model.dtype)[:kept]
            for rows, kept in padded_batches(len(tokens), batch_size)
        ]
        return torch.cat(parts)

    def encode(self, images: ImagesInput, batch_size: int = DEFAULT_BATCH, progress: bool = False) -> Tensor:
        """Tokens of images of the model's size, the inverse of :meth:`decode`.

        Args:
            images: what :meth:`generate` returns: PIL images, or (M, 3, h, w) uint8; or (M, h, w, 3) uint8 arrays. A
                single image is a batch of one.
            batch_size: images at a time.
            progress: show a progress bar.

        Returns:
            (M, N) int64 or (M, N, C) float32 on the CPU.

        Raises:
            ValueError: for anything else, or images of another size than the model's.
        """
        pixels = image_batch(images)
        if tuple(pixels.shape[2:]) != self.image_size:
            height, width = self.image_size
            raise ValueError(
                f"images: {tuple(pixels.shape)} of {pixels.dtype} given, must be (M, 3, {height}, {width}) of uint8 "
                "(at_size changes the model's size)"
            )
        return encode_pixels(self.tokenizer, pixels, batch_size, progress=progress)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of its images in pixels."""
        return self.tokenizer.image_size(self.model.grid)

    @property
    def trained_image_size(self) -> tuple[int, int]:
        """Height and width of the images it was trained on, in pixels."""
        return self.tokenizer.image_size(self.model.trained_grid)


def padded_batches(total: int, batch_size: int | None) -> Iterator[tuple[list[int], int]]:
    """Row numbers of each batch and how many of them count: a given size is padded with the last row."""
    check_at_least(1, batch_size=batch_size)
    size = batch_size or min(total, DEFAULT_BATCH)
    for start in range(0, total, size):
        kept = min(size, total - start)
        filled = size if batch_size else kept
        yield [min(i, total - 1) for i in range(start, start + filled)], kept
