"""The training benchmark: what is measured, in which order, and the rows that come of it."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass

import torch

from heptapod.distributed.device import resolve_device
from heptapod.tools.bench.sampling import threads_set
from heptapod.tools.bench.training_cases import (
    OWN,
    Entrant,
    TrainingSteps,
    entrant_subject,
    is_process_time,
    matmul_flops,
    parse_entrant,
    random_tokens,
    supervised_cells,
)
from heptapod.tools.bench.training_memory import cpu_training_peaks, cuda_training_peak
from heptapod.tools.planning.budget import Budget
from heptapod.tools.planning.flops import training_flops
from heptapod.tools.planning.gpus import gpu_of_device
from heptapod.tools.planning.training_setup import TrainingSetup
from heptapod.training.recipe import Recipe
from heptapod.utils.logging import Progress, say


@dataclass
class TrainingBench:
    """What the training benchmark measures."""

    models: tuple[str, ...] = (OWN, "next_token", "cross:all/3", "global:1/all", "global:4/4", "global:4/all")
    """Heads and supervision densities: own (the recipe's), next_token, or HEAD:PREFIXES/TARGETS such as global:4/all.
    All are held in memory at once."""
    rounds: int = 10
    """Training steps of each, one after another in turn; the fastest counts. One more warms up."""
    max_seconds: float = 60.0
    """Stop after the round in which so many seconds are over; leave out, and list, a model of which a round and the one
    that warms up would surely take longer."""
    threads: int | None = None
    """Threads of the processor; what torch takes if left out. With one, the time of the process counts, not the
    clock's."""
    memory: bool = True
    """Also measure the peak of memory (on a CPU in a process of its own)."""

    def check(self, recipe: Recipe) -> list[Entrant]:
        """The models, each once.

        Raises:
            ValueError: naming the setting, the value given and what is allowed.
        """
        if not self.models:
            raise ValueError("models: none given, must be at least one")
        for name in ("rounds", "threads"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise ValueError(f"{name}: {number} given, must be at least 1")
        if not self.max_seconds > 0:
            raise ValueError(f"max_seconds: {self.max_seconds} given, must be above 0")
        return list(dict.fromkeys(parse_entrant(text, recipe) for text in self.models))


@dataclass(frozen=True)
class Peak:
    """What utilization is measured against."""

    flops_per_second: float
    is_measured: bool
    """A matrix product of this run; else the number of the GPU's datasheet."""
    dtype: str
    name: str
    """Of the GPU, or what was measured."""


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
    """Cells read by the backbone."""
    supervised_cells_per_second: float
    flops_per_image: float
    """Of the model, forward and backward."""
    utilization: float
    """Of model FLOPs, against the peak."""
    phases: dict[str, float]
    """Seconds of a step: data, forward (drawing the supervision included), backward, optimizer (clipping included),
    EMA."""
    peak_bytes: int | None
    """With weights, gradients, optimizer and average; None where it cannot be measured."""
    planned_bytes: int
    """What the planner says of it."""


@dataclass(frozen=True)
class UnavailableMetric:
    """A model that was not measured."""

    model: str
    least_seconds: float
    """Of one step, at the peak."""


@dataclass(frozen=True)
class TrainingResult:
    """Everything that was measured."""

    rows: list[TrainingRow]
    left_out: list[UnavailableMetric]
    peak: Peak
    device: torch.device
    clock: str
    """process (its own time) or wall."""


def measure_training(bench: TrainingBench, training_setup: TrainingSetup) -> TrainingResult:
    """Measures everything; says on standard error how far it is.

    Raises:
        ValueError: for settings that cannot be measured.
    """
    recipe = training_setup.recipe
    entrants = bench.check(recipe)
    device = resolve_device(recipe.device)
    with threads_set(bench.threads):
        subjects = {entrant: entrant_subject(training_setup, entrant) for entrant in entrants}
        flops = {entrant: training_flops(subjects[entrant]).total for entrant in entrants}
        dtype = torch.bfloat16 if recipe.train.precision == "bfloat16" else torch.float32
        products = [matmul_flops(device, dtype, _side(device)) for _ in range(5)]
        kept, left_out = _within_time(bench, training_setup, flops, _peak(device, dtype, products))
        peaks = _peaks(bench, [subjects[entrant] for entrant in kept], device)
        seconds, phases = _time(bench, [subjects[entrant] for entrant in kept], device, dtype, products)
        peak = _peak(device, dtype, products)
        clock = "process" if is_process_time(device) else "wall"
    rows = [
        _row(entrant, subjects[entrant], flops[entrant], peak, seconds[number], phases[number], peaks[number], device)
        for number, entrant in enumerate(kept)
    ]
    return TrainingResult(rows, left_out, peak, device, clock)


def _row(
    entrant: Entrant,
    training_setup: TrainingSetup,
    flops: float,
    peak: Peak,
    seconds: list[float],
    phases: dict[str, float],
    peak_bytes: int | None,
    device: torch.device,
) -> TrainingRow:
    budget = Budget(training_setup, gpus=1, kernels="cpu" if device.type == "cpu" else "gpu")
    fastest = min(seconds)
    per_second = training_setup.recipe.train.batch_size / fastest
    return TrainingRow(
        model=entrant.name,
        head=entrant.head,
        prefixes=entrant.prefixes,
        targets=entrant.targets,
        parameters=budget.parameters,
        rounds=len(seconds),
        seconds_per_step=fastest,
        images_per_second=per_second,
        tokens_per_second=per_second * training_setup.grid.num_cells,
        supervised_cells_per_second=per_second * supervised_cells(training_setup.recipe, training_setup.grid),
        flops_per_image=flops,
        utilization=flops * per_second / peak.flops_per_second,
        phases=phases,
        peak_bytes=peak_bytes,
        planned_bytes=budget.memory(budget.configured_option).training,
    )


def _within_time(
    bench: TrainingBench, training_setup: TrainingSetup, flops: dict[Entrant, float], peak: Peak
) -> tuple[list[Entrant], list[UnavailableMetric]]:
    """The models of which a step, at the peak, takes at most half of the time."""
    images = training_setup.recipe.train.batch_size
    least = {entrant: images * count / peak.flops_per_second for entrant, count in flops.items()}
    kept = [entrant for entrant, seconds in least.items() if 2 * seconds <= bench.max_seconds]
    if not kept:
        fewest = min(least.values())
        raise ValueError(
            f"train.batch_size: {images} given, of which a single step takes at least {fewest:,.1f} s on this device; "
            f"give a smaller --train.batch_size, or --max_seconds above {2 * fewest:,.0f}"
        )
    return kept, [UnavailableMetric(entrant.name, seconds) for entrant, seconds in least.items() if entrant not in kept]


def _time(
    bench: TrainingBench, subjects: list[TrainingSetup], device: torch.device, dtype: torch.dtype, products: list[float]
) -> tuple[list[list[float]], list[dict[str, float]]]:
    """Seconds of the steps of every model, and the phases of its fastest one.

    The models take turns, and a matrix product with them, for a machine's speed drifts and ratios count.
    """
    tokens = random_tokens(subjects[0].grid, subjects[0].num_classes)
    runners = [TrainingSteps(training_setup.recipe, tokens, device) for training_setup in subjects]
    for runner in runners:
        runner.step(by_phase=True)
    seconds: list[list[float]] = [[] for _ in runners]
    phases: list[tuple[float, dict[str, float]]] = [(float("inf"), {})] * len(runners)
    started = time.monotonic()
    with Progress("training steps", bench.rounds, "rounds") as progress:
        for _ in range(bench.rounds):
            products.append(matmul_flops(device, dtype, _side(device)))
            for number, runner in enumerate(runners):
                # Waiting for a GPU at every phase slows it down: there the phases are those of other steps.
                phases[number] = min(phases[number], by_phase := runner.step(by_phase=True), key=lambda one: one[0])
                total = by_phase if device.type == "cpu" else runner.step(by_phase=False)
                seconds[number].append(total[0])
            progress.advance(1)
            if time.monotonic() - started > bench.max_seconds:
                break
    return seconds, [by_phase for _, by_phase in phases]


def _peak(device: torch.device, dtype: torch.dtype, products: list[float]) -> Peak:
    name = str(dtype).removeprefix("torch.")
    gpu = gpu_of_device(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    if gpu is not None:
        return Peak(gpu.peak("bfloat16" if dtype == torch.bfloat16 else "float32"), False, name, gpu.name)
    side = _side(device)
    return Peak(max(products), True, name, f"a {side}×{side} matrix product of this run")


def _side(device: torch.device) -> int:
    return 1024 if device.type == "cpu" else 8192


def _peaks(bench: TrainingBench, subjects: list[TrainingSetup], device: torch.device) -> list[int | None]:
    if not bench.memory or device.type not in ("cpu", "cuda"):
        return [None] * len(subjects)
    if device.type == "cuda":
        return [cuda_training_peak(training_setup, device) for training_setup in subjects]
    say(f"peak memory of {len(subjects)} models, two steps of each in a process of their own")
    return cpu_training_peaks(subjects, torch.get_num_threads())


def settings_of(bench: TrainingBench, training_setup: TrainingSetup) -> dict[str, object]:
    """The settings as they are recorded, with what of the recipe decides them."""
    recipe = training_setup.recipe
    train = ("batch_size", "accumulation", "precision", "activation_checkpointing", "compile")
    return {
        **dataclasses.asdict(bench),
        "recipe": recipe.out.rpartition("/")[2],
        **{name: getattr(recipe.train, name) for name in train},
        "width": recipe.model.width,
        "depth": recipe.model.depth,
        "head_depth": recipe.model.head.depth,
        "distribution": recipe.model.distribution.kind,
        "token_order": recipe.objective.token_order,
        "grid": dataclasses.asdict(training_setup.grid),
        "classes": training_setup.num_classes,
        "data": "random tokens in memory",
    }
