"""What drawing continuous cells costs beside the transformer, on this machine.

    OMP_NUM_THREADS=1 python benchmarks/cell_cost.py

Size B with a cross head, 16×16 cells of 16 numbers, float32, random weights. Samples the first cells of a batch of
images for both kinds of distribution and both modulations, and times ``distribution.sample`` apart from the rest of a
step: reading the cells drawn last and predicting the next ones. Writes JSON and prints a table.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from heptapod.tools.bench.hardware import hardware
from torch import Tensor

from heptapod.distributions import CellDistribution, DistributionConfig
from heptapod.distributions.base import Solver
from heptapod.distributions.continuous import ContinuousDistribution
from heptapod.grid import GridSpec
from heptapod.models import HeadConfig, HeptapodModel, ModelConfig
from heptapod.models.heptapod import build_model, parameters_by_part
from heptapod.sampling import SamplingConfig, sample_stream
from heptapod.utils.files import write_json
from heptapod.utils.logging import say

GRID = GridSpec(16, 16, channels=16)
WARM_UP = 2
"""Steps that are not timed."""


class MemoryOption(NamedTuple):
    """How a cell is drawn."""

    solver: Solver
    steps: int
    evaluations: int
    """Evaluations of the network."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=32, help="cells of every image that are timed")
    parser.add_argument("--cells_per_step", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--steps", nargs="+", type=int, default=[4, 5, 6, 8, 12, 25, 50, 100], help="evaluations")
    parser.add_argument("--solvers", nargs="+", default=["ddim", "euler", "heun"], help="also: ancestral")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=2, help="runs of each; the fastest counts")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/cell_cost.json"))
    args = parser.parse_args()
    for count in args.cells_per_step:
        if GRID.num_cells % count or WARM_UP + timed_steps(args.cells, count) >= GRID.num_cells // count:
            parser.error(f"{count} cells per step: must divide {GRID.num_cells} and leave steps to time")

    rows: list[dict[str, Any]] = []
    for kind, modulation in itertools.product(("diffusion", "flow"), ("joint", "separable")):
        distribution = DistributionConfig(kind, modulation=modulation)  # type: ignore[arg-type]
        config = ModelConfig("B", head=HeadConfig("cross"), distribution=distribution)
        model = build_model(config, GRID, 10, seed=0).eval()
        parameters = parameters_by_part(model)
        say(f"{kind}, {modulation}: {parameters['distribution']:,} of {parameters['total']:,} parameters")
        for count, way in itertools.product(args.cells_per_step, ways(model.distribution, args.steps, args.solvers)):
            rows.append(
                {
                    "kind": kind,
                    "modulation": modulation,
                    "mlp_parameters": parameters["distribution"],
                    "transformer_parameters": parameters["total"] - parameters["distribution"],
                    "cells_per_step": count,
                    **way._asdict(),
                    **measure(model, way, count, args),
                }
            )
    print_table(rows)
    settings = {name: getattr(args, name) for name in ("batch", "cells", "repeats")}
    settings |= {"size": "B", "head": "cross", "grid": [GRID.height, GRID.width, GRID.channels], "dtype": "float32"}
    write_json(args.out, {"settings": settings, **hardware(torch.device("cpu")), "rows": rows})


def ways(
    distribution: CellDistribution, evaluations: Sequence[int], solvers: Sequence[str] | None = None
) -> list[MemoryOption]:
    """The ways to draw vectors with numbers of evaluations, none for codes.

    A step of heun takes two evaluations: odd numbers are rounded up.
    """
    found = []
    for solver in distribution.solvers if isinstance(distribution, ContinuousDistribution) else ():
        if solvers is None or solver in solvers:
            each = 2 if solver == "heun" else 1
            found += [
                MemoryOption(solver, n, n * each) for n in sorted({math.ceil(total / each) for total in evaluations})
            ]
    return found


@contextmanager
def seconds_in_cells(distribution: CellDistribution) -> Iterator[list[float]]:
    """The seconds of every call of ``distribution.sample`` within the block."""
    seconds: list[float] = []
    sample = distribution.sample

    def timed(*arguments: Any) -> Tensor:
        started = time.perf_counter()
        drawn = sample(*arguments)
        seconds.append(time.perf_counter() - started)
        return drawn

    distribution.sample = timed  # type: ignore[assignment, method-assign]
    try:
        yield seconds
    finally:
        del distribution.sample


def timed_steps(cells: int, cells_per_step: int) -> int:
    return max(2, cells // cells_per_step)


def measure(model: HeptapodModel, way: MemoryOption, cells_per_step: int, args: argparse.Namespace) -> dict[str, float]:
    """Milliseconds of a step: drawing the cells, and all the rest; the fastest run of either counts."""
    sampling = SamplingConfig(
        GRID.num_cells // cells_per_step, "raster", "constant", cell_solver=way.solver, cell_steps=way.steps
    )
    labels, seeds = torch.arange(args.batch) % 10, list(range(args.batch))
    steps = timed_steps(args.cells, cells_per_step)
    transformer, cells = [], []
    for _ in range(args.repeats):
        stream = sample_stream(model, labels, seeds, sampling)
        with seconds_in_cells(model.distribution) as seconds:
            for _ in range(1 + WARM_UP):  # the first one reads the condition
                next(stream)
            seconds.clear()
            started = time.perf_counter()
            for _ in range(steps):
                state = next(stream)
            total = time.perf_counter() - started
        assert state.tokens.isfinite().all()
        cells.append(1000 * sum(seconds) / steps)
        transformer.append(1000 * total / steps - cells[-1])
    return {
        "transformer_milliseconds": min(transformer),
        "cells_milliseconds": min(cells),
        "ratio": min(cells) / min(transformer),
    }


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    print(
        f"{'kind':<11}{'modulation':<12}{'MLP':>7}{'cells/step':>12}  {'solver':<10}{'evaluations':>11}"
        f"{'transformer ms':>16}{'cells ms':>10}{'ratio':>8}"
    )
    for row in rows:
        print(
            f"{row['kind']:<11}{row['modulation']:<12}{row['mlp_parameters'] / 1e6:>6.1f}M{row['cells_per_step']:>12}"
            f"  {row['solver']:<10}{row['evaluations']:>11}{row['transformer_milliseconds']:>16.1f}"
            f"{row['cells_milliseconds']:>10.1f}{row['ratio']:>8.2f}"
        )


if __name__ == "__main__":
    main()
