"""The plan of a recipe: the cost of training it, before anything is trained."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from heptapod.data.cache_writer import stored_dtype
from heptapod.models.heptapod import parameters_by_part
from heptapod.tools.planning.budget import FLOAT32, MOMENTS, USABLE, Budget, GPUMemory, MemoryOption
from heptapod.tools.planning.fake import meta_model
from heptapod.tools.planning.flops import TrainingFlops, training_flops
from heptapod.tools.planning.gpus import GIB, GPU
from heptapod.tools.planning.sampling import SamplingFlops, sampling_flops
from heptapod.tools.planning.training_setup import TrainingSetup
from heptapod.utils.config import settings
from heptapod.utils.logging import Progress

SAMPLED_IMAGES = 50_000
SECONDS_PER_DAY = 86_400


@settings
class Hardware:
    """The GPUs that train a recipe."""

    gpu: GPU
    gpus: Annotated[int, Field(ge=1)] = 1
    utilization: Annotated[float, Field(gt=0, le=1)] = 0.4
    """Share of the GPUs' peak that the matrix products reach."""
    dollars_per_gpu_hour: Annotated[float, Field(ge=0)] | None = None


@dataclass(frozen=True)
class Memory:
    """Memory of one GPU."""

    micro_batch: int
    """Images at a time on one GPU."""
    at_peak: GPUMemory
    activations: int
    """Bytes saved for the backward pass of a micro-batch, with the option of the recipe."""
    activations_without_checkpointing: int
    activations_with_checkpointing: int
    usable: int
    """Bytes of a GPU available to training."""
    fits: bool
    largest: MemoryOption | None
    """The option of the recipe with the largest micro-batches that fit."""
    remedies: list[MemoryOption]
    """The options that fit, if the recipe does not."""


@dataclass(frozen=True)
class Time:
    """Training time at the given utilization."""

    seconds_per_step: float
    images_per_second: float
    tokens_per_second: float
    days: float
    gpu_hours: float
    epochs: float
    """Passes over the data."""
    model_flops_utilization: float
    """Of model FLOPs: below the given utilization if blocks are recomputed."""
    dollars: float | None


@dataclass(frozen=True)
class SamplingTime:
    """Cost of sampling images."""

    flops: SamplingFlops
    images: int
    gpu_hours: float
    """In bfloat16, as ``heptapod sample`` on a GPU."""
    dollars: float | None


@dataclass(frozen=True)
class Storage:
    """Bytes on disk."""

    cache: int
    cache_images: int
    cache_views: int
    bytes_per_token: int
    checkpoint: int
    """Model, EMA and optimizer in float32."""
    export: int
    """The exported model, without its tokenizer."""


@dataclass(frozen=True)
class Plan:
    """The cost of training a recipe."""

    setup: TrainingSetup
    hardware: Hardware
    parameters: dict[str, int]
    flops: TrainingFlops
    memory: Memory
    time: Time
    sampling: SamplingTime
    storage: Storage


def make_plan(setup: TrainingSetup, hardware: Hardware) -> Plan:
    """Computes the cost of training a recipe, without training it or reading its data.

    Raises:
        ValueError: for settings that contradict each other; names the nearest valid ones.
    """
    setup = _on_gpus(setup)
    budget = Budget(setup, hardware.gpus)
    with Progress("planning", 100, "%") as progress:
        sampling = sampling_flops(setup)
        progress.advance(5, "FLOPs")
        flops = training_flops(setup)
        progress.advance(25, "memory")
        memory = _memory(budget, hardware)
        progress.advance(70)
    return Plan(
        setup,
        hardware,
        parameters_by_part(meta_model(setup)),
        flops,
        memory,
        _time(setup, hardware, flops),
        _sampling_time(hardware, sampling),
        storage(setup),
    )


def _on_gpus(setup: TrainingSetup) -> TrainingSetup:
    """The setup with bfloat16 in place of auto: the GPUs of a plan have it."""
    train = setup.recipe.train
    if train.precision != "auto":
        return setup
    recipe = dataclasses.replace(setup.recipe, train=dataclasses.replace(train, precision="bfloat16"))
    return dataclasses.replace(setup, recipe=recipe)


def _memory(budget: Budget, hardware: Hardware) -> Memory:
    own, gib = budget.configured_option, hardware.gpu.memory_gib
    fits = budget.fits(own, gib)
    plain, checkpointed = (dataclasses.replace(own, checkpointing=value) for value in (False, True))
    return Memory(
        micro_batch=budget.micro_batch(own),
        at_peak=budget.memory(own),
        activations=budget.step(own).activations,
        activations_without_checkpointing=budget.step(plain).activations,
        activations_with_checkpointing=budget.step(checkpointed).activations,
        usable=int(USABLE * gib * GIB),
        fits=fits,
        largest=budget.smallest_accumulation(own, gib),
        remedies=[] if fits else budget.remedies(gib),
    )


def _time(setup: TrainingSetup, hardware: Hardware, flops: TrainingFlops) -> Time:
    train = setup.recipe.train
    peak = hardware.gpus * hardware.gpu.peak(train.precision)
    computed = flops.total + flops.recomputed
    images_per_second = peak * hardware.utilization / computed
    seconds_per_step = train.batch_size / images_per_second
    seconds = train.steps * seconds_per_step
    hours = hardware.gpus * seconds / 3600
    return Time(
        seconds_per_step=seconds_per_step,
        images_per_second=images_per_second,
        tokens_per_second=images_per_second * setup.grid.num_cells,
        days=seconds / SECONDS_PER_DAY,
        gpu_hours=hours,
        epochs=train.steps * train.batch_size / setup.images,
        model_flops_utilization=hardware.utilization * flops.total / computed,
        dollars=_dollars(hardware, hours),
    )


def _sampling_time(hardware: Hardware, flops: SamplingFlops) -> SamplingTime:
    per_second = hardware.gpu.peak("bfloat16") * hardware.utilization
    hours = SAMPLED_IMAGES * flops.total / per_second / 3600
    return SamplingTime(flops, SAMPLED_IMAGES, hours, _dollars(hardware, hours))


def _dollars(hardware: Hardware, gpu_hours: float) -> float | None:
    return None if hardware.dollars_per_gpu_hour is None else hardware.dollars_per_gpu_hour * gpu_hours


def storage(setup: TrainingSetup) -> Storage:
    """Bytes on disk that a recipe reads and writes, without file headers and names (less than 1%)."""
    grid = setup.grid
    parameters = parameters_by_part(meta_model(setup))["total"]
    if grid.is_discrete:
        per_token = stored_dtype(grid.vocabulary_size, "float16").itemsize
    else:
        per_token = grid.channels * setup.float_bytes
    labels_rows_held_out = 8 + 8 + 1
    per_image = setup.views * grid.num_cells * per_token + labels_rows_held_out
    copies = 1 + MOMENTS + (setup.recipe.train.ema_decay > 0)
    return Storage(
        cache=setup.images * per_image,
        cache_images=setup.images,
        cache_views=setup.views,
        bytes_per_token=per_token,
        checkpoint=copies * FLOAT32 * parameters,
        export=FLOAT32 * parameters,
    )


def to_json(plan: Plan) -> dict[str, Any]:
    """A plan as JSON values; bytes, FLOPs and seconds are not rounded."""
    setup, hardware, train = plan.setup, plan.hardware, plan.setup.recipe.train
    flops, memory = plan.flops, plan.memory
    return {
        "recipe": setup.recipe.out.rpartition("/")[2],
        "assumed": setup.assumed,
        "grid": dataclasses.asdict(setup.grid),
        "classes": setup.num_classes,
        "training": {
            name: getattr(train, name)
            for name in ("steps", "batch_size", "accumulation", "precision", "strategy", "activation_checkpointing")
        },
        "hardware": dataclasses.asdict(hardware),
        "parameters": plan.parameters,
        "flops": {
            "per_image": {
                "parts": {name: dataclasses.asdict(part) for name, part in flops.parts.items()},
                "forward": flops.forward,
                "backward": flops.backward,
                "total": flops.total,
                "recomputed": flops.recomputed,
            },
            "per_step": flops.total * train.batch_size,
            "per_run": flops.total * train.batch_size * train.steps,
        },
        "memory": {
            **dataclasses.asdict(memory),
            "at_peak": dataclasses.asdict(memory.at_peak)
            | {"training": memory.at_peak.training, "peak": memory.at_peak.peak},
        },
        "time": dataclasses.asdict(plan.time),
        "sampling": dataclasses.asdict(plan.sampling)
        | {"flops": dataclasses.asdict(plan.sampling.flops) | {"total": plan.sampling.flops.total}},
        "storage": dataclasses.asdict(plan.storage),
    }
