"""Makes the animation of README.md: python scripts/readme_animation.py runs/demo docs/images/demo.webp."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from heptapod import Heptapod
from heptapod.utils.images import heat_map

SIDE, GAP, LEFT, TOP, BOTTOM = 112, 8, 140, 44, 40
"""Pixels: side of a panel, space between panels, and the margins for captions."""
BACKGROUND, UNREAD, TEXT, MUTED = "#0d1117", "#3a424d", "#f0f6fc", "#9198a1"
ROWS = (("tokens read", "so far"), ("predicted", "whole image"), ("uncertainty", "of each cell"))
STEP_MS, FIRST_MS, LAST_MS = 110, 900, 2600


def enlarge(pixels: Tensor, method: Image.Resampling) -> Image.Image:
    """A (3, h, w) uint8 image at the size of a panel."""
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy()).resize((SIDE, SIDE), method)


def caption(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, size: int, color: str, anchor: str) -> None:
    """One line of text."""
    draw.text(place, text, color, font=ImageFont.load_default(size), anchor=anchor)


def frame(read: Tensor, is_read: Tensor, predicted: Tensor, uncertainty: Tensor, highest: float) -> Image.Image:
    """One state of all images.

    Args:
        read: decoded tokens, (B, 3, h, w) uint8.
        is_read: (B, rows, columns) bool.
        predicted: the decoded prediction of the whole grid, (B, 3, h, w) uint8.
        uncertainty: entropy in nats, (B, rows, columns).
        highest: the entropy that gets the brightest color, in nats.
    """
    count, cells = len(read), is_read[0].numel()
    width, height = LEFT + count * (SIDE + GAP), TOP + 3 * (SIDE + GAP) + BOTTOM - GAP
    canvas = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    for row, lines in enumerate(ROWS):
        middle = TOP + row * (SIDE + GAP) + SIDE // 2
        for line, text in enumerate(lines):
            caption(draw, (14, middle - 10 + 20 * line), text, 16, TEXT, "lm")
    unread = Image.new("RGB", (SIDE, SIDE), UNREAD)
    for column in range(count):
        mask = Image.fromarray(is_read[column].numpy()).convert("L").resize((SIDE, SIDE), Image.Resampling.NEAREST)
        panels = (
            Image.composite(enlarge(read[column], Image.Resampling.BICUBIC), unread, mask),
            enlarge(predicted[column], Image.Resampling.BICUBIC),
            enlarge(heat_map(uncertainty[column], highest), Image.Resampling.NEAREST),
        )
        for row, panel in enumerate(panels):
            canvas.paste(panel, (LEFT + column * (SIDE + GAP), TOP + row * (SIDE + GAP)))
    done = int(is_read[0].sum())
    bar = width - LEFT - GAP
    caption(draw, (14, 24), f"{done} of {cells} tokens", 16, TEXT, "lm")
    draw.rectangle((LEFT, 21, LEFT + bar, 26), UNREAD)
    if done:
        draw.rectangle((LEFT, 21, LEFT + bar * done // cells, 26), "#f89540")
    scale = enlarge(heat_map(torch.linspace(0, highest, SIDE).expand(SIDE, -1), highest), Image.Resampling.NEAREST)
    canvas.paste(scale.crop((0, 0, SIDE, 10)), (LEFT, height - 25))
    caption(draw, (LEFT + SIDE + GAP, height - 20), f"entropy, 0 to {highest:.1f} nats", 14, MUTED, "lm")
    return canvas


def animate(model: Heptapod, labels: list[int], seed: int, token_order: str) -> list[Image.Image]:
    """One frame per step, and one of the finished images; an image per label."""
    steps = list(model.stream(labels, seed=seed, token_order=token_order, belief=True))
    grid = (len(labels), model.model.grid.height, model.model.grid.width)
    entropies = [step.uncertainty for step in steps if step.uncertainty is not None]
    predictions = [step.believed for step in steps if step.believed is not None]
    highest = max(float(entropy.max()) for entropy in entropies)
    return [
        frame(model.decode(step.tokens), step.is_read.view(grid), model.decode(predicted), entropy.view(grid), highest)
        for step, predicted, entropy in zip(steps, predictions, entropies, strict=True)
    ]


def main() -> None:
    """Samples with the model of a run and writes the animation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="folder of the demo's run")
    parser.add_argument("out", type=Path, help="a .webp file")
    parser.add_argument("--labels", type=int, nargs="+", default=[2, 3, 5, 6, 8, 9])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--token-order", default="raster")
    options = parser.parse_args()
    frames = animate(Heptapod.from_pretrained(options.model), options.labels, options.seed, options.token_order)
    first, *rest = frames
    durations = [FIRST_MS, *[STEP_MS] * (len(frames) - 2), LAST_MS]
    first.save(options.out, save_all=True, append_images=rest, duration=durations, loop=0, quality=80, method=6)


if __name__ == "__main__":
    main()
