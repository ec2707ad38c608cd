"""Pictures of the sampling of an image: cells read so far, predicted grid (the belief), uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from heptapod.inference.bundle import ModelBundle
from heptapod.sampling import SamplingStep
from heptapod.utils.files import write_atomically
from heptapod.utils.images import belief_picture, cell_maps, image_grid

UNREAD = 205
"""Gray of a pixel whose cell was not read."""
SECONDS = 4.0
"""Approximate duration of an animation, without the last picture."""


def shown_steps(num_steps: int, most: int) -> list[int]:
    """Evenly spaced states out of 0..``num_steps`` (the finished image), both ends included, which may be the same."""
    if most < 2:
        raise ValueError(f"most: {most} given, must be at least 2 (the beginning and the end)")
    count = min(most, num_steps + 1)
    return sorted({round(i * num_steps / max(1, count - 1)) for i in range(count)})


def trace_picture(bundle: ModelBundle, steps: Sequence[SamplingStep]) -> Image.Image:
    """A strip of states of one image, side by side, with predictions of the whole grid if the head has them."""
    read = read_so_far(bundle, steps)
    titles = [f"{int(step.is_read.sum())} of {bundle.model.grid.num_cells} cells" for step in steps]
    believed, uncertainty = _beliefs(bundle, steps)
    name = bundle.model.distribution.uncertainty_name
    return belief_picture(read, believed, uncertainty, titles, name)


def trace_frames(bundle: ModelBundle, steps: Sequence[SamplingStep]) -> list[Image.Image]:
    """A picture per state: cells read so far, prediction of the whole grid, uncertainty, side by side."""
    panels = [read_so_far(bundle, steps)]
    believed, uncertainty = _beliefs(bundle, steps)
    if believed is not None and uncertainty is not None:
        panels += [believed, cell_maps(uncertainty, float(uncertainty.max()), bundle.tokenizer.factor)]
    return [image_grid(torch.stack(images), len(panels), min_size=160) for images in zip(*panels, strict=True)]


def save_gif(frames: Sequence[Image.Image], path: Path) -> None:
    """Writes an animation, whole or not at all, that stays on its last picture for two seconds."""
    each = max(40, round(1000 * SECONDS / len(frames)))
    durations = [each] * (len(frames) - 1) + [2000]
    first, *rest = frames
    write_atomically(
        path,
        lambda file: first.save(file, format="GIF", save_all=True, append_images=rest, duration=durations, loop=0),
    )


def read_so_far(bundle: ModelBundle, steps: Sequence[SamplingStep]) -> Tensor:
    """(T, 3, h, w) uint8: the cells read at each state of one image, decoded; the others gray."""
    grid, factor = bundle.model.grid, bundle.tokenizer.factor
    shown = torch.cat([step.is_read for step in steps]).view(-1, 1, grid.height, grid.width).cpu()
    shown = shown.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    pixels = bundle.decode(torch.cat([step.tokens for step in steps]))
    return torch.where(shown, pixels, torch.full_like(pixels, UNREAD))


def _beliefs(bundle: ModelBundle, steps: Sequence[SamplingStep]) -> tuple[Tensor | None, Tensor | None]:
    """Predicted pictures (T, 3, h, w) and uncertainties (T, rows, columns), if every state has them."""
    believed = [step.believed for step in steps if step.believed is not None]
    uncertainty = [step.uncertainty for step in steps if step.uncertainty is not None]
    if len(believed) < len(steps):
        return None, None
    grid = bundle.model.grid
    return bundle.decode(torch.cat(believed)), torch.cat(uncertainty).view(-1, grid.height, grid.width)
