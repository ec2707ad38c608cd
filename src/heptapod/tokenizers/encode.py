"""Pixels to tokens and back through a tokenizer, batch by batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from heptapod.grid import GridSpec
from heptapod.tokenizers.base import Tokenizer, to_float, to_uint8
from heptapod.utils.logging import Progress
from heptapod.utils.weights import non_finite_error


@torch.no_grad()
def encode_pixels(
    tokenizer: Tokenizer,
    images: Tensor,
    batch_size: int | None = None,
    flip: bool = False,
    progress: bool = False,
    names: Sequence[str] | None = None,
) -> Tensor:
    """Tokens (M, N) int64 or (M, N, C) float32 on the CPU.

    Args:
        tokenizer: in evaluation mode.
        images: (M, 3, h, w) uint8, sides multiples of the tokenizer's factor.
        batch_size: images at a time; all at once if left out.
        flip: encode the mirror images.
        progress: show a progress bar.
        names: names of the images, for errors.

    Raises:
        NonFiniteError: if the latents of an image are not finite.
    """
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size: {batch_size} given, must be at least 1")
    parts = []
    with Progress(f"encoding {len(images):,} images", len(images), shown=progress) as bar:
        for part in images.split(batch_size or len(images)):
            pixels = to_float(part).to(tokenizer.device, tokenizer.dtype)
            parts.append(tokenizer.encode(pixels.flip(-1) if flip else pixels).cpu())
            bar.advance(len(part))
    tokens = torch.cat(parts)
    valid = (tokens.isfinite() if tokens.is_floating_point() else tokens >= 0).flatten(1).all(1)
    if not valid.all():
        number = int((~valid).nonzero()[0])
        name = f"image {number}" if names is None else names[number]
        raise non_finite_error(f"{name}: the latents of the tokenizer are", tokenizer, tokenizer.dtype)
    return tokens


@torch.no_grad()
def decode_pixels(tokenizer: Tokenizer, tokens: Tensor, grid: GridSpec, dtype: torch.dtype = torch.float32) -> Tensor:
    """Images (M, 3, h, w) uint8 on the CPU of tokens (M, N) int64 or (M, N, C) float32.

    Args:
        tokenizer: in evaluation mode.
        tokens: tokens by cell.
        grid: the grid they lie on.
        dtype: bfloat16 or float16 compute in it by autocast.

    Raises:
        NonFiniteError: if a decoded pixel is not a number.
    """
    with torch.autocast(tokenizer.device.type, dtype, enabled=dtype != torch.float32):
        images = tokenizer.decode(tokens.to(tokenizer.device), grid).float()
    pixels, is_broken = to_uint8(images).cpu(), bool((~images.isfinite()).any())
    if is_broken:
        computed = dtype if dtype != torch.float32 else tokenizer.dtype
        raise non_finite_error("tokenizer: its decoded pixels are", tokenizer, computed)
    return pixels
