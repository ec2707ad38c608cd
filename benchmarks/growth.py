"""How time and memory of training and sampling grow with the number of cells N and with the batch.

    python benchmarks/growth.py

Training: the cross head (recipe ``imagenet256_b_vq_cross``), ``next_token`` and a masked model with the architecture of
MAR, steps in turns, bfloat16 autocast. Sampling: ``heptapod bench sampling`` with the same models, bfloat16, 64 steps.
Size B. Writes ``benchmarks/results/growth.json`` after every grid and batch, of which it measures only the absent ones,
and a figure, ``docs/images/growth.png``. Adds the plans of the recipe for 256 and 4,096 cells on eight H100s.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from masked_training import masked_step
from plans import plan
from record import ROOT, provenance

from heptapod.tools.bench.config import SamplingBench, parse_variant
from heptapod.tools.bench.report import growth_exponent
from heptapod.tools.bench.sampling import measure
from heptapod.tools.bench.timing import in_turns
from heptapod.tools.bench.training_cases import TrainingSteps, random_tokens, variant_setup
from heptapod.tools.bench.training_memory import cpu_training_peaks
from heptapod.tools.planning.training_setup import SetupOverrides, TrainingSetup, resolve_setup
from heptapod.training.recipe import load_recipe
from heptapod.utils.files import read_json, write_json

CPU = torch.device("cpu")
CODES, CLASSES = 16384, 1000
VARIANTS = {"cross": "own", "next_token": "next_token"}
CASES = [(8, 1), (8, 4), (16, 1), (16, 4), (32, 1), (32, 4), (64, 1)]
"""Cells per side, and batch."""
RESULTS = ROOT / "benchmarks" / "results" / "growth.json"


def setup_of(side: int, batch: int) -> TrainingSetup:
    """The recipe on a grid."""
    recipe = load_recipe("imagenet256_b_vq_cross")
    train = dataclasses.replace(recipe.train, batch_size=batch, accumulation=1, precision="bfloat16")
    recipe = dataclasses.replace(recipe, train=train, device="cpu")
    overrides = SetupOverrides(grid=f"{side}x{side}", codes=CODES, classes=CLASSES, images=1_281_167)
    return resolve_setup(recipe, overrides)


def seconds_of(steps: TrainingSteps) -> float:
    """Seconds of one step."""
    return steps.step(by_phase=False)[0]


def training(side: int, batch: int) -> list[dict[str, Any]]:
    """Seconds per image and peak memory of every model."""
    setup = setup_of(side, batch)
    setups = {name: variant_setup(setup, parse_variant(text, setup.recipe)) for name, text in VARIANTS.items()}
    peaks = dict(zip(setups, cpu_training_peaks(list(setups.values()), torch.get_num_threads()), strict=True))
    steppers = {
        name: TrainingSteps(one.recipe, random_tokens(setup.grid, CLASSES, images=16), CPU)
        for name, one in setups.items()
    }
    steps: dict[str, Callable[[], float]] = {name: partial(seconds_of, one) for name, one in steppers.items()}
    steps["masked"] = masked_step(setup.recipe.model, setup.grid, CLASSES, batch)
    seconds = in_turns(steps, 3 if side * batch < 64 else 2)  # the first step warms up
    return [
        {
            "model": name, "cells": side**2, "batch": batch, "seconds_per_image": min(found[1:]) / batch,
            "peak_bytes": peaks.get(name),
        }
        for name, found in seconds.items()
    ]  # fmt: skip


def sampling(side: int, batch: int) -> list[dict[str, Any]]:
    """Rows of the sampling benchmark."""
    # next_token samples one cell per step: 4,096 steps take five minutes, and its curve is known from fewer cells.
    models = ("cross", "next_token", "masked") if batch == 1 and side < 64 else ("cross", "masked")
    bench = SamplingBench(
        sizes=("B",), models=models, grids=(side,), batches=(batch,), steps=("64",), precisions=("bfloat16",),
        repeats=1, max_seconds=1000.0, vocabulary=CODES,
    )  # fmt: skip
    rows, skipped = measure(bench)
    assert not skipped, skipped
    kept = ("model", "cells", "batch", "steps", "seconds_per_image", "peak_bytes", "cache_bytes", "timed_steps")
    return [{name: getattr(row, name) for name in kept} for row in rows]


def exponents(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The power of N with which each quantity of each model grows, one image at a time."""
    found = []
    for quantity in ("seconds_per_image", "peak_bytes"):
        for model in dict.fromkeys(row["model"] for row in rows):
            points = curve(rows, model, quantity)
            if len(points) > 1:
                cells, values = zip(*points, strict=True)
                slopes = [growth_exponent(cells[i : i + 2], values[i : i + 2]) for i in range(len(cells) - 1)]
                whole = growth_exponent(cells, values)
                found.append({"model": model, "quantity": quantity, "exponent": whole, "by_quadrupling": slopes})
    return found


def curve(rows: list[dict[str, Any]], model: str, quantity: str) -> list[tuple[int, float]]:
    """A quantity against N, one image at a time."""
    return sorted(
        (row["cells"], row[quantity])
        for row in rows
        if row["model"] == model and row["batch"] == 1 and row[quantity] is not None
    )


def picture(results: dict[str, Any]) -> None:
    """Seconds and memory against N, on logarithmic axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6.5), layout="constrained")
    axes = figure.subplots(2, 2)
    for row, phase in enumerate(("training", "sampling")):
        for column, (quantity, label, scale) in enumerate(
            (("seconds_per_image", "seconds per image", 1), ("peak_bytes", "peak memory, GiB", 2**30))
        ):
            axis = axes[row, column]
            rows = results[phase]["rows"]
            for model in dict.fromkeys(one["model"] for one in rows):
                if points := curve(rows, model, quantity):
                    cells, values = zip(*points, strict=True)
                    axis.loglog(cells, [value / scale for value in values], marker="o", label=model)
            axis.set(xlabel="cells N", ylabel=label, title=f"{phase}, one image")
            axis.set_xticks([64, 256, 1024, 4096], ["64", "256", "1,024", "4,096"])
            axis.grid(alpha=0.3)
            axis.legend(fontsize=8)
    figure.savefig(ROOT / "docs" / "images" / "growth.png", dpi=110)


def main() -> None:
    """Measures, fits, draws and stores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    empty: dict[str, Any] = {phase: {"rows": []} for phase in ("training", "sampling")}
    results = read_json(RESULTS) if RESULTS.is_file() else empty
    for side, batch in CASES:
        for phase, function in (("training", training), ("sampling", sampling)):
            rows = results[phase]["rows"]
            if any((row["cells"], row["batch"]) == (side**2, batch) for row in rows):
                continue
            rows += function(side, batch)
            results["provenance"] = provenance("python benchmarks/growth.py")
            gc.collect()  # the models of a training refer to themselves
            results[phase]["exponents"] = exponents(rows)
            write_json(RESULTS, results)
            print(*rows[-3:], sep="\n", flush=True)
    results["plans"] = {
        str(side**2): plan(f"plan imagenet256_b_vq_cross --grid {side}x{side} --gpus 8 --gpu h100") for side in (16, 64)
    }
    write_json(RESULTS, results)
    picture(results)


if __name__ == "__main__":
    main()
