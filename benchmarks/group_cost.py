"""Time of a training step at size B by head and density, in turns in one run: forward and backward pass.

    OMP_NUM_THREADS=1 python -m benchmarks.group_cost

16×16 cells of 16,384 codes, float32, random tokens. The update of the weights costs every model the same and is left
out, so that all models fit into memory. Run it in the root of the repository.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from benchmarks.record import commit

from heptapod.configs.objective import ObjectiveConfig
from heptapod.grid import GridSpec
from heptapod.models import HeadConfig, HeptapodModel, ModelConfig
from heptapod.models.heptapod import build_model
from heptapod.objective import draw_supervision, objective_loss
from heptapod.tools.bench.results import describe_hardware, hardware
from heptapod.tools.bench.timing import clock
from heptapod.utils.files import write_json

OUT = Path(__file__).parent / "results" / "group_cost.json"
Variant = tuple[str, Any, Any]
"""Head, prefixes per image, targets per prefix."""
VARIANTS: list[Variant] = [
    ("next_token", "all", 1),
    ("cross", 64, 4),
    ("group", 1, "all"),
    ("group", 2, "all"),
    ("group", 16, 8),
    ("global", 1, "all"),
    ("global", 2, "all"),
    ("global", 4, "all"),
]


def step(model: HeptapodModel, objective: ObjectiveConfig, number: int, batch: int) -> tuple[float, float]:
    """Seconds of a step, and supervised cells per image."""
    grid, device = model.grid, torch.device("cpu")
    generator = torch.Generator().manual_seed(number)
    tokens = torch.randint(grid.vocabulary_size, (batch, grid.num_cells), generator=generator)
    started = clock(device)
    drawn = draw_supervision(objective, grid.height, grid.width, [(0, number, i) for i in range(batch)])
    loss = objective_loss(model, tokens, torch.zeros(batch, dtype=torch.long), drawn).mean()
    loss.backward()
    seconds = clock(device) - started
    model.zero_grad(set_to_none=True)
    return seconds, float((drawn.weights > 0).expand_as(drawn.targets).sum()) / batch


def rows_of(seconds: dict[Variant, list[float]], cells: dict[Variant, list[float]]) -> list[dict[str, Any]]:
    cross = min(seconds["cross", 64, 4])
    return [
        {
            "head": kind,
            "prefixes_per_image": prefixes,
            "targets_per_prefix": targets,
            "supervised_cells": sum(counts) / len(counts),
            "seconds_per_step": min(seconds[kind, prefixes, targets]),
            "relative_to_cross": min(seconds[kind, prefixes, targets]) / cross,
        }
        for (kind, prefixes, targets), counts in cells.items()
    ]


def main(size: str, batch: int, rounds: int) -> None:
    torch.set_num_threads(1)
    grid = GridSpec(16, 16, 16384)
    kinds = dict.fromkeys(kind for kind, _, _ in VARIANTS)
    models = {kind: build_model(ModelConfig(size, head=HeadConfig(kind)), grid, 1000, 0) for kind in kinds}  # type: ignore[arg-type]
    seconds: dict[Variant, list[float]] = {variant: [] for variant in VARIANTS}
    cells: dict[Variant, list[float]] = {variant: [] for variant in VARIANTS}
    provenance = {
        "command": f"python -m benchmarks.group_cost --size {size} --batch {batch}",
        "commit": commit(),
        "machine": describe_hardware(hardware()),
    }
    settings = {"size": size, "batch_size": batch, "precision": "float32", "cells": grid.num_cells, "codes": 16384}
    for number in range(rounds):
        for variant in VARIANTS:
            kind, prefixes, targets = variant
            objective = ObjectiveConfig("random", prefixes, targets, far_cells=0.0).for_head(kind)
            taken, count = step(models[kind], objective, number, batch)
            seconds[variant].append(taken)
            cells[variant].append(count)
            print(variant, round(taken, 2), count, flush=True)
        rows = rows_of(seconds, cells)
        write_json(OUT, {"provenance": provenance, "settings": {**settings, "rounds": number + 1}, "rows": rows})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="B")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    main(**vars(parser.parse_args()))
