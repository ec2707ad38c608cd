"""``heptapod plan``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field

from heptapod.cli.recipe_options import GridOptions, parse_recipe, train_settings_except
from heptapod.tools.planning.gpus import DEFAULT_GPU, GPUS, find_gpu
from heptapod.utils.config import settings

WITHOUT = {
    *("description", "out", "seed", "device", "tokenizer.losses", "tokenizer.train", "probe", "model.rotary_base"),
    *("objective.label_dropout", "data.validation_path", "data.validation_split", "data.validation_fraction"),
    "data.memory_gib",
    *train_settings_except(
        *("steps", "batch_size", "accumulation", "precision", "ema_decay", "strategy", "activation_checkpointing")
    ),
}
"""Settings of a recipe that change nothing in a plan."""
ABOUT = (
    "Estimates the cost of training a recipe before anything is trained: parameters, FLOPs, memory of a GPU (and "
    f"options that make it fit), time, GPU-hours, sampling and storage. The data need not exist.\n\n"
    f"GPUs known by name: {', '.join(GPUS)} (default: {DEFAULT_GPU})."
)


@settings
class PlanOptions(GridOptions):
    """Options of the planner."""

    gpus: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    """Number of GPUs that share a batch."""
    gpu: str | None = None
    """Name of a GPU: a100-40, a100-80, h100 (the default), h200, b200, l40s, rtx4090 or mi300x."""
    gpu_tflops: Annotated[float, Field(gt=0, le=1e9)] | None = None
    """Peak of another GPU at the precision of training, in 10^12 FLOPs per second."""
    gpu_memory_gib: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """Memory of another GPU."""
    utilization: Annotated[float, Field(gt=0, le=1)] = 0.4
    """Share of the peak that the matrix products reach; `heptapod bench training` measures it."""
    dollars_per_gpu_hour: Annotated[float, Field(ge=0, le=1e9)] | None = None
    """Price of a GPU; the plan then includes costs."""
    images: Annotated[int, Field(ge=1, le=10**12)] | None = None
    """Number of images; by default those of the data, or ImageNet's 1,281,167 if the data do not exist."""
    out: str | None = None
    """Also write the plan to this .json file."""
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print JSON instead of a table."""


def plan(arguments: list[str]) -> None:
    """Prints the cost of training a recipe."""
    recipe, options = parse_recipe("plan", arguments, PlanOptions, ABOUT, WITHOUT)
    from heptapod.tools.planning.plan import Hardware, make_plan, to_json
    from heptapod.tools.planning.report import print_plan
    from heptapod.tools.planning.training_setup import resolve_setup
    from heptapod.utils.files import check_folder, write_json

    out = None if options.out is None else Path(options.out)
    if out is not None and out.suffix != ".json":
        raise ValueError(f"out: {options.out} given, must be a .json file")
    if out is not None:
        check_folder(out.parent)
    gpu = find_gpu(options.gpu, options.gpu_tflops, options.gpu_memory_gib)
    hardware = Hardware(gpu, options.gpus, options.utilization, options.dollars_per_gpu_hour)
    made = make_plan(resolve_setup(recipe, options.overrides(options.images)), hardware)
    if options.as_json:
        print(json.dumps(to_json(made), indent=2))
    else:
        print_plan(made)
    if out is not None:
        write_json(out, to_json(made))
