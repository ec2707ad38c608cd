"""In-painting of real held-out digits with half of each masked: the kept part, and whether the label is recognized.

    python benchmarks/editing.py --model runs/demo

``heptapod.edit`` repaints every digit with its label, and with the next class. The judge is a classifier of real
digits. Writes JSON and a figure, and prints a table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor

from heptapod import Heptapod, edit
from heptapod.data import DataConfig, load_images
from heptapod.evaluation.classifier import accuracy, train_classifier
from heptapod.evaluation.reconstruction import reconstruct
from heptapod.tools.bench.results import Column, describe_model, markdown_table, write_rows
from heptapod.utils.images import hatched, image_grid, save_png
from heptapod.utils.logging import Progress
from heptapod.utils.random import KeyedGenerator, Stream

SHOWN = 10
"""Digits in the figure."""
COLUMNS: dict[str, Column] = {
    "masked": "mask",
    "order": "token_order",
    "label": "label",
    "cells kept": lambda row: f"{row['kept_share']:.0%}",
    "identical": "identical",
    "largest difference outside, composite": "largest_difference",
    "recognized": lambda row: f"{row['accuracy']:.1%}",
}


def main(
    model: str,
    images: int = 300,
    orders: tuple[str, ...] = ("random", "confidence"),
    out: Path = Path("benchmarks/results/editing.json"),
) -> None:
    """Measures edits.

    Args:
        model: Folder of a model of mnist5k, or of its run.
        images: Number of digits.
        orders: Token orders.
        out: JSON file; the figure is next to it.
    """
    heptapod = Heptapod.from_pretrained(model)
    train, held_out = load_images(DataConfig(path="mnist5k"))
    judge = train_classifier(train, len(train.class_names))
    digits, labels = held_out.in_memory()[:images], held_out.labels[:images]
    decoded, _ = reconstruct(heptapod.tokenizer, digits, 100)
    rows, pictures = [], []
    for name, mask in masks(digits.shape[2], digits.shape[3], heptapod.tokenizer.factor).items():
        pictures.append(torch.stack([hatched(image, mask) for image in digits[:SHOWN]]))
        for order in orders:
            for kind, wanted in (("own", labels), ("next class", (labels + 1) % len(train.class_names))):
                results, row = repaint(heptapod, digits, mask, wanted, order, f"{name}, {order}, {kind}")
                row |= {"mask": name, "token_order": order, "label": kind, "accuracy": accuracy(judge, results, wanted)}
                rows.append(row)
                if order == orders[-1]:
                    pictures.append(results[:SHOWN])
    settings = {"images": len(digits), "seeds": f"0 to {len(digits) - 1}"}
    settings |= {"model": describe_model(heptapod, Path(model))}
    on_real = {"real": accuracy(judge, digits, labels), "reconstructed": accuracy(judge, decoded, labels)}
    write_rows(out, settings, rows, accuracy=on_real)
    save_png(image_grid(torch.cat(pictures), SHOWN), out.with_suffix(".png"))
    print(f"judge: {on_real['real']:.1%} of the real digits, {on_real['reconstructed']:.1%} of their reconstructions")
    print(markdown_table(COLUMNS, rows))


def masks(height: int, width: int, factor: int) -> dict[str, Tensor]:
    """Masks (h, w) bool of half of an image; the random one consists of whole cells."""
    rows, columns = torch.arange(height).unsqueeze(1), torch.arange(width).unsqueeze(0)
    num_cells = height // factor * (width // factor)
    rank = KeyedGenerator(Stream.EVALUATION, [(0,)]).permutation(num_cells)[0]
    cells = (rank < num_cells // 2).view(height // factor, width // factor)
    scattered = cells.repeat_interleave(factor, 0).repeat_interleave(factor, 1)
    lower = (rows >= height // 2).expand(height, width)
    return {"lower half": lower, "right half": (columns >= width // 2).expand(height, width), "random": scattered}


def repaint(
    model: Heptapod, images: Tensor, mask: Tensor, labels: Tensor, order: str, title: str
) -> tuple[Tensor, dict[str, Any]]:
    """Edits the images one at a time, composited, and measures the kept part."""
    results, identical, worst, share = [], 0, 0, 0.0
    with Progress(title, len(images)) as progress:
        for seed, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
            edited = edit(model, image, mask, label, seed=seed, composite=True, token_order=order)
            results.append(edited.images[0])
            identical += edited.kept_cells_identical
            worst = max(worst, edited.largest_difference_outside_mask)
            share = float(edited.kept.double().mean())
            progress.advance(1)
    return torch.stack(results), {"identical": identical, "largest_difference": worst, "kept_share": share}


if __name__ == "__main__":
    tyro.cli(main, description=__doc__, use_underscores=True)
