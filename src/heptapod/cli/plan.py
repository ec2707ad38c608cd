"""``heptapod plan``."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from heptapod.cli.recipe_options import GridOptions, recipe_first, split_options
from heptapod.tools.planning.gpus import DEFAULT_GPU, GPUS, find_gpu
from heptapod.tools.planning.plan import Hardware, make_plan, to_json
from heptapod.tools.planning.report import print_plan
from heptapod.tools.planning.training_setup import resolve_setup
from heptapod.training.recipe import load_recipe, recipe_names
from heptapod.utils.files import check_folder, write_json

USAGE = "usage: heptapod plan RECIPE [--SETTING VALUE ...] [OPTIONS]"
Flag = tyro.conf.FlagCreatePairsOff[bool]


@dataclass
class PlanOptions(GridOptions):
    """Options of the planner; every other --NAME is a setting of the recipe."""

    gpus: int = 1
    """How many GPUs share a batch."""
    gpu: str | None = None
    """a100-40, a100-80, h100 (if unset), h200, b200, l40s, rtx4090 or mi300x."""
    gpu_tflops: float | None = None
    """Peak of a GPU of your own at the precision of training, in 10^12 FLOPs per second."""
    gpu_memory_gib: float | None = None
    """Memory of a GPU of your own."""
    utilization: float = 0.4
    """Share of the peak that the matrix products reach; `heptapod bench training` measures it."""
    dollars_per_gpu_hour: float | None = None
    """Price of a GPU; costs are told where it is given."""
    images: int | None = None
    """Images of the data; if unset those that are there, else ImageNet's 1,281,167."""
    out: str | None = None
    """Write everything to a .json file as well."""
    as_json: Annotated[Flag, tyro.conf.arg(name="json")] = False
    """Print JSON for programs instead of a table."""


OWN = {"json" if field.name == "as_json" else field.name for field in dataclasses.fields(PlanOptions)}


def plan(arguments: list[str]) -> None:
    """Parses arguments and tells what training a recipe takes."""
    if not arguments or "--help" in arguments or "-h" in arguments:
        _print_help()
        return
    name, rest = recipe_first(arguments)
    own, overrides = split_options(rest, OWN)
    options = tyro.cli(PlanOptions, prog="heptapod plan", args=own, use_underscores=True)
    out = None if options.out is None else Path(options.out)
    if out is not None and out.suffix != ".json":
        raise ValueError(f"out: {options.out} given, must be a .json file")
    if out is not None:
        check_folder(out.parent)
    gpu = find_gpu(options.gpu, options.gpu_tflops, options.gpu_memory_gib)
    hardware = Hardware(gpu, options.gpus, options.utilization, options.dollars_per_gpu_hour)
    made = make_plan(resolve_setup(load_recipe(name, overrides), options.given(options.images)), hardware)
    if options.as_json:
        print(json.dumps(to_json(made), indent=2))
    else:
        print_plan(made)
    if out is not None:
        write_json(out, to_json(made))


def _print_help() -> None:
    print(
        f"{USAGE}\n\nTells, without training anything, what the training of a recipe takes: parameters, FLOPs, memory "
        "of a GPU (and what\nwould make it fit), time, GPU-hours, the cost of sampling, and storage.\n\n"
        f"RECIPE is one of {', '.join(recipe_names())}, or a .yaml file. Its settings are changed as in\n"
        "--train.strategy fsdp (heptapod train RECIPE --help explains them). The data need not be there.\n"
        f"GPUs known by name: {', '.join(GPUS)} (unset: {DEFAULT_GPU}).\n"
    )
    tyro.cli(PlanOptions, prog="heptapod plan", args=["--help"], use_underscores=True)
