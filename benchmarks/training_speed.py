"""Training steps at size B: bfloat16 against float32, and the flow model against a masked model as MAR.

    python benchmarks/training_speed.py

Random tokens, 256 cells, batch 4. Steps in turns in one process, the fastest of three after one. Codes: recipe
``imagenet256_b_vq_cross``. Vectors: recipe ``imagenet256_b_vae_cross``, next to a masked model with the architecture of
MAR, its cell network and its mean number of masked cells. Writes ``benchmarks/results/training_speed.json``.
"""

from __future__ import annotations

import dataclasses
import gc
from functools import partial
from typing import Any

import torch
from growth import CLASSES, seconds_of
from masked_training import masked_step
from record import ROOT, provenance

from heptapod.distributions import DistributionConfig
from heptapod.tools.bench.config import parse_variant
from heptapod.tools.bench.timing import in_turns
from heptapod.tools.bench.training_cases import TrainingSteps, random_tokens, variant_setup
from heptapod.tools.planning.training_setup import SetupOverrides, TrainingSetup, resolve_setup
from heptapod.training.recipe import load_recipe
from heptapod.utils.files import write_json

MARS = DistributionConfig("diffusion", modulation="joint")
"""The cell network of MAR."""
CPU = torch.device("cpu")
BATCH, ROUNDS = 4, 4


def setup_of(name: str, precision: str) -> TrainingSetup:
    """A recipe for random tokens."""
    recipe = load_recipe(name)
    train = dataclasses.replace(recipe.train, batch_size=BATCH, accumulation=1, precision=precision)  # type: ignore[arg-type]
    setup = resolve_setup(
        dataclasses.replace(recipe, train=train, device="cpu"), SetupOverrides(classes=CLASSES, images=1_281_167)
    )
    return variant_setup(setup, parse_variant("own", setup.recipe))


def steps_of(setup: TrainingSetup) -> TrainingSteps:
    """Its training steps."""
    return TrainingSteps(setup.recipe, random_tokens(setup.grid, CLASSES, images=16), CPU)


def measured(steppers: dict[str, Any]) -> dict[str, float]:
    """Seconds of the fastest step of each, without the first."""
    return {name: min(seconds[1:]) for name, seconds in in_turns(steppers, ROUNDS).items()}


def main() -> None:
    """Measures and stores."""
    results: dict[str, Any] = {"provenance": provenance("python benchmarks/training_speed.py"), "batch": BATCH}
    for name in ("imagenet256_b_vq_cross", "imagenet256_b_vae_cross"):
        steppers: dict[str, Any] = {
            precision: partial(seconds_of, steps_of(setup_of(name, precision))) for precision in ("float32", "bfloat16")
        }
        if name == "imagenet256_b_vae_cross":
            setup = setup_of(name, "bfloat16")
            config = dataclasses.replace(setup.recipe.model, distribution=MARS)
            steppers["masked, bfloat16"] = masked_step(config, setup.grid, CLASSES, BATCH)
        seconds = measured(steppers)
        results[name] = {"seconds": seconds, "bfloat16": seconds["float32"] / seconds["bfloat16"]}
        if "masked, bfloat16" in seconds:
            results[name]["of masked"] = seconds["masked, bfloat16"] / seconds["bfloat16"]
        print(name, results[name], flush=True)
        del steppers
        gc.collect()
    write_json(ROOT / "benchmarks" / "results" / "training_speed.json", results)


if __name__ == "__main__":
    main()
