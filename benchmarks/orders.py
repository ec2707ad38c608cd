"""Quality of images against sampling steps, for every order in which cells can be filled and every schedule.

    OMP_NUM_THREADS=1 python benchmarks/orders.py --model runs/demo_mixed --data mnist5k
    OMP_NUM_THREADS=1 python benchmarks/orders.py --model runs/cifar10_mixed --data cifar10/train.parquet --images 500

Labels are balanced and seeds 0, 1, …; there is no guidance. Reported is, for digits, the share that a judge trained on
real digits recognizes; else the kernel distance to real images in features of EfficientNet-Lite0 ± its standard error.
Take a model that was trained on mixed order, which has seen all of them.

Writes JSON after every setting (started again, it goes on from there) and a picture, and prints a Markdown table.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from cell_quality import describe, features
from heptapod.tools.bench.hardware import hardware
from matplotlib.figure import Figure
from torch import Tensor

from heptapod import Heptapod
from heptapod.data import DataConfig, load_images
from heptapod.data.selection import random_images
from heptapod.evaluation.classifier import accuracy, train_classifier
from heptapod.evaluation.distances import kernel_distance
from heptapod.evaluation.features import EfficientNetLite0Features
from heptapod.utils.files import read_json, write_atomically, write_json
from heptapod.utils.logging import say
from heptapod.utils.random import Stream

ORDERS = ["raster", "random", "spiral", "confidence"]
SCHEDULES = ["cosine", "constant"]
Measure = Callable[[Tensor, Tensor], dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="folder of a model or of its run")
    parser.add_argument("--data", required=True, help="real images: a folder, parquet file(s) or a built-in set")
    parser.add_argument("--images", type=int, default=1000, help="images per setting")
    parser.add_argument("--real", type=int, default=2000, help="real images at most, drawn at random")
    parser.add_argument("--steps", nargs="+", type=int, default=[4, 8, 16, 32, 0], help="0: one cell per step")
    parser.add_argument("--orders", nargs="+", default=ORDERS)
    parser.add_argument("--schedules", nargs="+", default=SCHEDULES)
    parser.add_argument("--temperature", type=float, help="the model's own if left out")
    parser.add_argument("--batch_size", type=int, default=250)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/orders.json"))
    args = parser.parse_args()
    model = Heptapod.from_pretrained(args.model)
    args.temperature = model.sampling.temperature if args.temperature is None else args.temperature
    results = begun(args, describe(model, Path(args.model)))
    wanted = settings(args, model.model.grid.num_cells)
    if left := [key for key in wanted if not any(key.items() <= row.items() for row in results["rows"])]:
        judge = measure(args, model)
        for number, key in enumerate(left, 1):
            say(f"{number} of {len(left)}: {key}")
            labels = [i % len(model.class_names) for i in range(args.images)]
            started = time.perf_counter()
            images = model.decode(
                model.generate_tokens(
                    labels, seed=0, batch_size=args.batch_size, progress=True, temperature=args.temperature, **key
                ),
                args.batch_size,
            )
            seconds = (time.perf_counter() - started) / args.images
            quality = judge(images, torch.tensor(labels))
            results["rows"].append({**key, "seconds_per_image": seconds, **quality, **hardware(torch.device("cpu"))})
            write_json(args.out, results)
    write_atomically(args.out.with_suffix(".png"), lambda file: draw(results).savefig(file, format="png", dpi=150))
    print(table(results, "accuracy"))
    print(table(results, "kernel_distance"))


def settings(args: argparse.Namespace, num_cells: int) -> list[dict[str, Any]]:
    """Without the schedule where every step fills one cell, and so no schedule makes a difference."""
    steps = [count or num_cells for count in args.steps]
    return [
        {"token_order": order, "schedule": schedule, "steps": count}
        for count in steps
        for order in args.orders
        for schedule in (args.schedules if count < num_cells else args.schedules[-1:])
    ]


def begun(args: argparse.Namespace, model: dict[str, Any]) -> dict[str, Any]:
    """The results so far; refuses a file whose rows would not compare with ours."""
    about = {"images": args.images, "seeds": f"0 to {args.images - 1}", "temperature": args.temperature}
    about |= {"features": EfficientNetLite0Features.name, "real_images": args.real, "model": model}
    if not args.out.exists():
        return {"settings": about, "rows": []}
    results: dict[str, Any] = read_json(args.out)
    if results["settings"] != about:
        raise SystemExit(f"{args.out}: was begun with other settings or another model; give another --out")
    return results


def measure(args: argparse.Namespace, model: Heptapod) -> Measure:
    """What tells the worth of images with labels."""
    size = model.model.grid.height * model.tokenizer.factor
    if args.data == "mnist5k":
        train, held_out = load_images(DataConfig(path="mnist5k"))
        judge = train_classifier(train, len(train.class_names))
        on_real = accuracy(judge, held_out.in_memory(), held_out.labels)
        return lambda images, labels: {"accuracy": accuracy(judge, images, labels), "accuracy_on_real": on_real}
    size = model.model.grid.height * model.tokenizer.factor
    real = random_images("orders", "data", args.data, size, args.real, (Stream.EVALUATION, 0)).in_memory()
    extractor = EfficientNetLite0Features()
    reference = features(extractor, real, "real images")

    def distance(images: Tensor, labels: Tensor) -> dict[str, Any]:
        found = kernel_distance(features(extractor, images, "generated images"), reference)
        return {"kernel_distance": found.mean, "kernel_distance_error": found.standard_error}

    return distance


def table(results: dict[str, Any], name: str) -> str:
    """Markdown: a row per order and schedule, a column per number of steps."""
    rows = [row for row in results["rows"] if name in row]
    steps = sorted({row["steps"] for row in rows})
    if not rows:
        return ""
    lines = [f"| {name} | " + " | ".join(map(str, steps)) + " |", "|---" * (1 + len(steps)) + "|"]
    for order in dict.fromkeys(row["token_order"] for row in rows):
        for schedule in dict.fromkeys(row["schedule"] for row in rows):
            cells = []
            for count in steps:
                fitting = [r for r in rows if (r["token_order"], r["steps"]) == (order, count)]
                one = [r for r in fitting if r["schedule"] == schedule or len(fitting) == 1]
                form = "{:.1%}" if name == "accuracy" else "{:.3f}"
                cells.append(form.format(one[0][name]) if one else "–")
            lines.append(f"| {order}, {schedule} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(results: dict[str, Any]) -> Figure:
    """A panel per measure: quality against steps, a line per order and schedule."""
    names = [name for name in ("accuracy", "kernel_distance") if any(name in row for row in results["rows"])]
    figure = Figure(figsize=(6 * len(names), 4), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for color, order in enumerate(dict.fromkeys(row["token_order"] for row in results["rows"])):
            own = [row for row in results["rows"] if row["token_order"] == order]
            most = max(row["steps"] for row in own)
            for schedule, style in (("cosine", "-"), ("constant", "--")):
                points = sorted((r["steps"], r[name]) for r in own if schedule == r["schedule"] or r["steps"] == most)
                axes.plot(
                    *zip(*points, strict=True), style, marker="o", color=f"C{color}", label=f"{order}, {schedule}"
                )
        axes.set(xscale="log", xlabel="sampling steps", ylabel=name.replace("_", " "))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    return figure


if __name__ == "__main__":
    main()
