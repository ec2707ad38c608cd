"""Pictures for reports: grids of images, heat maps and predictions of a model."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from heptapod.utils.files import write_atomically

GAP = 2
LONGEST = 2048
"""Images are not enlarged beyond this number of pixels."""
BACKGROUND = (255, 255, 255)
INK = (40, 40, 40)


def to_pil(image: Tensor) -> Image.Image:
    """A (3, h, w) uint8 tensor as a PIL image."""
    return Image.fromarray(image.permute(1, 2, 0).contiguous().cpu().numpy())


def save_png(picture: Image.Image, path: Path) -> None:
    """Writes a PNG file, whole or not at all."""
    write_atomically(path, lambda file: picture.save(file, format="PNG"))


def image_grid(images: Tensor, columns: int, row_names: Sequence[str] | None = None, min_size: int = 48) -> Image.Image:
    """Images (M, 3, h, w) uint8 in rows, small ones enlarged to at least ``min_size`` pixels.

    Args:
        images: what to show.
        columns: images per row.
        row_names: a name written before each row.
        min_size: smallest side of a shown image.
    """
    zoom = max(1, min(-(-min_size // min(images.shape[2:])), LONGEST // max(images.shape[2:])))
    images = images.repeat_interleave(zoom, 2).repeat_interleave(zoom, 3)
    height, width = images.shape[2] + GAP, images.shape[3] + GAP
    rows = -(-len(images) // columns)
    font = ImageFont.load_default(14)
    left = _margin(row_names or [])
    canvas = Image.new("RGB", (left + columns * width + GAP, rows * height + GAP), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    for row, name in enumerate(row_names or []):
        draw.text((6, row * height + height // 2), name, INK, font=font, anchor="lm")
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        canvas.paste(to_pil(image), (left + GAP + column * width, GAP + row * height))
    return canvas


def samples_picture(images: Tensor, labels: Sequence[int], class_names: Sequence[str]) -> Image.Image:
    """Images (M, 3, h, w) uint8, one row per class if all classes have the same count; a single image unchanged.

    Args:
        images: those of a class one after another.
        labels: class index of each, -1 without a label.
        class_names: written before the rows.
    """
    if len(images) == 1:
        return to_pil(images[0])
    rows = [(label, len(list(same))) for label, same in itertools.groupby(labels)]
    if len({count for _, count in rows}) > 1:
        return image_grid(images, math.ceil(len(images) ** 0.5))
    names = [class_names[label] for label, _ in rows] if class_names and min(labels) >= 0 else None
    return image_grid(images, rows[0][1], names)


def hatched(image: Tensor, mask: Tensor) -> Tensor:
    """An image (3, h, w) uint8 whose pixels under a mask (h, w) are grayed and striped."""
    rows, columns = torch.arange(mask.shape[0]).unsqueeze(1), torch.arange(mask.shape[1])
    stripes = ((rows + columns) // 2 % 3 == 0) * 64 + 112
    return torch.where(mask, (image * 0.3 + stripes * 0.7).round().to(torch.uint8), image)


def heat_map(values: Tensor, highest: float) -> Tensor:
    """Values (h, w) between 0 and ``highest`` as colors (3, h, w) uint8: dark violet, orange, light yellow."""
    stops = np.array([[13, 8, 60], [126, 3, 168], [204, 71, 120], [248, 149, 64], [240, 249, 33]], dtype=np.float64)
    position = (values / max(highest, 1e-9)).clamp(0, 1).cpu().double().numpy() * (len(stops) - 1)
    low = np.floor(position).astype(int).clip(0, len(stops) - 2)
    share = (position - low)[..., None]
    colors = stops[low] * (1 - share) + stops[low + 1] * share
    return torch.from_numpy(colors.round().astype(np.uint8)).permute(2, 0, 1)


def cell_maps(values: Tensor, highest: float, factor: int) -> Tensor:
    """Values (T, rows, columns) as colors (T, 3, rows · factor, columns · factor) uint8, see :func:`heat_map`."""
    maps = torch.stack([heat_map(grid, highest) for grid in values])
    return maps.repeat_interleave(factor, 2).repeat_interleave(factor, 3)


def confusion_picture(confusion: Tensor, names: Sequence[str], side: int = 480) -> Image.Image:
    """Counts (K, K) of each true class (row) by predicted class (column) as a heat map, normalized by row.

    Args:
        confusion: counts, (K, K).
        names: of the classes, written before the rows and, where they fit, over the columns.
        side: about how many pixels wide the map is; up to 40 classes are named.
    """
    K = len(confusion)
    cell = min(48, max(1, side // K))
    shares = confusion.double() / confusion.sum(1, keepdim=True).clamp(min=1)
    map_ = cell_maps(shares[None], 1.0, cell)[0]
    font = ImageFont.load_default(max(8, min(14, cell - 2)))
    shown = list(names) if K <= 40 else []
    left, top = max((int(font.getlength(name)) + 12 for name in shown), default=8), 44
    bar = heat_map(torch.linspace(0, 1, 100).expand(10, -1), 1.0)
    canvas = Image.new("RGB", (left + max(map_.shape[2], 240) + 8, top + map_.shape[1] + 32), BACKGROUND)
    canvas.paste(to_pil(map_), (left, top))
    draw = ImageDraw.Draw(canvas)
    draw.text((left, 12), "row: true class, column: answer", INK, font=ImageFont.load_default(14), anchor="lm")
    for number, name in enumerate(shown):
        middle = number * cell + cell // 2
        draw.text((6, top + middle), name, INK, font=font, anchor="lm")
        if font.getlength(name) < cell:
            draw.text((left + middle, top - 10), name, INK, font=font, anchor="mm")
    canvas.paste(to_pil(bar), (left, top + map_.shape[1] + 12))
    draw.text(
        (left + 108, top + map_.shape[1] + 17), "share, 0 to 1", INK, font=ImageFont.load_default(14), anchor="lm"
    )
    return canvas


def belief_picture(
    read: Tensor,
    believed: Tensor | None,
    uncertainty: Tensor | None,
    titles: Sequence[str],
    uncertainty_name: str,
) -> Image.Image:
    """Three rows over the steps: the cells read so far, the predicted image, the uncertainty of every cell.

    Args:
        read: (T, 3, h, w) uint8.
        believed: (T, 3, h, w) uint8; None shows the first row only.
        uncertainty: (T, rows, columns), at least 0; None with ``believed``.
        titles: one per step.
        uncertainty_name: what the uncertainty is, and its unit in brackets: "entropy (nats)".
    """
    names, rows, highest = ["read so far"], [read], 0.0
    if believed is not None and uncertainty is not None:
        highest = float(uncertainty.max())
        names += ["believed", uncertainty_name.partition(" (")[0]]
        rows += [believed, cell_maps(uncertainty, highest, read.shape[2] // uncertainty.shape[1])]
    grid = image_grid(torch.cat(rows), len(read), names, min_size=112)
    top, font = 26, ImageFont.load_default(14)
    canvas = Image.new("RGB", (grid.width, grid.height + top + (34 if len(rows) > 1 else 0)), BACKGROUND)
    canvas.paste(grid, (0, top))
    draw = ImageDraw.Draw(canvas)
    left = _margin(names)
    shown = (grid.width - left) // len(read)
    for column, title in enumerate(titles):
        draw.text((left + column * shown + shown // 2, top // 2), title, INK, font=font, anchor="mm")
    if len(rows) == 1:
        return canvas
    bar = heat_map(torch.linspace(0, highest, 160).expand(10, -1), highest)
    y = grid.height + top + 10
    canvas.paste(to_pil(bar), (left, y))
    draw.text((left + 168, y + 5), f"{uncertainty_name}, 0 to {highest:.2f}", INK, font=font, anchor="lm")
    return canvas


def _margin(row_names: Sequence[str]) -> int:
    """Width in pixels of the row names."""
    font = ImageFont.load_default(14)
    return max((int(font.getlength(name)) + 12 for name in row_names), default=0)
