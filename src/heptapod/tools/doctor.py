"""What a machine has, how fast it is, and what it could train in half an hour; all speeds are measured."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from heptapod import __version__
from heptapod.distributed.device import has_bfloat16, has_float16_on_cpu
from heptapod.distributed.errors import one_line
from heptapod.tools.bench.results import hardware
from heptapod.tools.bench.timing import median_seconds, synchronize
from heptapod.tools.bench.training_cases import TrainingSteps, random_tokens
from heptapod.tools.planning.training_setup import SetupOverrides, resolve_setup
from heptapod.training.recipe import load_recipe
from heptapod.utils.logging import Progress
from heptapod.utils.machine import GIB, compiles_by_default, memory_bytes

SIDE = {"cpu": 1024, "cuda": 8192}
"""Rows and columns of the square matrices whose product is timed."""
RECIPES = {"demo": (7, 8), "cifar10": (8, 10), "imagenet64": (16, 100)}
"""Recipes that are tried: cells per side, and classes."""
MINUTES = 30
IMAGES = {"cpu": 32, "cuda": 128}
"""Largest number of images in a timed training step."""
NOT_FOR_USERS = {"all", "dev", "docs"}


def examine(device: torch.device, folder: Path) -> dict[str, Any]:
    """Facts about this installation and this machine.

    Args:
        device: what to measure.
        folder: where runs would be written.

    Returns:
        Values that JSON can hold: ``versions``, ``machine``, ``gflops`` by dtype, ``missing_extras`` (extra -> packages
        that are not installed), and ``training`` (recipe -> what half an hour trains, or an ``error``).
    """
    return {
        "versions": {
            "heptapod": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "system": f"{platform.system()} {platform.release()}",
        },
        "machine": machine(device, folder),
        "gflops": dict(matmul_speeds(device)),
        "missing_extras": missing_extras(),
        "training": dict(trainings(device)),
    }


def machine(device: torch.device, folder: Path) -> dict[str, Any]:
    """Processor, device, memory, disk; sizes in GiB."""
    found = {key: value for key, value in hardware(device).items() if key != "torch"}
    memory, places = memory_bytes(), [folder.resolve(), *folder.resolve().parents]
    there = next((place for place in places if place.exists()), None)
    found["memory_gib"] = None if memory is None else memory / GIB
    found["free_disk_gib"] = None if there is None else shutil.disk_usage(there).free / GIB
    if device.type == "cuda":
        free, whole = torch.cuda.mem_get_info(device)
        found |= {"gpus": torch.cuda.device_count(), "gpu_memory_gib": whole / GIB, "free_gpu_memory_gib": free / GIB}
    found["compiles_blocks"] = compiles_by_default(device)
    return found


def matmul_speeds(device: torch.device) -> Iterator[tuple[str, float | None]]:
    """10^9 FLOPs per second of a large matrix product, by dtype; None where the device has no instructions for it."""
    on_cpu = device.type == "cpu"
    has = {"float32": True, "bfloat16": has_bfloat16(device), "float16": not on_cpu or has_float16_on_cpu()}
    side = SIDE.get(device.type, SIDE["cpu"])
    for name, supported in has.items():
        if not supported:
            yield name, None
            continue
        a, b = torch.ones(2, side, side, dtype=getattr(torch, name), device=device).unbind()

        def product(a: torch.Tensor = a, b: torch.Tensor = b) -> None:
            torch.mm(a, b)
            synchronize(device)

        yield name, 2 * side**3 / median_seconds(product, min_run_time=0.3) / 1e9


def missing_extras() -> dict[str, list[str]]:
    """The extras of this package that are not fully installed, with the packages that they lack."""
    missing: dict[str, list[str]] = {}
    try:
        requirements = importlib.metadata.requires("heptapod") or []
    except importlib.metadata.PackageNotFoundError:  # a source tree that is not installed
        return missing
    for requirement in requirements:
        name = re.match(r"[\w.-]+", requirement)
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", requirement)
        if name is None or extra is None or extra.group(1) in NOT_FOR_USERS:
            continue
        try:
            importlib.metadata.version(name.group())
        except importlib.metadata.PackageNotFoundError:
            missing.setdefault(extra.group(1), []).append(name.group())
    return missing


def trainings(device: torch.device) -> Iterator[tuple[str, dict[str, Any]]]:
    """What half an hour of training does for some recipes, by the time of a step on random tokens."""
    with Progress(f"training steps of {len(RECIPES)} recipes", len(RECIPES)) as progress:
        for name, (side, classes) in RECIPES.items():
            try:
                found = training(name, side, classes, device)
            except (RuntimeError, MemoryError) as error:  # of the device or the compiler; the others may work
                found = {"error": one_line(error)}
            yield name, found
            progress.advance(1)


def training(name: str, side: int, classes: int, device: torch.device) -> dict[str, Any]:
    """Images per second of training a recipe's model, and the share of its steps that half an hour takes."""
    recipe = load_recipe(name)
    whole = recipe.train.batch_size
    images = min(whole, IMAGES.get(device.type, IMAGES["cpu"]))
    train = dataclasses.replace(recipe.train, batch_size=images, accumulation=1, compile=False)
    codes = getattr(recipe.tokenizer.model, "codebook_size", 256)
    setup = resolve_setup(
        dataclasses.replace(recipe, train=train, device=str(device)),
        SetupOverrides(grid=f"{side}x{side}", codes=codes, classes=classes, images=1),
    )
    steps = TrainingSteps(setup.recipe, random_tokens(setup.grid, classes, images=max(images, 64)), device)
    steps.step(by_phase=False)  # allocates
    seconds: list[float] = []
    started = time.perf_counter()
    while len(seconds) < 2 or (len(seconds) < 20 and time.perf_counter() - started < 2):
        seconds.append(steps.step(by_phase=False)[0])
    speed = images / min(seconds)
    done = speed * 60 * MINUTES / whole
    return {
        "parameters": sum(parameter.numel() for parameter in steps.model.parameters()),
        "cells": setup.grid.num_cells,
        "precision": steps.config.precision,
        "images_per_second": speed,
        "minutes": MINUTES,
        "steps": int(done),
        "share_of_recipe": done / recipe.train.steps,
    }
