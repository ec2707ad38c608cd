"""What the solvers of continuous cells draw from an exact network: the error of the spread, and that of a mixture.

    PYTHONPATH=. python benchmarks/cell_exact.py

A network that knows the noise or velocity of N(0, s²) exactly takes the place of the MLP, so that what is left is the
error of the solver. Spread: standard deviation of what is drawn, divided by s; the map from noise to token is linear,
so that it has no random error. Mixture: mean distance between tokens drawn from the same noise by the solver and by
1,000 steps, in standard deviations. The solvers of diffusers are DPM-Solver++ of second order and UniPC with their
default levels. Writes JSON and prints a table.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
import tyro
from record import provenance
from tests.distributions.exact import FEATURES, GivenNoise, Normals, exact_distribution
from torch import Tensor

from heptapod.distributions import CellSampling
from heptapod.distributions.diffusion import NUM_LEVELS, SIGNAL
from heptapod.tools.bench.results import markdown_table
from heptapod.utils.files import write_json

MIXTURE = Normals(
    torch.tensor([0.2, 0.5, 0.3]),
    torch.tensor([[-1.5, 0.5], [0.0, -0.6], [1.3, 0.4]]),
    torch.stack([0.01 * torch.eye(2), 0.06 * torch.eye(2), torch.tensor([[0.04, 0.03], [0.03, 0.04]])]),
)
OWN = {"diffusion": ("multistep", "ddim"), "flow": ("multistep", "euler", "heun")}
OTHERS = ("DPMSolverMultistepScheduler", "UniPCMultistepScheduler")
Draw = Callable[[str, Normals, Tensor, int], Tensor]


@dataclass
class Options:
    """Options of the benchmark."""

    stds: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5)
    """Standard deviations of the normals."""
    evaluations: tuple[int, ...] = (8, 12, 25, 100)
    """Evaluations of the network per cell."""
    out: Path = Path("benchmarks/results/cell_exact.json")
    """JSON file."""


def main(options: Options) -> None:
    noise = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0))
    rows: list[dict[str, Any]] = []
    for kind, own in OWN.items():
        fine = draw_own(kind, "multistep", MIXTURE, noise, 1000)
        solvers = [(name, draw_own, 2 if name == "heun" else 1) for name in own]
        for name, draw, each in [*solvers, *((name, draw_diffusers, 1) for name in OTHERS)]:
            for count in options.evaluations:
                one = torch.ones(1, 1)
                spread = {
                    str(std): float(draw(kind, name, Normals.one([std]), one, count // each)) / std
                    for std in options.stds
                }
                apart = (draw(kind, name, MIXTURE, noise, count // each) - fine).norm(dim=1).mean() / fine.std()
                rows.append(
                    {
                        "kind": kind,
                        "solver": name,
                        "evaluations": count // each * each,
                        "spread": spread,
                        "mixture_distance": float(apart),
                    }
                )
    stds: dict[str, Any] = {f"s = {s}": lambda row, s=s: f"{row['spread'][str(s)]:.3f}" for s in options.stds}
    mixture = {"mixture": lambda row: f"{row['mixture_distance']:.4f}"}
    print(markdown_table({n: n for n in ("kind", "solver", "evaluations")} | stds | mixture, rows))
    source = provenance(shlex.join(["PYTHONPATH=.", "python", "benchmarks/cell_exact.py", *sys.argv[1:]]))
    write_json(options.out, {"provenance": source, "diffusers": diffusers.__version__, "rows": rows})


def draw_own(kind: str, name: str, truth: Normals, noise: Tensor, steps: int) -> Tensor:
    """Tokens (M, C) from noise (M, C) by a solver of the library."""
    sampling = CellSampling(cell_solver=name, cell_steps=min(steps, 900))  # type: ignore[arg-type]
    features = torch.zeros(1, len(noise), FEATURES)
    with torch.no_grad():
        return exact_distribution(kind, truth).sample(features, GivenNoise(noise), sampling)[0]


def draw_diffusers(kind: str, name: str, truth: Normals, noise: Tensor, steps: int) -> Tensor:
    """Tokens (M, C) from noise (M, C) by a scheduler of diffusers."""
    options: dict[str, Any] = {"final_sigmas_type": "zero"}
    if kind == "flow":
        options |= {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
    else:
        options["trained_betas"] = (1 - SIGNAL / torch.cat([SIGNAL.new_ones(1), SIGNAL[:-1]])).tolist()
    scheduler = getattr(diffusers, name)(**options)
    scheduler.set_timesteps(steps)
    mlp = exact_distribution(kind, truth).mlp
    x = noise.clone()
    for step, time in enumerate(scheduler.timesteps):
        level = scheduler.sigmas[step] if kind == "flow" else time / NUM_LEVELS
        output = mlp(x, [level], [])[:, : noise.shape[1]]
        x = scheduler.step(output, time, x).prev_sample
    return x


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__, use_underscores=True))
