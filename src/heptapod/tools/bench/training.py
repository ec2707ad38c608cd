"""The training benchmark: times the variants of a recipe and collects its rows."""

from __future__ import annotations

import dataclasses
import logging
import time
from dataclasses import dataclass

import torch

from heptapod.distributed.device import resolve_device
from heptapod.tools.bench.config import TrainingBench, TrainingVariant
from heptapod.tools.bench.timing import num_threads, uses_process_time
from heptapod.tools.bench.training_cases import (
    COMPUTING,
    TrainingSteps,
    matmul_flops,
    random_tokens,
    supervised_cells,
    variant_setup,
)
from heptapod.tools.bench.training_memory import cpu_training_peaks, cuda_training_peak
from heptapod.tools.planning.budget import Budget
from heptapod.tools.planning.flops import training_flops
from heptapod.tools.planning.gpus import gpu_of_device
from heptapod.tools.planning.training_setup import TrainingSetup
from heptapod.training.precision import arithmetic, with_arithmetic
from heptapod.utils.logging import Progress

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Peak:
    """The peak of the utilization."""

    flops_per_second: float
    is_measured: bool
    """Measured by a matrix product of this run; otherwise from the GPU's datasheet."""
    dtype: str
    name: str
    """The GPU, or the measured matrix product."""


@dataclass(frozen=True)
class TrainingRow:
    """One measured model."""

    model: str
    head: str
    prefixes: int | str
    targets: int | str
    parameters: int
    rounds: int
    seconds_per_step: float
    images_per_second: float
    tokens_per_second: float
    """Cells that the backbone reads."""
    supervised_cells_per_second: float
    flops_per_image: float
    """Of the model, forward and backward."""
    utilization: float
    """Model FLOPs per second over the peak."""
    phases: dict[str, float]
    """Seconds of a step: data, supervision (drawing it; on a GPU the copy only), forward, backward, optimizer (with
    clipping), EMA."""
    share_outside: float
    """Of a step: outside of forward, backward and optimizer."""
    peak_bytes: int | None
    """With weights, gradients, optimizer and EMA; None where it cannot be measured."""
    planned_bytes: int
    """The planner's prediction."""


@dataclass(frozen=True)
class SkippedModel:
    """A model that was not measured."""

    model: str
    least_seconds: float
    """Of one step at the peak."""


@dataclass(frozen=True)
class TrainingResult:
    """All measurements."""

    rows: list[TrainingRow]
    skipped: list[SkippedModel]
    peak: Peak
    device: torch.device
    clock: str
    """process (its CPU time) or wall."""


def measure_training(bench: TrainingBench, setup: TrainingSetup) -> TrainingResult:
    """Measures every variant; reports progress on standard error.

    Raises:
        ValueError: for invalid settings.
    """
    recipe = setup.recipe
    variants = bench.check(recipe)
    device = resolve_device(recipe.device)
    with num_threads(bench.threads):
        setups = {variant: variant_setup(setup, variant) for variant in variants}
        flops = {variant: training_flops(setups[variant]).total for variant in variants}
        dtype = torch.bfloat16 if arithmetic(recipe.train, device) == "bfloat16" else torch.float32
        products = [matmul_flops(device, dtype, _side(device)) for _ in range(5)]
        fitting, skipped = _within_time(bench, setup, flops, _peak(device, dtype, products))
        peaks = _memory_peaks(bench, [setups[variant] for variant in fitting], device)
        timings = _time(bench, [setups[variant] for variant in fitting], device, dtype, products)
        peak = _peak(device, dtype, products)
        clock = "process" if uses_process_time(device) else "wall"
    rows = [
        _row(variant, setups[variant], flops[variant], peak, timing, peak_bytes, device)
        for variant, timing, peak_bytes in zip(fitting, timings, peaks, strict=True)
    ]
    return TrainingResult(rows, skipped, peak, device, clock)


def _row(
    variant: TrainingVariant,
    setup: TrainingSetup,
    flops: float,
    peak: Peak,
    timing: Timing,
    peak_bytes: int | None,
    device: torch.device,
) -> TrainingRow:
    budget = Budget(setup, gpus=1, kernels="cpu" if device.type == "cpu" else "gpu")
    per_second = setup.recipe.train.batch_size / min(timing.seconds)
    return TrainingRow(
        model=variant.name,
        head=variant.head,
        prefixes=variant.prefixes,
        targets=variant.targets,
        parameters=budget.parameters,
        rounds=len(timing.seconds),
        seconds_per_step=min(timing.seconds),
        images_per_second=per_second,
        tokens_per_second=per_second * setup.grid.num_cells,
        supervised_cells_per_second=per_second * supervised_cells(setup.recipe, setup.grid),
        flops_per_image=flops,
        utilization=flops * per_second / peak.flops_per_second,
        phases=timing.phases,
        share_outside=1 - sum(timing.phases[name] for name in COMPUTING) / sum(timing.phases.values()),
        peak_bytes=peak_bytes,
        planned_bytes=budget.memory(budget.configured_option).training,
    )


def _within_time(
    bench: TrainingBench, setup: TrainingSetup, flops: dict[TrainingVariant, float], peak: Peak
) -> tuple[list[TrainingVariant], list[SkippedModel]]:
    """The variants of which a step at the peak takes at most half of the time limit, and the others."""
    images = setup.recipe.train.batch_size
    least = {variant: images * count / peak.flops_per_second for variant, count in flops.items()}
    fitting = [variant for variant, seconds in least.items() if 2 * seconds <= bench.max_seconds]
    if not fitting:
        fewest = min(least.values())
        raise ValueError(
            f"train.batch_size: {images} given, of which a single step takes at least {fewest:,.1f} s on this device; "
            f"give a smaller --train.batch_size, or --max_seconds above {2 * fewest:,.0f}"
        )
    return fitting, [SkippedModel(variant.name, least[variant]) for variant in least if variant not in fitting]


@dataclass
class Timing:
    """Measured steps of one variant."""

    seconds: list[float]
    """Of every step."""
    phases: dict[str, float]
    """Of the fastest step that was measured by phase."""


def _time(
    bench: TrainingBench, setups: list[TrainingSetup], device: torch.device, dtype: torch.dtype, products: list[float]
) -> list[Timing]:
    """Times the variants in turns, with a matrix product in every round, because the speed of a machine drifts."""
    tokens = random_tokens(setups[0].grid, setups[0].num_classes)
    runners = [TrainingSteps(setup.recipe, tokens, device) for setup in setups]
    for runner in runners:
        runner.step(by_phase=True)
    timings = [Timing([], {}) for _ in runners]
    fastest = [float("inf")] * len(runners)
    started = time.monotonic()
    with Progress("training steps", bench.rounds, "rounds") as progress:
        for _ in range(bench.rounds):
            products.append(matmul_flops(device, dtype, _side(device)))
            for number, (runner, timing) in enumerate(zip(runners, timings, strict=True)):
                # Waiting for a GPU at every phase slows it down: its phases come from separate steps.
                seconds, phases = runner.step(by_phase=True)
                if seconds < fastest[number]:
                    fastest[number], timing.phases = seconds, phases
                timing.seconds.append(seconds if device.type == "cpu" else runner.step(by_phase=False)[0])
            progress.advance(1)
            if time.monotonic() - started > bench.max_seconds:
                break
    return timings


def _peak(device: torch.device, dtype: torch.dtype, products: list[float]) -> Peak:
    name = str(dtype).removeprefix("torch.")
    gpu = gpu_of_device(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    if gpu is not None:
        return Peak(gpu.peak("bfloat16" if dtype == torch.bfloat16 else "float32"), False, name, gpu.name)
    side = _side(device)
    return Peak(max(products), True, name, f"a {side}×{side} matrix product of this run")


def _side(device: torch.device) -> int:
    return 1024 if device.type == "cpu" else 8192


def _memory_peaks(bench: TrainingBench, setups: list[TrainingSetup], device: torch.device) -> list[int | None]:
    if not bench.memory or device.type not in ("cpu", "cuda"):
        return [None] * len(setups)
    if device.type == "cuda":
        return [cuda_training_peak(setup, device) for setup in setups]
    logger.info(f"peak memory of {len(setups)} models, two steps of each in a separate process")
    return cpu_training_peaks(setups, torch.get_num_threads())


def settings_of(bench: TrainingBench, setup: TrainingSetup) -> dict[str, object]:
    """The settings for the report, with those of the recipe that determine the cost."""
    recipe = setup.recipe
    config = with_arithmetic(recipe.train, resolve_device(recipe.device))
    train = ("batch_size", "accumulation", "precision", "activation_checkpointing", "compile", "flex_attention")
    return {
        **dataclasses.asdict(bench),
        "recipe": recipe.out.rpartition("/")[2],
        **{name: getattr(config, name) for name in train},
        "width": recipe.model.width,
        "depth": recipe.model.depth,
        "head_depth": recipe.model.head.depth,
        "distribution": recipe.model.distribution.kind,
        "token_order": recipe.objective.token_order,
        "grid": dataclasses.asdict(setup.grid),
        "classes": setup.num_classes,
        "data": "random tokens in memory",
    }
