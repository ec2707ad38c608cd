"""Quality at few steps and at one cell per step, each at the temperature that other images choose.

    OMP_NUM_THREADS=2 python benchmarks/few_steps.py --models RUN … --tune IMAGES --data IMAGES

The first model chooses a temperature for every number of steps by its kernel distance to the images of ``--tune``.
Then all models are measured against ``--data``. Labels are balanced, seeds are 0, 1, …, without guidance. Writes JSON
after every setting (the same command resumes).
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from orders import measure
from record import provenance

from heptapod import Heptapod
from heptapod.evaluation.features import EfficientNetLite0Features
from heptapod.tools.bench.results import describe_model, resume_rows
from heptapod.utils.files import write_json


@dataclass
class Options:
    """Options of the benchmark."""

    models: tuple[str, ...]
    """Folders of models or of their runs; the first one chooses the temperatures."""
    tune: str
    """Images that choose the temperatures: a folder or parquet file(s)."""
    data: str
    """Images that the report compares with."""
    images: int = 500
    """Samples per setting."""
    real: int = 2000
    """Maximum number of real images, chosen at random."""
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
    settings |= {"models": [describe_model(m, Path(name)) for m, name in zip(models, options.models, strict=True)]}
    results = resume_rows(options.out, settings, provenance=provenance(f"python {shlex.join(sys.argv)}"))
    steps = [count or models[0].model.grid.num_cells for count in options.steps]

    tried = [(0, count, temperature) for count in steps for temperature in options.temperatures]
    tuned = measured(results, models, options.tune, tried, options)
    at = [[row for row in tuned if row["steps"] == count] for count in steps]
    best = [min(rows, key=lambda row: float(row["kernel_distance"])) for rows in at]
    results["chosen"] = [{"steps": row["steps"], "temperature": row["temperature"]} for row in best]
    reported = [(number, row["steps"], row["temperature"]) for number in range(len(models)) for row in best]
    for row in measured(results, models, options.data, reported, options):
        print(f"{options.models[row['model']]}, {row['steps']} steps: {row['kernel_distance']:.4f}")
    write_json(options.out, results)


def measured(
    results: dict[str, Any], models: list[Heptapod], data: str, wanted: list[tuple[int, int, float]], options: Options
) -> list[dict[str, Any]]:
    """The rows of models, numbers of steps and temperatures against a set of images; missing ones are measured."""
    keys = [{"model": number, "data": data, "steps": steps, "temperature": t} for number, steps, t in wanted]
    left = [key for key in keys if not any(key.items() <= row.items() for row in results["rows"])]
    judge = measure(data, options.real, models[0]) if left else None
    labels = [number % len(models[0].class_names) for number in range(options.images)]
    for place, key in enumerate(left, 1):
        print(f"{data}: {place} of {len(left)}: {key}", flush=True)
        model = models[key["model"]]
        sampling = {"steps": key["steps"], "temperature": key["temperature"], "token_order": options.token_order}
        tokens = model.generate_tokens(labels, seed=0, batch_size=options.batch_size, **sampling)
        assert judge is not None
        quality = judge(model.decode(tokens, options.batch_size), torch.tensor(labels))
        results["rows"].append({**key, **quality})
        write_json(options.out, results)
    return [row for key in keys for row in results["rows"] if key.items() <= row.items()]


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__, use_underscores=True))
