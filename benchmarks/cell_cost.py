"""Cost of sampling continuous cells, next to that of the transformer.

    OMP_NUM_THREADS=1 python benchmarks/cell_cost.py

Size B with a cross head, 16×16 cells of 16 channels, float32, random weights. Samples the first cells of a batch of
images with both continuous distributions and both modulations, and times ``distribution.sample`` separately from the
rest of a step: reading the last cells and predicting the next ones. Writes JSON and prints a table.
"""

from __future__ import annotations

import itertools
import math
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import tyro
from record import provenance
from torch import Tensor

from heptapod.configs.distributions import Solver
from heptapod.distributions import CellDistribution, DistributionConfig
from heptapod.distributions.continuous import ContinuousDistribution
from heptapod.grid import GridSpec
from heptapod.models import HeadConfig, HeptapodModel, ModelConfig
from heptapod.models.heptapod import build_model, parameters_by_part
from heptapod.sampling import SamplingConfig, sample_stream
from heptapod.tools.bench.results import Column, markdown_table, write_rows

GRID = GridSpec(16, 16, channels=16)
WARM_UP = 2
"""Steps that are not timed."""


class CellSolver(NamedTuple):
    """A solver for continuous cells with its steps."""

    solver: Solver
    steps: int
    evaluations: int
    """Evaluations of the network."""


@dataclass
class Options:
    """Options of the benchmark."""

    cells: int = 32
    """Timed cells of every image."""
    cells_per_step: tuple[int, ...] = (1, 16)
    """Numbers of cells per step."""
    steps: tuple[int, ...] = (4, 5, 6, 8, 12, 25, 50, 100)
    """Numbers of network evaluations per cell."""
    solvers: tuple[str, ...] = ("multistep", "ddim", "euler")
    """Solvers; also: heun, ancestral."""
    modulations: tuple[str, ...] = ("joint", "separable")
    """Modulations of the MLP."""
    batch: int = 8
    """Images at a time."""
    repeats: int = 2
    """Runs of each; the fastest counts."""
    out: Path = Path("benchmarks/results/cell_cost.json")
    """JSON file."""


COLUMNS: dict[str, Column] = {
    "kind": "kind",
    "modulation": "modulation",
    "MLP": lambda row: f"{row['mlp_parameters'] / 1e6:.1f}M",
    "cells/step": "cells_per_step",
    "solver": "solver",
    "evaluations": "evaluations",
    "transformer ms": lambda row: f"{row['transformer_milliseconds']:.1f}",
    "cells ms": lambda row: f"{row['cells_milliseconds']:.1f}",
    "ratio": lambda row: f"{row['ratio']:.2f}",
}


def main(options: Options) -> None:
    for count in options.cells_per_step:
        if GRID.num_cells % count or WARM_UP + timed_steps(options.cells, count) >= GRID.num_cells // count:
            raise SystemExit(f"--cells_per_step {count}: must divide {GRID.num_cells} and leave steps to time")
    rows: list[dict[str, Any]] = []
    for kind, modulation in itertools.product(("diffusion", "flow"), options.modulations):
        distribution = DistributionConfig(kind, modulation=modulation)  # type: ignore[arg-type]
        config = ModelConfig("B", head=HeadConfig("cross"), distribution=distribution)
        model = build_model(config, GRID, 10, seed=0).eval()
        parameters = parameters_by_part(model)
        print(f"{kind}, {modulation}: {parameters['distribution']:,} of {parameters['total']:,} parameters")
        solvers = cell_solvers(model.distribution, options.steps, options.solvers)
        for count in options.cells_per_step:
            # The solvers by turns, so that other work on the machine meets all of them.
            runs = [[measure(model, solver, count, options) for solver in solvers] for _ in range(options.repeats)]
            for solver, times in zip(solvers, zip(*runs, strict=True), strict=True):
                transformer, cells = (min(column) for column in zip(*times, strict=True))
                rows.append(
                    {
                        "kind": kind,
                        "modulation": modulation,
                        "mlp_parameters": parameters["distribution"],
                        "transformer_parameters": parameters["total"] - parameters["distribution"],
                        "cells_per_step": count,
                        **solver._asdict(),
                        "transformer_milliseconds": transformer,
                        "cells_milliseconds": cells,
                        "ratio": cells / transformer,
                    }
                )
    print(markdown_table(COLUMNS, rows))
    settings = {name: getattr(options, name) for name in ("batch", "cells", "repeats")}
    settings |= {"size": "B", "head": "cross", "grid": [GRID.height, GRID.width, GRID.channels], "dtype": "float32"}
    source = provenance(shlex.join(["python", "benchmarks/cell_cost.py", *sys.argv[1:]]))
    write_rows(options.out, settings, rows, provenance=source)


def cell_solvers(
    distribution: CellDistribution, evaluations: Sequence[int], solvers: Sequence[str] | None = None
) -> list[CellSolver]:
    """The solvers of a continuous distribution at the given numbers of evaluations; none for a categorical one.

    A step of heun has two evaluations: odd numbers are rounded up.
    """
    result = []
    for solver in distribution.solvers if isinstance(distribution, ContinuousDistribution) else ():
        if solvers is None or solver in solvers:
            each = 2 if solver == "heun" else 1
            steps = sorted({math.ceil(total / each) for total in evaluations})
            result += [CellSolver(solver, count, count * each) for count in steps]
    return result


@contextmanager
def seconds_in_cells(distribution: CellDistribution) -> Iterator[list[float]]:
    """The seconds of every call of ``distribution.sample`` within the block."""
    seconds: list[float] = []
    sample = distribution.sample

    def timed(*arguments: Any) -> Tensor:
        started = time.perf_counter()
        cells = sample(*arguments)
        seconds.append(time.perf_counter() - started)
        return cells

    distribution.sample = timed  # type: ignore[assignment, method-assign]
    try:
        yield seconds
    finally:
        del distribution.sample


def timed_steps(cells: int, cells_per_step: int) -> int:
    return max(2, cells // cells_per_step)


def measure(model: HeptapodModel, solver: CellSolver, cells_per_step: int, options: Options) -> tuple[float, float]:
    """Milliseconds of a step: all but the cells, and sampling the cells."""
    sampling = SamplingConfig(
        GRID.num_cells // cells_per_step, "raster", "constant", cell_solver=solver.solver, cell_steps=solver.steps
    )
    steps = timed_steps(options.cells, cells_per_step)
    stream = sample_stream(model, torch.arange(options.batch) % 10, list(range(options.batch)), sampling)
    with seconds_in_cells(model.distribution) as seconds:
        for _ in range(1 + WARM_UP):  # the first one reads the condition
            next(stream)
        seconds.clear()
        started = time.perf_counter()
        for _ in range(steps):
            state = next(stream)
        total = time.perf_counter() - started
    assert state.tokens.isfinite().all()
    cells = 1000 * sum(seconds) / steps
    return 1000 * total / steps - cells, cells


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__, use_underscores=True))
