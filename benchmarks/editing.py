"""In-painting real held-out digits of which half is masked: what is kept, and whether a judge still reads the label.

    python benchmarks/editing.py --model runs/demo

Every digit is repainted by ``heptapod.edit`` with its own label, and with the next class as another label. The judge is
trained on real digits only. Writes JSON and a picture, and prints a table.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from cell_quality import describe
from heptapod.tools.bench.hardware import hardware
from torch import Tensor

from heptapod import Heptapod, edit
from heptapod.data import DataConfig, load_images
from heptapod.evaluation.classifier import accuracy, train_classifier
from heptapod.evaluation.reconstruction import reconstruct
from heptapod.utils.files import write_json
from heptapod.utils.images import hatched, image_grid, save_png
from heptapod.utils.logging import Progress
from heptapod.utils.random import KeyedGenerator, Stream

SHOWN = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="folder of a model of mnist5k, or of its run")
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--orders", nargs="+", default=["random", "confidence"])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/editing.json"))
    args = parser.parse_args()
    model = Heptapod.from_pretrained(args.model)
    train, held_out = load_images(DataConfig(path="mnist5k"))
    judge = train_classifier(train, len(train.class_names))
    images, labels = held_out.in_memory()[: args.images], held_out.labels[: args.images]
    decoded, _ = reconstruct(model.tokenizer, images, 100)
    rows, pictures = [], []
    for name, mask in masks(images.shape[2], images.shape[3], model.tokenizer.factor).items():
        pictures.append(torch.stack([hatched(image, mask) for image in images[:SHOWN]]))
        for order in args.orders:
            for what, asked in (("own", labels), ("next class", (labels + 1) % len(train.class_names))):
                results, row = repaint(model, images, mask, asked, order, f"{name}, {order}, {what}")
                row |= {"mask": name, "token_order": order, "label": what, "accuracy": accuracy(judge, results, asked)}
                rows.append(row)
                if order == args.orders[-1]:
                    pictures.append(results[:SHOWN])
    about = {"images": len(images), "seeds": f"0 to {len(images) - 1}", "model": describe(model, Path(args.model))}
    on_real = {"real": accuracy(judge, images, labels), "reconstructed": accuracy(judge, decoded, labels)}
    write_json(args.out, {"settings": about, "accuracy": on_real, **hardware(torch.device("cpu")), "rows": rows})
    save_png(image_grid(torch.cat(pictures), SHOWN), args.out.with_suffix(".png"))
    print(f"judge: {on_real['real']:.1%} of the real digits, {on_real['reconstructed']:.1%} of their reconstructions")
    print("| masked | order | label | cells kept | identical | largest difference outside, composite | recognized |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['mask']} | {row['token_order']} | {row['label']} | {row['kept_share']:.0%} | "
            f"{row['identical']} of {len(images)} | {row['largest_difference']} | {row['accuracy']:.1%} |"
        )


def masks(height: int, width: int, factor: int) -> dict[str, Tensor]:
    """Halves of the picture to repaint, (h, w) bool; the random one in whole cells."""
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
    """All images edited one by one, composited, with what was kept of them."""
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
    main()
