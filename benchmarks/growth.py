"""How time and memory of training and sampling grow with the number of cells N.

    python benchmarks/growth.py [--grids 8 16 32 64] [--size B]

Training: one image per step, the cross head (recipe ``imagenet256_b_vq_cross``), ``next_token`` and a masked model with
the architecture of MAR, steps in turns. Sampling: ``heptapod bench sampling`` with the same models, batch 1, 64 steps.
Writes ``benchmarks/results/growth.json`` and a figure, ``docs/images/growth.png``.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable
from typing import Any

import torch
from masked_training import MaskedTraining, masking_ratio
from record import ROOT, provenance

from heptapod.grid import GridSpec
from heptapod.tools.bench.config import SamplingBench, TrainingVariant
from heptapod.tools.bench.report import growth_exponent
from heptapod.tools.bench.sampling import measure
from heptapod.tools.bench.timing import in_turns
from heptapod.tools.bench.training_cases import TrainingSteps, random_tokens, variant_setup
from heptapod.tools.bench.training_memory import cpu_training_peaks
from heptapod.tools.planning.training_setup import SetupOverrides, TrainingSetup, resolve_setup
from heptapod.training.recipe import load_recipe
from heptapod.utils.files import write_json
from heptapod.utils.random import KeyedGenerator, Stream

CPU = torch.device("cpu")
CODES, CLASSES = 16384, 1000
VARIANTS = {"cross": TrainingVariant("cross", "all", 1), "next_token": TrainingVariant("next_token", "all", 1)}


def setup_of(side: int) -> TrainingSetup:
    """The recipe on a grid, one image per step."""
    recipe = load_recipe("imagenet256_b_vq_cross")
    train = dataclasses.replace(recipe.train, batch_size=1, accumulation=1)
    recipe = dataclasses.replace(recipe, train=train, device="cpu")
    overrides = SetupOverrides(grid=f"{side}x{side}", codes=CODES, classes=CLASSES, images=1_281_167)
    return resolve_setup(recipe, overrides)


def masked_step(setup: TrainingSetup) -> Callable[[], float]:
    """Seconds of a training step of the masked model."""
    grid: GridSpec = setup.grid
    model = MaskedTraining(setup.recipe.model, grid, CLASSES)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    generator = torch.Generator().manual_seed(0)
    ratios = [masking_ratio(generator) for _ in range(1000)]
    masked = round(sum(ratios) / len(ratios) * grid.num_cells)  # its mean, so that a few steps measure the average

    def step() -> float:
        started = time.perf_counter()
        tokens = torch.randint(CODES, (1, grid.num_cells), generator=generator)
        order = torch.randperm(grid.num_cells, generator=generator)[None]
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(tokens, torch.zeros(1, dtype=torch.long), order, masked, KeyedGenerator(Stream.LOSS, [(0,)]))
        loss.mean().backward()
        optimizer.step()
        return time.perf_counter() - started

    return step


def training(sides: list[int], rounds: int) -> list[dict[str, Any]]:
    """Seconds per step and peak memory of every model on every grid."""
    rows = []
    for side in sides:
        setup = setup_of(side)
        setups = {name: variant_setup(setup, variant) for name, variant in VARIANTS.items()}
        peaks = dict(zip(setups, cpu_training_peaks(list(setups.values()), torch.get_num_threads()), strict=True))
        tokens = random_tokens(setup.grid, CLASSES, images=16)
        steppers = {name: TrainingSteps(one.recipe, tokens, CPU) for name, one in setups.items()}
        steps: dict[str, Callable[[], float]] = {
            name: lambda stepper=stepper: stepper.step(by_phase=False)[0] for name, stepper in steppers.items()
        }
        steps["masked"] = masked_step(setup)
        for step in steps.values():
            step()  # warm-up
        for name, seconds in in_turns(steps, rounds).items():
            row = {"model": name, "cells": side**2, "seconds_per_image": min(seconds), "peak_bytes": peaks.get(name)}
            rows.append(row)
            print(row, flush=True)
    return rows


def sampling(sides: list[int], size: str) -> list[dict[str, Any]]:
    """Rows of the sampling benchmark."""
    bench = SamplingBench(
        sizes=(size,), models=("cross", "next_token", "masked"), grids=tuple(sides), batches=(1,), steps=("64",),
        repeats=1, max_seconds=400.0, vocabulary=CODES,
    )  # fmt: skip
    rows, _ = measure(bench)
    return [dataclasses.asdict(row) for row in rows]


def exponents(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The power of N with which each quantity of each model grows."""
    found = []
    for quantity in ("seconds_per_image", "peak_bytes"):
        for model in dict.fromkeys(row["model"] for row in rows):
            points = [(row["cells"], row[quantity]) for row in rows if row["model"] == model and row[quantity]]
            if len(points) > 1:
                cells, values = zip(*sorted(points), strict=True)
                found.append({"model": model, "quantity": quantity, "exponent": growth_exponent(cells, values)})
    return found


def picture(results: dict[str, Any]) -> None:
    """Seconds and memory against N, on logarithmic axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6.5), layout="constrained")
    axes = figure.subplots(2, 2)
    for row, phase in enumerate(("training", "sampling")):
        for column, (quantity, label, scale) in enumerate(
            (("seconds_per_image", "seconds per image", 1), ("peak_bytes", "peak MiB", 2**20))
        ):
            axis = axes[row, column]
            rows = results[phase]["rows"]
            for model in dict.fromkeys(one["model"] for one in rows):
                points = [
                    (one["cells"], one[quantity] / scale) for one in rows if one["model"] == model and one[quantity]
                ]
                if points:
                    axis.loglog(*zip(*sorted(points), strict=True), marker="o", label=model)
            axis.set(xlabel="cells N", ylabel=label, title=phase)
            axis.grid(alpha=0.3)
            axis.legend(fontsize=8)
    figure.savefig(ROOT / "docs" / "images" / "growth.png", dpi=110)


def main() -> None:
    """Measures, fits, draws and stores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grids", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--size", default="B")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    results: dict[str, Any] = {"provenance": provenance("python benchmarks/growth.py")}
    for phase, rows in (
        ("training", training(options.grids, options.rounds)),
        ("sampling", sampling(options.grids, options.size)),
    ):
        results[phase] = {"rows": rows, "exponents": exponents(rows)}
        write_json(ROOT / "benchmarks" / "results" / "growth.json", results)
    picture(results)


if __name__ == "__main__":
    main()
