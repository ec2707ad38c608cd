"""Editing: some cells of an image keep their tokens, the others are resampled.

In-painting, out-painting and variations are one call of the sampling loop with different masks. To change the class of
a region, give another label.

Shape legend: M results, N cells, h × w pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from heptapod.grid import with_tokens_at
from heptapod.inference.images_in import ImageInput, MaskInput, image_tensor, mask_tensor
from heptapod.inference.pipeline import Heptapod
from heptapod.inference.record import composite_of, composited, known_of, record_fields
from heptapod.inference.request import LabelsInput
from heptapod.sampling import Known, SamplingConfig
from heptapod.tokenizers.encode import encode_pixels
from heptapod.utils.checks import check_at_least
from heptapod.utils.config import to_dict
from heptapod.utils.images import hatched, image_grid

OUTSIDE = 128
"""Gray of what an out-painted image does not cover yet."""


@dataclass
class Edit:
    """Edited images and their original. All tensors are on the CPU."""

    images: Tensor
    """(M, 3, h, w) uint8."""
    tokens: Tensor
    """(M, N) int64 or (M, N, C) float32."""
    original: Tensor
    """(3, h, w) uint8: the image on its canvas, gray outside."""
    original_tokens: Tensor
    """(N,) int64 or (N, C) float32: its tokens, 0 outside."""
    mask: Tensor
    """(h, w) bool: the pixels to repaint."""
    kept: Tensor
    """(N,) bool: the kept cells, those without a pixel to repaint."""
    labels: list[int]
    """Class index of each result, -1 without a label."""
    seeds: list[int]
    """Seed of each result."""
    count: int
    """Results per label."""
    sampling: SamplingConfig
    """The sampling config of the repainted cells."""

    @property
    def kept_cells_identical(self) -> bool:
        """Whether every kept cell of every result has the original's token, bit for bit."""
        tokens, original = self.tokens[:, self.kept], self.original_tokens[self.kept].unsqueeze(0)
        if tokens.is_floating_point():  # by their bits: 0 and -0 differ
            tokens, original = tokens.view(torch.int32), original.contiguous().view(torch.int32)
        return torch.equal(tokens, original.expand_as(tokens))

    @property
    def largest_difference_outside_mask(self) -> int:
        """The largest change of a pixel outside the mask, in levels of 0..255; 0 if there is none."""
        difference = (self.images.short() - self.original.short()).abs()
        return int(difference.masked_fill(self.mask, 0).max())

    def picture(self, class_names: Sequence[str] = ()) -> Image.Image:
        """A row per label: the original with the part to repaint hatched, then the results.

        Args:
            class_names: names of the model's classes, written before the rows; none if empty or without labels.
        """
        first = hatched(self.original, self.mask)[None]
        rows = [part for images in self.images.split(self.count) for part in (first, images)]
        labels = self.labels[:: self.count]
        names = [class_names[label] for label in labels] if class_names and min(labels) >= 0 else None
        return image_grid(torch.cat(rows), self.count + 1, names)

    def record(self, heptapod: Heptapod, composite: bool, batch_size: int | None) -> dict[str, Any]:
        """The fields of a :class:`~heptapod.inference.record.Record` that reproduce it, and what changed; JSON-safe.

        Args:
            heptapod: the model.
            composite: whether the pixels of the original were put back.
            batch_size: as given to :func:`edit`.
        """
        return {
            "cells": len(self.kept),
            "kept_cells": int(self.kept.sum()),
            "kept_cells_identical": self.kept_cells_identical,
            "largest_pixel_difference_outside_mask": self.largest_difference_outside_mask,
            **record_fields(heptapod, self.labels, self.seeds, self.sampling, batch_size),
            "image_size": list(self.mask.shape),
            "known": to_dict(known_of(self.original_tokens, self.kept)),
            "composite": to_dict(composite_of(self.original, self.mask)) if composite else None,
        }


def edit(
    heptapod: Heptapod,
    image: ImageInput,
    mask: MaskInput,
    labels: LabelsInput | None = None,
    **options: Any,
) -> Edit:
    """Repaints a part of an image; every cell without a pixel to repaint keeps its token bit for bit.

    The whole image is encoded, also the part to repaint: it may influence the tokens of kept cells nearby.

    Args:
        heptapod: the model; used on the image's grid (with a warning if it was trained on another).
        image: PIL image, (h, w, 3) uint8 array or (3, h, w) uint8 tensor, sides multiples of the tokenizer's factor.
        mask: the pixels to repaint: PIL image (white is repainted), or (h, w) bool array or tensor.
        labels: a class, or several: the repainted part gets this class. None repaints without a label, which needs an
            unconditional model or one trained with label dropout.
        **options: ``count``, results per label (1); ``seed``, result i takes seed + i, or one seed per result (0);
            ``composite``, put the pixels of the image back wherever the mask is False (otherwise kept cells are decoded
            from their tokens and differ by the loss of the tokenizer); ``batch_size``, ``progress`` and sampling
            settings as in :meth:`Heptapod.generate` (steps and schedule count the repainted cells only).

    Returns:
        ``count`` results per label, those of the first label first.

    Raises:
        ValueError: for an image or mask of the wrong size, a mask that leaves nothing to repaint or nothing to keep,
            or a label, seed or setting out of range.
    """
    pixels = image_tensor(image)
    heptapod = _on_grid_of(heptapod, pixels)
    repainted = mask_tensor(mask, pixels.shape[1:])
    kept = ~_touched(repainted, heptapod.tokenizer.factor)
    if kept.all():
        raise ValueError("mask: it keeps every pixel, so there is nothing to repaint; make a part of it white")
    if not kept.any():
        raise ValueError(
            f"mask: each of the {len(kept)} cells ({heptapod.tokenizer.factor}×{heptapod.tokenizer.factor} pixels) "
            "holds a pixel to repaint, so there is nothing to keep; sample a new image instead (heptapod sample)"
        )
    tokens = encode_pixels(heptapod.tokenizer, pixels[None])[0]
    return _repaint(heptapod, pixels, tokens, repainted, kept, labels, **options)


def outpaint(
    heptapod: Heptapod,
    image: ImageInput,
    height: int,
    width: int,
    at: tuple[int, int] | None = None,
    labels: LabelsInput | None = None,
    **options: Any,
) -> Edit:
    """Continues an image beyond its borders: places it on a larger canvas and paints everything outside.

    Only the image itself is encoded, so the kept cells have exactly the tokens of the original.

    Args:
        heptapod: as in :func:`edit`.
        image: as in :func:`edit`.
        height: height of the canvas in pixels, at least the image's, a multiple of the tokenizer's factor.
        width: width of the canvas, likewise.
        at: top and left of the image on the canvas, multiples of the factor; by default in the middle.
        labels: as in :func:`edit`.
        **options: as in :func:`edit`.

    Returns:
        Results on the canvas.

    Raises:
        ValueError: for a canvas or place that does not fit, or as :func:`edit` does.
    """
    pixels, tokenizer = image_tensor(image), heptapod.tokenizer
    inner, factor = tokenizer.grid(*pixels.shape[1:]), tokenizer.factor
    top, left = _position(pixels.shape[1:], (height, width), at, factor)
    rows, columns = slice(top, top + pixels.shape[1]), slice(left, left + pixels.shape[2])
    canvas = torch.full((3, height, width), OUTSIDE, dtype=torch.uint8)
    mask = torch.ones(height, width, dtype=torch.bool)
    canvas[:, rows, columns], mask[rows, columns] = pixels, False

    heptapod = _on_grid_of(heptapod, canvas)
    grid = heptapod.model.grid
    cell_rows = torch.arange(inner.height).unsqueeze(1) + top // factor
    cells = (cell_rows * grid.width + torch.arange(inner.width) + left // factor).flatten()
    tokens = with_tokens_at(grid.empty_tokens(1), cells.unsqueeze(0), encode_pixels(tokenizer, pixels[None]))[0]
    return _repaint(heptapod, canvas, tokens, mask, ~_touched(mask, factor), labels, **options)


def vary(
    heptapod: Heptapod,
    image: ImageInput,
    keep_cells: int,
    labels: LabelsInput | None = None,
    **options: Any,
) -> Edit:
    """Variations of an image: its first cells in raster order are kept, the others resampled.

    Args:
        heptapod: as in :func:`edit`.
        image: as in :func:`edit`.
        keep_cells: number of cells to keep, 1 to N - 1; a row of the grid has the image's width divided by the
            tokenizer's factor.
        labels: as in :func:`edit`.
        **options: as in :func:`edit`.

    Returns:
        As :func:`edit`.

    Raises:
        ValueError: for a number of cells out of range, or as :func:`edit` does.
    """
    pixels, factor = image_tensor(image), heptapod.tokenizer.factor
    grid = heptapod.tokenizer.grid(*pixels.shape[1:])
    if not 1 <= keep_cells < grid.num_cells:
        raise ValueError(
            f"keep_cells: {keep_cells} given, must be between 1 and {grid.num_cells - 1} "
            f"(the image has {grid.height}×{grid.width} cells)"
        )
    cells = (torch.arange(grid.num_cells) >= keep_cells).view(grid.height, grid.width)
    mask = cells.repeat_interleave(factor, 0).repeat_interleave(factor, 1)
    return edit(heptapod, pixels, mask, labels, **options)


def _repaint(
    heptapod: Heptapod,
    original: Tensor,
    tokens: Tensor,
    mask: Tensor,
    kept: Tensor,
    labels: LabelsInput | None,
    *,
    count: int = 1,
    composite: bool = False,
    progress: bool = False,
    **options: Any,
) -> Edit:
    """Resamples the cells that are not kept of an image (3, h, w) with tokens (N,) or (N, C)."""
    check_at_least(1, count=count)
    classes = None if labels is None else heptapod.label_indices(labels)
    repeated = None if classes is None else [label for label in classes for _ in range(count)]
    total = count if repeated is None else len(repeated)
    known = Known(tokens.expand(total, *tokens.shape), kept)
    request = heptapod.request(repeated, count=count if repeated is None else None, known=known, **options)
    request.warn()
    painted = request.sample(heptapod.model, progress)
    images = heptapod.decode(painted, request.batch_size)
    if composite:
        images = composited(images, original, mask)
    plan = request.plan
    return Edit(images, painted.cpu(), original, tokens, mask, kept, request.labels, plan.seeds, count, plan.config)


def _on_grid_of(heptapod: Heptapod, image: Tensor) -> Heptapod:
    """The model on the grid of an image (3, h, w); warns if it was trained on another."""
    same = heptapod.tokenizer.grid(*image.shape[1:]) == heptapod.model.grid
    return heptapod if same else heptapod.at_size(image.shape[1], image.shape[2])


def _touched(mask: Tensor, factor: int) -> Tensor:
    """(N,) bool: the cells of factor × factor pixels in which a mask (h, w) is True anywhere."""
    cells: Tensor = mask.unflatten(0, (-1, factor)).unflatten(2, (-1, factor))
    return cells.any(3).any(1).flatten()


def _position(size: Sequence[int], canvas: tuple[int, int], at: tuple[int, int] | None, factor: int) -> tuple[int, int]:
    """Top and left of an image of a size (h, w) on a canvas; raises ValueError if it does not fit."""
    height, width = canvas
    canvas_given, image_size = f"canvas: {height}×{width} given", f"{size[0]}×{size[1]}"
    if height < size[0] or width < size[1]:
        raise ValueError(f"{canvas_given}, must be at least the image's {image_size}")
    if height % factor or width % factor:
        raise ValueError(f"{canvas_given}, both sides must be multiples of {factor} (the tokenizer's factor)")
    if (height, width) == tuple(size):
        raise ValueError(f"{canvas_given}, just the image's size, so there is nothing to paint; make it larger")
    free = height - size[0], width - size[1]
    if at is None:
        return free[0] // 2 // factor * factor, free[1] // 2 // factor * factor
    if not (0 <= at[0] <= free[0] and 0 <= at[1] <= free[1]):
        raise ValueError(
            f"at: {at[0]},{at[1]} given, but an image of {image_size} on a canvas of {height}×{width} lies between "
            f"0,0 and {free[0]},{free[1]} (top,left)"
        )
    if at[0] % factor or at[1] % factor:
        raise ValueError(f"at: {at[0]},{at[1]} given, both must be multiples of {factor} (the tokenizer's factor)")
    return at
