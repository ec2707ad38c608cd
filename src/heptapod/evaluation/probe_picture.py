"""A picture of what probes find: a bar per layer."""

from __future__ import annotations

from collections.abc import Mapping

from PIL import Image, ImageDraw, ImageFont

from heptapod.evaluation.probe import NEIGHBORS, Accuracy
from heptapod.utils.images import BACKGROUND, INK

BAR = 480
"""Pixels of a bar of 100%."""
ROW = 26
LINEAR, KNN, RANDOM = (42, 96, 160), (222, 140, 60), (190, 190, 190)


def probe_picture(results: Mapping[str, Mapping[str, Accuracy]]) -> Image.Image:
    """For each layer a bar of the linear probe over one of the neighbors, random weights in gray behind them.

    A line shows the linear probe of raw pixels.

    Args:
        results: "layers", and "random_model" (the same layers) and "pixels" (one entry) where they were measured.
    """
    layers, random = results["layers"], results.get("random_model", {})
    font = ImageFont.load_default(14)
    left = max(int(font.getlength(name)) for name in layers) + 16
    bottom = 34 + ROW * len(layers)
    picture = Image.new("RGB", (left + BAR + 70, bottom + 34), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    legend = [("linear", LINEAR), (f"{NEIGHBORS} nearest neighbors", KNN)]
    legend += [("random weights, linear", RANDOM)] if random else []
    x = left
    for name, color in legend:
        draw.rectangle((x, 10, x + 10, 20), color)
        draw.text((x + 16, 15), name, INK, font=font, anchor="lm")
        x += int(font.getlength(name)) + 36
    for row, (name, accuracy) in enumerate(layers.items()):
        y = 34 + ROW * row
        draw.text((left - 8, y + ROW // 2), name, INK, font=font, anchor="rm")
        if name in random:
            draw.rectangle((left, y + 1, left + round(BAR * random[name].linear), y + ROW - 2), RANDOM)
        draw.rectangle((left, y + 5, left + round(BAR * accuracy.linear), y + 12), LINEAR)
        draw.rectangle((left, y + 14, left + round(BAR * accuracy.knn), y + 20), KNN)
        draw.text((left + BAR + 8, y + ROW // 2), f"{accuracy.linear:.1%}", INK, font=font, anchor="lm")
    if "pixels" in results:
        linear = results["pixels"]["pixels"].linear
        x = left + round(BAR * linear)
        draw.line((x, 30, x, bottom + 4), INK, 1)
        draw.text((x, bottom + 16), f"raw pixels, linear: {linear:.1%}", INK, font=font, anchor="mm")
    return picture
