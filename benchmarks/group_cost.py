"""Time of a training step at size B by head and density, and of a masked model as MAR, in turns in one run.

    OMP_NUM_THREADS=1 python -m benchmarks.group_cost --tokens codes --batch 1
    OMP_NUM_THREADS=1 python -m benchmarks.group_cost --tokens vectors --batch 4

Forward and backward pass, float32, random tokens on 16×16 cells: 16,384 codes, or vectors of 16 channels with flow
(masked: MAR's diffusion loss, four noise levels per cell). The update of the weights costs every model the same and is
left out, so that all models fit into memory. Run it in the root of the repository.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from benchmarks.masked_training import MaskedTraining, masking_ratio
from benchmarks.record import commit
from torch import Tensor, nn

from heptapod.configs.distributions import DistributionConfig
from heptapod.configs.objective import ObjectiveConfig
from heptapod.grid import GridSpec
from heptapod.models import HeadConfig, ModelConfig
from heptapod.models.heptapod import build_model
from heptapod.objective import draw_supervision, draw_token_order, objective_loss
from heptapod.tools.bench.results import describe_hardware, hardware
from heptapod.tools.bench.timing import clock
from heptapod.utils.files import write_json
from heptapod.utils.random import KeyedGenerator, Stream, seeded_initialization

OUT = Path(__file__).parent / "results"
GRIDS = {"codes": GridSpec(16, 16, 16384), "vectors": GridSpec(16, 16, channels=16)}
CLASSES = 1000
Variant = tuple[str, Any, Any]
"""Head, prefixes per image, targets per prefix; far cells where the head's default has them."""
VARIANTS: list[Variant] = [
    ("masked", None, None),
    ("next_token", "all", 1),
    ("cross", "all", 1),
    ("cross", 64, 4),
    ("group", 1, "all"),
    ("group", 2, "all"),
    ("group", 16, 8),
    ("global", 1, "all"),
    ("global", 2, "all"),
    ("global", 4, "all"),
]
Step = Callable[[Variant, int, int], tuple[float, float]]


def steps_of(size: str, grid: GridSpec) -> Step:
    """A function that makes step ``number`` of a variant with a batch: its seconds, and supervised cells per image."""
    ours = DistributionConfig("categorical" if grid.is_discrete else "flow")
    mars = ours if grid.is_discrete else DistributionConfig("diffusion", modulation="joint")
    kinds = dict.fromkeys(kind for kind, _, _ in VARIANTS if kind != "masked")
    models: dict[str, nn.Module] = {
        kind: build_model(ModelConfig(size, head=HeadConfig(kind), distribution=ours), grid, CLASSES, 0)  # type: ignore[arg-type]
        for kind in kinds
    }
    with seeded_initialization(0):
        models["masked"] = MaskedTraining(ModelConfig(size, distribution=mars), grid, CLASSES)  # type: ignore[arg-type]

    def loss_of(variant: Variant, tokens: Tensor, labels: Tensor, number: int) -> tuple[Tensor, float]:
        kind, prefixes, targets = variant
        keys = [(0, number, index) for index in range(len(tokens))]
        noise = KeyedGenerator(Stream.LOSS, keys)
        if kind == "masked":
            order = draw_token_order("random", grid.num_cells, KeyedGenerator(Stream.SUPERVISION, keys))
            masked = round(masking_ratio(torch.Generator().manual_seed(number)) * grid.num_cells)
            return models[kind](tokens, labels, order, masked, noise).mean(), masked
        far = None if (kind, prefixes, targets) == ("cross", "all", 1) else 0.0
        objective = ObjectiveConfig("random", prefixes, targets, far_cells=far).for_head(kind)
        drawn = draw_supervision(objective, grid.height, grid.width, keys)
        cells = float((drawn.weights > 0).expand_as(drawn.targets).sum()) / len(tokens)
        return objective_loss(models[kind], tokens, labels, drawn, noise).mean(), cells  # type: ignore[arg-type]

    def step(variant: Variant, number: int, batch: int) -> tuple[float, float]:
        device, generator = torch.device("cpu"), torch.Generator().manual_seed(number)
        shape = (batch, *grid.token_shape)
        codes = torch.randint(max(grid.vocabulary_size, 1), shape, generator=generator)
        tokens = codes if grid.is_discrete else torch.randn(shape, generator=generator)
        started = clock(device)
        loss, cells = loss_of(variant, tokens, torch.zeros(batch, dtype=torch.long), number)
        loss.backward()
        seconds = clock(device) - started
        models[variant[0]].zero_grad(set_to_none=True)
        return seconds, cells

    return step


def rows_of(seconds: dict[Variant, list[float]], cells: dict[Variant, list[float]]) -> list[dict[str, Any]]:
    """A row per variant: the mean over rounds, as masks and prefixes have other sizes in every round."""
    means = {variant: sum(values) / len(values) for variant, values in seconds.items()}
    return [
        {
            "head": kind,
            "prefixes_per_image": prefixes,
            "targets_per_prefix": targets,
            "supervised_cells": sum(counts) / len(counts),
            "seconds_per_step": means[kind, prefixes, targets],
            "relative_to_cross": means[kind, prefixes, targets] / means["cross", 64, 4],
            "relative_to_masked": means[kind, prefixes, targets] / means["masked", None, None],
        }
        for (kind, prefixes, targets), counts in cells.items()
    ]


def main(size: str, batch: int, rounds: int, tokens: str) -> None:
    torch.set_num_threads(1)
    grid = GRIDS[tokens]
    step = steps_of(size, grid)
    seconds: dict[Variant, list[float]] = {variant: [] for variant in VARIANTS}
    cells: dict[Variant, list[float]] = {variant: [] for variant in VARIANTS}
    provenance = {
        "command": f"python -m benchmarks.group_cost --tokens {tokens} --size {size} --batch {batch} --rounds {rounds}",
        "commit": commit(),
        "machine": describe_hardware(hardware()),
    }
    settings = {
        "size": size,
        "batch_size": batch,
        "precision": "float32",
        "cells": grid.num_cells,
        "codes": grid.vocabulary_size,
        "channels": grid.channels,
    }
    for variant in VARIANTS:  # without measuring: the first steps of a process take longer
        step(variant, rounds, batch)
    for number in range(rounds):
        for variant in VARIANTS:
            taken, count = step(variant, number, batch)
            seconds[variant].append(taken)
            cells[variant].append(count)
            print(variant, round(taken, 2), count, flush=True)
        found = {
            "provenance": provenance,
            "settings": {**settings, "rounds": number + 1},
            "rows": rows_of(seconds, cells),
        }
        write_json(OUT / f"group_cost_{tokens}.json", found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="B")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--tokens", choices=GRIDS, default="vectors")
    main(**vars(parser.parse_args()))
