"""Kernel distance at few steps and at one cell per step, each at the temperature that other images choose.

    OMP_NUM_THREADS=1 python benchmarks/few_steps.py --models RUN … --tune IMAGES --data IMAGES

The first model chooses a temperature for every number of steps, by its kernel distance to the images of ``--tune``.
Then all models are measured against ``--data``. Labels are balanced, seeds are 0, 1, …, without guidance; features of
EfficientNet-Lite0. Writes JSON after every setting (the same command resumes).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from torch import Tensor

from heptapod import Heptapod
from heptapod.data.selection import random_images
from heptapod.distributed.device import resolve_device
from heptapod.evaluation.distances import kernel_distance
from heptapod.evaluation.features import EfficientNetLite0Features
from heptapod.tools.bench.results import describe_model, hardware, resume_rows
from heptapod.tools.image_features import image_features
from heptapod.utils.files import write_json
from heptapod.utils.random import Stream


@dataclass
class Options:
    """Options of the benchmark."""

    models: tuple[str, ...]
    """Folders of models or of their runs; the first one chooses the temperatures."""
    tune: str
    """Images that choose: a folder or parquet file(s)."""
    data: str
    """Images that the report is about."""
    images: int = 300
    """Samples per setting."""
    real: int = 2000
    """Real images, chosen at random."""
    steps: tuple[int, ...] = (8, 0)
    """Numbers of sampling steps; 0: one cell per step."""
    temperatures: tuple[float, ...] = (0.55, 0.65, 0.75, 0.85, 0.95)
    """Temperatures to choose from."""
    token_order: str = "random"
    """Order of sampling."""
    batch_size: int = 50
    """Images at a time."""
    out: Path = Path("benchmarks/results/few_steps.json")
    """JSON file."""


def main(options: Options) -> None:
    models = [Heptapod.from_pretrained(name) for name in options.models]
    settings = {"images": options.images, "seeds": f"0 to {options.images - 1}", "token_order": options.token_order}
    settings |= {"features": EfficientNetLite0Features.name, "real_images": options.real}
    described = zip(models, options.models, strict=True)
    settings |= {"models": [describe_model(model, Path(name)) for model, name in described]}
    results = resume_rows(options.out, settings)
    cells = models[0].model.grid.num_cells
    steps = [count or cells for count in options.steps]

    def measure_all(data: str, wanted: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The rows of these settings; missing ones are measured."""
        left = [key for key in wanted if not any(key.items() <= row.items() for row in results["rows"])]
        judge = distance_to(data, models[0], options) if left else None
        for number, key in enumerate(left, 1):
            print(f"{data}: {number} of {len(left)}: {key}")
            assert judge is not None
            results["rows"].append({**key, **judge(sample(models[key["model"]], key, options)), **hardware()})
            write_json(options.out, results)
        return [row for row in results["rows"] if any(key.items() <= row.items() for key in wanted)]

    tuned = measure_all(
        options.tune,
        [
            {"model": 0, "data": options.tune, "steps": count, "temperature": temperature}
            for count in steps
            for temperature in options.temperatures
        ],
    )
    best = {
        count: min((row for row in tuned if row["steps"] == count), key=lambda row: float(row["kernel_distance"]))
        for count in steps
    }
    chosen = {count: float(row["temperature"]) for count, row in best.items()}
    reported = measure_all(
        options.data,
        [
            {"model": number, "data": options.data, "steps": count, "temperature": chosen[count]}
            for number in range(len(models))
            for count in steps
        ],
    )
    results["chosen"] = [{"steps": count, "temperature": temperature} for count, temperature in chosen.items()]
    write_json(options.out, results)
    for row in reported:
        print(f"{options.models[row['model']]}: {row['steps']} steps, temperature {row['temperature']}: "
              f"{row['kernel_distance']:.4f}")  # fmt: skip


def distance_to(data: str, model: Heptapod, options: Options) -> Callable[[Tensor], dict[str, float]]:
    """The function that measures images by their kernel distance to real ones."""
    size = model.model.grid.height * model.tokenizer.factor
    real = random_images("few_steps", "data", data, size, options.real, (Stream.EVALUATION, 0)).in_memory()
    extractor = EfficientNetLite0Features(resolve_device("cpu"))
    reference = image_features(extractor, real, options.batch_size)

    def distance(images: Tensor) -> dict[str, float]:
        found = kernel_distance(image_features(extractor, images, options.batch_size), reference)
        return {"kernel_distance": found.mean, "kernel_distance_error": found.standard_error}

    return distance


def sample(model: Heptapod, key: dict[str, Any], options: Options) -> Tensor:
    """Images of balanced classes."""
    labels = [number % len(model.class_names) for number in range(options.images)]
    tokens = model.generate_tokens(
        labels,
        seed=0,
        batch_size=options.batch_size,
        steps=key["steps"],
        temperature=key["temperature"],
        token_order=options.token_order,
    )
    return model.decode(tokens, options.batch_size)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__, use_underscores=True))
