"""Error of ``approximate_head``, which caches the states of read cells in a global head.

    python benchmarks/approximate_head.py --model runs/global --data mnist5k

Images are sampled exactly. At every step the approximate head predicts the same cells after the same tokens, which
gives KL(exact ‖ approximate). Also measured: the time, and the share of digits that a classifier of real digits
recognizes in images sampled either way. Writes JSON and prints a table.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor

from heptapod import Heptapod
from heptapod.data import DataConfig, load_images
from heptapod.evaluation.classifier import accuracy, train_classifier
from heptapod.grid import tokens_at
from heptapod.sampling import sample_stream
from heptapod.tools.bench.results import Column, describe_model, markdown_table, write_rows


def main(
    model: str,
    data: str = "mnist5k",
    steps: tuple[int, ...] = (8, 16, 49),
    orders: tuple[str, ...] = ("raster", "random"),
    images: int = 500,
    out: Path = Path("benchmarks/results/approximate_head.json"),
) -> None:
    """Measures the error of approximate_head.

    Args:
        model: Folder of a model with a global head and discrete tokens, or of its run.
        data: Real images for the classifier.
        steps: Numbers of sampling steps.
        orders: Token orders.
        images: Images per row.
        out: JSON file.
    """
    heptapod = Heptapod.from_pretrained(model)
    train, _ = load_images(DataConfig(path=data))
    judge = train_classifier(train, len(train.class_names))
    labels = torch.arange(images) % len(heptapod.class_names)
    rows: list[dict[str, Any]] = []
    for order in orders:
        for count in steps:
            row: dict[str, Any] = {"token_order": order, "steps": count, **divergence(heptapod, labels, order, count)}
            for name, approximate in (("exact", False), ("approximate", True)):
                started = time.perf_counter()
                tokens = heptapod.generate_tokens(
                    labels.tolist(),
                    seed=0,
                    batch_size=100,
                    steps=count,
                    token_order=order,
                    approximate_head=approximate,
                )
                row[f"{name}_seconds"] = time.perf_counter() - started
                row[f"{name}_accuracy"] = accuracy(judge, heptapod.decode(tokens, 100), labels)
            rows.append(row)
    settings = {"images": images, "seeds": f"0 to {images - 1}", "model": describe_model(heptapod, Path(model))}
    write_rows(out, settings, rows)
    print(markdown_table(COLUMNS, rows))


COLUMNS: dict[str, Column] = {
    "order, steps": lambda row: f"{row['token_order']}, {row['steps']}",
    "mean KL (nats per cell)": lambda row: f"{row['mean_kl']:.4f}",
    "largest of an image": lambda row: f"{row['largest_kl']:.4f}",
    "accuracy exact": lambda row: f"{row['exact_accuracy']:.1%}",
    "approximate": lambda row: f"{row['approximate_accuracy']:.1%}",
    "time": lambda row: f"{row['approximate_seconds'] / row['exact_seconds']:.2f}",
}


@torch.inference_mode()
def divergence(model: Heptapod, labels: Tensor, order: str, steps: int) -> dict[str, float]:
    """KL(exact ‖ approximate) of the cells of every step, after the same tokens."""
    net, config = model.model, model.sampling_config(steps=steps, token_order=order)
    cache = net.new_cache(len(labels), approximate_head=True)
    states = net.read_condition(cache, labels)
    per_cell = []
    for step in sample_stream(net, labels, range(len(labels)), config):
        if (new := step.prefix[:, states.num_read :]).shape[1]:
            states = net.read_more(cache, tokens_at(step.tokens, new), new)
        if step.cells.shape[1] == 0:
            break
        exact, approximate = (
            net.distribution.logits(net.predict(states, step.cells, which)).log_softmax(-1) for which in (None, cache)
        )
        per_cell.append((exact.exp() * (exact - approximate)).sum(-1))
    kl = torch.cat(per_cell, dim=1)
    return {"mean_kl": float(kl.mean()), "largest_kl": float(kl.mean(1).max())}


if __name__ == "__main__":
    tyro.cli(main, description=__doc__, use_underscores=True)
