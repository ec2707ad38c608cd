"""Editing: some cells of an image stay as they are, the others are sampled anew.

In-painting, out-painting and variations are one call of the sampling loop; they differ in the mask only. So does
keeping a region while its class changes: give another label.

Shape legend: M results, N cells, h × w pixels.
"""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from heptapod.grid import GridSpec, with_tokens_at
from heptapod.inference.pipeline import Heptapod
from heptapod.inference.record import composited
from heptapod.sampling import Known, SamplingConfig
from heptapod.tokenizers.base import to_float

OUTSIDE = 128
"""Gray of what an out-painted image does not cover yet."""


@dataclass
class Edit:
    """Edited images beside their original. All tensors are on the CPU."""

    images: Tensor
    """(M, 3, h, w) uint8."""
    tokens: Tensor
    """(M, N) int64 or (M, N, C) float32."""
    original: Tensor
    """(3, h, w) uint8: the image on its canvas, gray outside."""
    original_tokens: Tensor
    """(N,) int64 or (N, C) float32: its tokens, 0 outside."""
    mask: Tensor
    """(h, w) bool: the pixels that were to be repainted."""
    kept: Tensor
    """(N,) bool: the cells that were kept, those without such a pixel."""
    labels: list[int]
    """Class index of each result, -1 without a label."""
    sampling: SamplingConfig
    """What was sampled with."""

    @property
    def kept_cells_identical(self) -> bool:
        """Whether every kept cell of every result has the original's token, bit for bit."""
        tokens, original = self.tokens[:, self.kept], self.original_tokens[self.kept].unsqueeze(0)
        if tokens.is_floating_point():  # by their bits: 0 and -0 differ
            tokens, original = tokens.view(torch.int32), original.contiguous().view(torch.int32)
        return torch.equal(tokens, original.expand_as(tokens))

    @property
    def largest_difference_outside_mask(self) -> int:
        """The largest change of a pixel that was not to be repainted, in levels of 0..255; 0 where there is none."""
        difference = (self.images.short() - self.original.short()).abs()
        return int(difference.masked_fill(self.mask, 0).max())


def edit(
    heptapod: Heptapod,
    image: Tensor,
    mask: Tensor,
    labels: int | str | Sequence[int | str] | None = None,
    *,
    count: int = 1,
    seed: int | Sequence[int] = 0,
    composite: bool = False,
    batch_size: int | None = None,
    progress: bool = False,
    **settings: Any,
) -> Edit:
    """Repaints a part of an image; every cell without a pixel to repaint is kept, bit for bit in token space.

    The tokens are those of the whole image: what a tokenizer sees around a cell, also of the part to be repainted, may
    show in the cells that are kept.

    Args:
        heptapod: the model; used on the image's grid (with a warning if it was trained on another).
        image: (3, h, w) uint8, sides multiples of the tokenizer's factor.
        mask: (h, w) bool, the pixels to repaint.
        labels: a class, or several; another than the image's changes the class of what is repainted. None repaints
            without a label, which a model knows that is unconditional or was trained with label dropout.
        count: results per label.
        seed: result i takes seed + i; or one seed per result.
        composite: put the image's own pixels back wherever the mask is False. Otherwise what was kept is also decoded
            from its tokens, and differs by what the tokenizer loses.
        batch_size: results at a time, as in :meth:`Heptapod.generate`.
        progress: show a progress bar.
        **settings: as in :meth:`Heptapod.generate`; steps and schedule are about the cells to repaint only.

    Returns:
        ``count`` results per label, those of the first label first.

    Raises:
        ValueError: for an image or mask of the wrong size, a mask that leaves nothing to repaint or nothing to keep,
            or a label, seed or setting out of range.
    """
    heptapod = _on_grid_of(heptapod, image)
    if mask.dtype != torch.bool or mask.shape != image.shape[1:]:
        raise ValueError(
            f"mask: {tuple(mask.shape)} of {mask.dtype} given, must be {tuple(image.shape[1:])} of bool, the image's "
            "height and width"
        )
    kept = ~_touched(mask.cpu(), heptapod.tokenizer.factor)
    if kept.all():
        raise ValueError("mask: it keeps every pixel, so there is nothing to repaint; make a part of it white")
    if not kept.any():
        raise ValueError(
            f"mask: each of the {len(kept)} cells ({heptapod.tokenizer.factor}×{heptapod.tokenizer.factor} pixels) "
            "holds a pixel to repaint, so there is nothing to keep; sample a new image instead (heptapod sample)"
        )
    return _repaint(
        heptapod, image.cpu(), _encode(heptapod, image), mask.cpu(), kept, labels,
        count=count, seed=seed, composite=composite, batch_size=batch_size, progress=progress, **settings,
    )  # fmt: skip


def outpaint(
    heptapod: Heptapod,
    image: Tensor,
    height: int,
    width: int,
    at: tuple[int, int] | None = None,
    labels: int | str | Sequence[int | str] | None = None,
    **options: Any,
) -> Edit:
    """Continues an image beyond its borders: places it on a larger canvas and paints everything outside.

    The image is encoded by itself, so the kept cells have the very tokens it has alone.

    Args:
        heptapod: as in :func:`edit`.
        image: as in :func:`edit`.
        height: of the canvas in pixels, at least the image's, a multiple of the tokenizer's factor.
        width: of the canvas, the same.
        at: top and left of the image on the canvas, multiples of the factor; by default in the middle.
        labels: as in :func:`edit`.
        **options: the other arguments of :func:`edit`.

    Returns:
        Results on the canvas.

    Raises:
        ValueError: for a canvas or place that does not fit, or as :func:`edit` does.
    """
    inner, factor = _grid_of(heptapod, image), heptapod.tokenizer.factor
    top, left = _place(image.shape[1:], (height, width), at, factor)
    canvas = torch.full((3, height, width), OUTSIDE, dtype=torch.uint8)
    canvas[:, top : top + image.shape[1], left : left + image.shape[2]] = image.cpu()
    mask = torch.ones(height, width, dtype=torch.bool)
    mask[top : top + image.shape[1], left : left + image.shape[2]] = False

    heptapod = _on_grid_of(heptapod, canvas)
    grid = heptapod.model.grid
    rows = torch.arange(inner.height).unsqueeze(1) + top // factor
    cells = (rows * grid.width + torch.arange(inner.width) + left // factor).flatten()
    tokens = with_tokens_at(grid.empty_tokens(1), cells.unsqueeze(0), _encode(heptapod, image).unsqueeze(0))[0]
    return _repaint(heptapod, canvas, tokens, mask, ~_touched(mask, factor), labels, **options)


def vary(
    heptapod: Heptapod,
    image: Tensor,
    keep_cells: int,
    labels: int | str | Sequence[int | str] | None = None,
    **options: Any,
) -> Edit:
    """Variations of an image: its first cells in raster order are kept, the rest is sampled anew.

    Args:
        heptapod: as in :func:`edit`.
        image: as in :func:`edit`.
        keep_cells: how many cells to keep, 1 to N - 1; a row of the grid has as many as the image's width divided by
            the tokenizer's factor.
        labels: as in :func:`edit`.
        **options: the other arguments of :func:`edit`.

    Returns:
        As :func:`edit`.

    Raises:
        ValueError: for a number of cells out of range, or as :func:`edit` does.
    """
    grid, factor = _grid_of(heptapod, image), heptapod.tokenizer.factor
    if not 1 <= keep_cells < grid.num_cells:
        raise ValueError(
            f"keep_cells: {keep_cells} given, must be between 1 and {grid.num_cells - 1} "
            f"(the image has {grid.height}×{grid.width} cells)"
        )
    cells = (torch.arange(grid.num_cells) >= keep_cells).view(grid.height, grid.width)
    mask = cells.repeat_interleave(factor, 0).repeat_interleave(factor, 1)
    return edit(heptapod, image, mask, labels, **options)


def _repaint(
    heptapod: Heptapod,
    original: Tensor,
    tokens: Tensor,
    mask: Tensor,
    kept: Tensor,
    labels: int | str | Sequence[int | str] | None,
    *,
    count: int = 1,
    seed: int | Sequence[int] = 0,
    composite: bool = False,
    batch_size: int | None = None,
    progress: bool = False,
    **settings: Any,
) -> Edit:
    """Samples the cells that are not kept of an image (3, h, w) with tokens (N,) or (N, C)."""
    if count < 1:
        raise ValueError(f"count: {count} given, must be at least 1")
    classes = [labels] if isinstance(labels, str | int | numbers.Integral) else labels
    asked = None if classes is None else [label for label in classes for _ in range(count)]
    indices = heptapod.label_indices(asked, count if asked is None else None)
    known = Known(tokens.expand(len(indices), *tokens.shape), kept)
    painted = heptapod.generate_tokens(
        asked,
        count=count if asked is None else None,
        seed=seed,
        batch_size=batch_size,
        progress=progress,
        known=known,
        **settings,
    )
    images = heptapod.decode(painted, batch_size)
    if composite:
        images = composited(images, original, mask)
    config = heptapod.sampling_config(int((~kept).sum()), **settings)
    return Edit(images, painted.cpu(), original, tokens.cpu(), mask, kept, indices, config)


def _grid_of(heptapod: Heptapod, image: Tensor) -> GridSpec:
    """The token grid of an image; refuses what is no (3, h, w) uint8 with sides that the tokenizer can cut."""
    if image.dtype != torch.uint8 or image.ndim != 3 or len(image) != 3:
        raise ValueError(f"image: {tuple(image.shape)} of {image.dtype} given, must be (3, h, w) of uint8")
    return heptapod.tokenizer.grid(image.shape[1], image.shape[2])


def _on_grid_of(heptapod: Heptapod, image: Tensor) -> Heptapod:
    """The model on the grid of an image (3, h, w); warns if it was trained on another."""
    same = _grid_of(heptapod, image) == heptapod.model.grid
    return heptapod if same else heptapod.at_size(image.shape[1], image.shape[2])


@torch.no_grad()
def _encode(heptapod: Heptapod, image: Tensor) -> Tensor:
    """Tokens (N,) int64 or (N, C) float32 on the CPU of an image (3, h, w) uint8."""
    return heptapod.tokenizer.encode(to_float(image[None]).to(heptapod.tokenizer.device))[0].cpu()


def _touched(mask: Tensor, factor: int) -> Tensor:
    """(N,) bool: the cells of factor × factor pixels in which a mask (h, w) is True anywhere."""
    cells: Tensor = mask.unflatten(0, (-1, factor)).unflatten(2, (-1, factor))
    return cells.any(3).any(1).flatten()


def _place(size: Sequence[int], canvas: tuple[int, int], at: tuple[int, int] | None, factor: int) -> tuple[int, int]:
    """Top and left of an image of a size (h, w) on a canvas; refuses what does not fit."""
    height, width = canvas
    given, own = f"canvas: {height}×{width} given", f"{size[0]}×{size[1]}"
    if height < size[0] or width < size[1]:
        raise ValueError(f"{given}, must be at least the image's {own}")
    if height % factor or width % factor:
        raise ValueError(f"{given}, both sides must be multiples of {factor} (the tokenizer's factor)")
    if (height, width) == tuple(size):
        raise ValueError(f"{given}, just the image's size, so there is nothing to paint; make it larger")
    free = height - size[0], width - size[1]
    if at is None:
        return free[0] // 2 // factor * factor, free[1] // 2 // factor * factor
    if not (0 <= at[0] <= free[0] and 0 <= at[1] <= free[1]):
        raise ValueError(
            f"at: {at[0]},{at[1]} given, but an image of {own} on a canvas of {height}×{width} lies between 0,0 and "
            f"{free[0]},{free[1]} (top,left)"
        )
    if at[0] % factor or at[1] % factor:
        raise ValueError(f"at: {at[0]},{at[1]} given, both must be multiples of {factor} (the tokenizer's factor)")
    return at
