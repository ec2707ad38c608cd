"""What a global head loses when the states of read cells are kept between steps (``approximate_head``).

    python benchmarks/approximate_head.py --model runs/global --data mnist5k

Images are sampled exactly; at every step the approximate head predicts the same cells after the same tokens, and
KL(exact ‖ approximate) of each is taken. Beside it: the share of digits that a judge trained on real ones
recognizes when all is sampled one way or the other, and the time. Writes JSON and prints a table.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from cell_quality import describe
from heptapod.tools.bench.hardware import hardware
from torch import Tensor

from heptapod import Heptapod
from heptapod.data import DataConfig, load_images
from heptapod.evaluation.classifier import accuracy, train_classifier
from heptapod.grid import tokens_at
from heptapod.sampling import sample_stream
from heptapod.utils.files import write_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="folder of a model with a global head and codes, or of its run")
    parser.add_argument("--data", default="mnist5k", help="what the judge learns from")
    parser.add_argument("--steps", nargs="+", type=int, default=[8, 16, 49])
    parser.add_argument("--orders", nargs="+", default=["raster", "random"])
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/approximate_head.json"))
    args = parser.parse_args()
    model = Heptapod.from_pretrained(args.model)
    train, _ = load_images(DataConfig(path=args.data))
    judge = train_classifier(train, len(train.class_names))
    labels = torch.arange(args.images) % len(model.class_names)
    rows: list[dict[str, Any]] = []
    for order in args.orders:
        for steps in args.steps:
            row: dict[str, Any] = {"token_order": order, "steps": steps, **divergence(model, labels, order, steps)}
            for name, approximate in (("exact", False), ("approximate", True)):
                started = time.perf_counter()
                tokens = model.generate_tokens(
                    labels.tolist(),
                    seed=0,
                    batch_size=100,
                    steps=steps,
                    token_order=order,
                    approximate_head=approximate,
                )
                row[f"{name}_seconds"] = time.perf_counter() - started
                row[f"{name}_accuracy"] = accuracy(judge, model.decode(tokens, 100), labels)
            rows.append(row)
    settings = {"images": args.images, "seeds": f"0 to {args.images - 1}", "model": describe(model, Path(args.model))}
    write_json(args.out, {"settings": settings, **hardware(torch.device("cpu")), "rows": rows})
    print("| order, steps | mean KL (nats per cell) | largest of an image | accuracy exact | approximate | time |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['token_order']}, {row['steps']} | {row['mean_kl']:.4f} | {row['largest_kl']:.4f} | "
            f"{row['exact_accuracy']:.1%} | {row['approximate_accuracy']:.1%} | "
            f"{row['approximate_seconds'] / row['exact_seconds']:.2f} |"
        )


@torch.inference_mode()
def divergence(model: Heptapod, labels: Tensor, order: str, steps: int) -> dict[str, float]:
    """KL(exact ‖ approximate) of the cells drawn at every step, after the same tokens."""
    net, config = model.model, model.sampling_config(steps=steps, token_order=order)
    cache = net.new_cache(len(labels), approximate_head=True)
    states = net.read_condition(cache, labels)
    per_cell = []
    for step in sample_stream(net, labels, range(len(labels)), config):
        if (new := step.prefix[:, states.num_read :]).shape[1]:
            states = net.read_more(cache, tokens_at(step.tokens, new), new)
        if step.cells.shape[1] == 0:
            break
        exact, kept = (
            net.distribution.logits(net.predict(states, step.cells, which)).log_softmax(-1) for which in (None, cache)
        )
        per_cell.append((exact.exp() * (exact - kept)).sum(-1))
    kl = torch.cat(per_cell, dim=1)
    return {"mean_kl": float(kl.mean()), "largest_kl": float(kl.mean(1).max())}


if __name__ == "__main__":
    main()
