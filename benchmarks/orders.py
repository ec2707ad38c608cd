"""Image quality against sampling steps, for every token order and schedule.

    OMP_NUM_THREADS=1 python benchmarks/orders.py --model runs/demo_mixed --data mnist5k
    OMP_NUM_THREADS=1 python benchmarks/orders.py --model runs/cifar10_mixed --data cifar10/train.parquet --images 500

Labels are balanced and seeds 0, 1, …, without guidance. For digits the quality is the share that a classifier of real
digits recognizes; otherwise the kernel distance to real images in features of EfficientNet-Lite0 ± its standard error.
Use a model that was trained in mixed order, which includes all orders.

Writes JSON after every setting (the same command resumes) and a figure, and prints Markdown tables.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from matplotlib.figure import Figure
from torch import Tensor

from heptapod import Heptapod
from heptapod.data import DataConfig, load_images
from heptapod.data.selection import random_images
from heptapod.evaluation.classifier import accuracy, train_classifier
from heptapod.evaluation.distances import kernel_distance
from heptapod.evaluation.features import EfficientNetLite0Features
from heptapod.tools.bench.results import Column, describe_model, hardware, markdown_table, resume_rows, save_figure
from heptapod.tools.image_features import image_features
from heptapod.utils.files import write_json
from heptapod.utils.random import Stream

Measure = Callable[[Tensor, Tensor], dict[str, Any]]


@dataclass
class Options:
    """Options of the benchmark."""

    model: str
    """Folder of a model, or of its run."""
    data: str
    """Real images: a folder, parquet file(s) or a built-in set."""
    images: int = 1000
    """Images per setting."""
    real: int = 2000
    """Maximum number of real images, chosen at random."""
    steps: tuple[int, ...] = (4, 8, 16, 32, 0)
    """Numbers of sampling steps; 0: one cell per step."""
    orders: tuple[str, ...] = ("raster", "random", "spiral", "confidence")
    """Token orders."""
    schedules: tuple[str, ...] = ("cosine", "constant")
    """Schedules."""
    temperature: float | None = None
    """Temperature; that of the model if unset."""
    batch_size: int = 250
    """Images at a time."""
    out: Path = Path("benchmarks/results/orders.json")
    """JSON file; the figure is next to it."""


def main(options: Options) -> None:
    model = Heptapod.from_pretrained(options.model)
    temperature = model.sampling.temperature if options.temperature is None else options.temperature
    settings = {"images": options.images, "seeds": f"0 to {options.images - 1}", "temperature": temperature}
    settings |= {"features": EfficientNetLite0Features.name, "real_images": options.real}
    settings |= {"model": describe_model(model, Path(options.model))}
    results = resume_rows(options.out, settings)
    wanted = sampling_settings(options, model.model.grid.num_cells)
    if left := [key for key in wanted if not any(key.items() <= row.items() for row in results["rows"])]:
        judge = measure(options.data, options.real, model)
        labels = [i % len(model.class_names) for i in range(options.images)]
        for number, key in enumerate(left, 1):
            print(f"{number} of {len(left)}: {key}")
            started = time.perf_counter()
            tokens = model.generate_tokens(
                labels, seed=0, batch_size=options.batch_size, progress=True, temperature=temperature, **key
            )
            images = model.decode(tokens, options.batch_size)
            seconds = (time.perf_counter() - started) / options.images
            quality = judge(images, torch.tensor(labels))
            results["rows"].append({**key, "seconds_per_image": seconds, **quality, **hardware()})
            write_json(options.out, results)
    save_figure(draw(results), options.out.with_suffix(".png"), dpi=150)
    print(table(results, "accuracy"))
    print(table(results, "kernel_distance"))


def sampling_settings(options: Options, num_cells: int) -> list[dict[str, Any]]:
    """All settings; only one schedule where every step fills one cell."""
    return [
        {"token_order": order, "schedule": schedule, "steps": count}
        for count in (count or num_cells for count in options.steps)
        for order in options.orders
        for schedule in (options.schedules if count < num_cells else options.schedules[-1:])
    ]


def measure(data: str, count: int, model: Heptapod) -> Measure:
    """The function that measures the quality of images with labels, against at most ``count`` real ones."""
    if data == "mnist5k":
        train, held_out = load_images(DataConfig(path="mnist5k"))
        judge = train_classifier(train, len(train.class_names))
        on_real = accuracy(judge, held_out.in_memory(), held_out.labels)
        return lambda images, labels: {"accuracy": accuracy(judge, images, labels), "accuracy_on_real": on_real}
    size = model.model.grid.height * model.tokenizer.factor
    real = random_images("benchmark", "data", data, size, count, (Stream.EVALUATION, 0)).in_memory()
    extractor = EfficientNetLite0Features()
    reference = image_features(extractor, real, 32)

    def distance(images: Tensor, labels: Tensor) -> dict[str, Any]:
        kernel = kernel_distance(image_features(extractor, images, 32), reference)
        return {"kernel_distance": kernel.mean, "kernel_distance_error": kernel.standard_error}

    return distance


def table(results: dict[str, Any], name: str) -> str:
    """Markdown: a row per order and schedule, a column per number of steps."""
    rows = [row for row in results["rows"] if name in row]
    if not rows:
        return ""

    def value(line: tuple[str, str], count: int) -> str:
        matching = [row for row in rows if (row["token_order"], row["steps"]) == (line[0], count)]
        chosen = [row for row in matching if row["schedule"] == line[1] or len(matching) == 1]
        return format(chosen[0][name], ".1%" if name == "accuracy" else ".3f") if chosen else "–"

    columns: dict[str, Column] = {name: lambda line: f"{line[0]}, {line[1]}"}
    columns |= {
        str(count): lambda line, count=count: value(line, count)  # type: ignore[misc]
        for count in sorted({row["steps"] for row in rows})
    }
    names = [list(dict.fromkeys(row[key] for row in rows)) for key in ("token_order", "schedule")]
    return markdown_table(columns, [(order, schedule) for order in names[0] for schedule in names[1]])


def draw(results: dict[str, Any]) -> Figure:
    """A panel per measure: quality against steps, a line per order and schedule."""
    names = [name for name in ("accuracy", "kernel_distance") if any(name in row for row in results["rows"])]
    figure = Figure(figsize=(6 * len(names), 4), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for color, order in enumerate(dict.fromkeys(row["token_order"] for row in results["rows"])):
            rows = [row for row in results["rows"] if row["token_order"] == order]
            most = max(row["steps"] for row in rows)
            for schedule, style in (("cosine", "-"), ("constant", "--")):
                points = sorted((r["steps"], r[name]) for r in rows if schedule == r["schedule"] or r["steps"] == most)
                axes.plot(
                    *zip(*points, strict=True), style, marker="o", color=f"C{color}", label=f"{order}, {schedule}"
                )
        axes.set(xscale="log", xlabel="sampling steps", ylabel=name.replace("_", " "))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    return figure


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__, use_underscores=True))
