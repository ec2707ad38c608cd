"""The sampling benchmark: plans, times and collects its rows."""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from heptapod.distributed.device import resolve_device
from heptapod.tools.bench.cases import (
    Case,
    Model,
    Speed,
    build,
    cache_bytes,
    measure_speed,
    predict_seconds,
    run,
    warm_up,
    with_valid_steps,
)
from heptapod.tools.bench.config import ALL, SamplingBench
from heptapod.tools.bench.memory import cpu_peaks, cuda_peak
from heptapod.tools.bench.timing import in_turns, num_threads, wall_seconds

logger = logging.getLogger(__name__)

Models = dict[tuple[str, str], Model]
"""By kind and precision."""


def _key(case: Case) -> tuple[str, str]:
    return case.model, case.precision


@dataclass(frozen=True)
class Skipped:
    """A row that was not measured."""

    case: Case
    reason: str
    predicted_seconds: float | None = None
    """Of one run."""


@dataclass(frozen=True)
class Row:
    """One measured row."""

    size: str
    model: str
    cells: int
    """N."""
    batch: int
    steps: int
    precision: str
    parameters: int
    runs: int
    """Timed runs; the fastest counts."""
    timed_steps: int
    """Steps that ran. Where these are fewer than ``steps``, ``seconds`` is scaled to all of them."""
    seconds: float
    """Of a whole batch."""
    seconds_per_image: float
    images_per_second: float
    milliseconds_per_step: float
    peak_bytes: int | None
    """Above the weights; None where it cannot be measured."""
    cache_bytes: int
    """Of the buffers that stay allocated between steps."""


def measure(bench: SamplingBench) -> tuple[list[Row], list[Skipped]]:
    """Measures every row that fits the time limit; reports progress on standard error.

    Raises:
        ValueError: for invalid settings.
    """
    bench.check()
    device = resolve_device(bench.device)
    rows: list[Row] = []
    skipped: list[Skipped] = []
    with num_threads(bench.threads):
        for size in dict.fromkeys(bench.sizes):
            models = {
                (kind, precision): build(size, kind, bench.vocabulary, device, precision)
                for kind, precision in itertools.product(dict.fromkeys(bench.models), dict.fromkeys(bench.precisions))
            }
            speeds = {precision: measure_speed(model, device) for (_, precision), model in models.items()}
            planned, too_long = plan(bench, size, speeds)
            skipped += too_long
            total = sum(seconds * (1 + _runs(bench, seconds)) for seconds in planned.values())
            logger.info(f"{size}: {len(planned)} rows, {len(too_long)} skipped; about {total:.0f} s")
            rows += _measure_size(bench, models, planned, device)
    return rows, skipped


def plan(bench: SamplingBench, size: str, speeds: Mapping[str, Speed]) -> tuple[dict[Case, float], list[Skipped]]:
    """The rows of a size with the predicted seconds of one run, and the skipped rows; ``speeds`` are by precision."""
    planned: dict[Case, float] = {}
    skipped: dict[Case, Skipped] = {}
    combinations = itertools.product(bench.grids, bench.batches, bench.steps, bench.models, bench.precisions)
    for side, batch, steps, kind, precision in combinations:
        case = with_valid_steps(Case(size, kind, side, batch, side**2 if steps == ALL else int(steps), precision))
        if case.steps > case.cells:
            skipped[case] = Skipped(case, f"more steps than its {case.cells} cells")
            continue
        seconds = predict_seconds(case, speeds[case.precision])
        if seconds > bench.max_seconds:
            skipped[case] = Skipped(case, f"one run would take longer than {bench.max_seconds:g} s", seconds)
        else:
            planned[case] = seconds
    return planned, list(skipped.values())


def _runs(bench: SamplingBench, predicted: float) -> int:
    return max(1, min(bench.repeats, int(bench.max_seconds / max(predicted, 1e-9))))


def _measure_size(bench: SamplingBench, models: Models, planned: dict[Case, float], device: torch.device) -> list[Row]:
    """All rows of a size; the rows of one grid and batch run in turns, because a machine's speed drifts."""
    peaks = _peaks(bench, models, list(planned), device)
    for key, case in {_key(case): case for case in planned}.items():
        warm_up(models[key], case)
    rows: list[Row] = []
    for _, group in itertools.groupby(planned, key=lambda case: (case.side, case.batch)):
        runs = {case: partial(_time, models[_key(case)], case, device) for case in group}
        for case, seconds in in_turns(runs, {case: _runs(bench, planned[case]) for case in runs}).items():
            rows.append(_row(models[_key(case)], case, seconds, peaks[case]))
            logger.info(f"[{len(rows)}/{len(planned)}] {describe(rows[-1])}")
    return rows


def _time(model: Model, case: Case, device: torch.device) -> float:
    """Seconds of one run, scaled to all steps of a masked model."""
    return wall_seconds(partial(run, model, case), device) * case.steps / len(case.steps_run)


def _peaks(bench: SamplingBench, models: Models, cases: Sequence[Case], device: torch.device) -> dict[Case, int | None]:
    if device.type == "cuda":
        return {case: cuda_peak(partial(run, models[_key(case)], case), device) for case in cases}
    if device.type != "cpu":
        return dict.fromkeys(cases)
    logger.info(f"  peak memory of {len(cases)} rows, each run once in a separate process")
    by_model = sorted(cases, key=_key)  # each model is built once
    return dict(zip(by_model, cpu_peaks(by_model, bench.vocabulary, torch.get_num_threads()), strict=True))


def _row(model: Model, case: Case, seconds: Sequence[float], peak: int | None) -> Row:
    fastest = min(seconds)
    return Row(
        size=case.size,
        model=case.model,
        cells=case.cells,
        batch=case.batch,
        steps=case.steps,
        precision=case.precision,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        runs=len(seconds),
        timed_steps=len(case.steps_run),
        seconds=fastest,
        seconds_per_image=fastest / case.batch,
        images_per_second=case.batch / fastest,
        milliseconds_per_step=1000 * fastest / case.steps,
        peak_bytes=peak,
        cache_bytes=cache_bytes(model, case),
    )


def describe(row: Row) -> str:
    """A row in one line."""
    return (
        f"{row.size} {row.model}, N = {row.cells:,}, batch {row.batch}, {row.steps} steps, {row.precision}: "
        f"{row.images_per_second:.3g} images/s, {row.milliseconds_per_step:.3g} ms per step"
    )


def settings_of(bench: SamplingBench) -> dict[str, object]:
    """The settings for the report, with the fixed ones."""
    return {**dataclasses.asdict(bench), "weights": "random", "schedule": "cosine"}
