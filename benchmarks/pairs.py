"""Cells drawn in one step are independent of each other: what few steps cost in an Ising model, by head and order.

    OMP_NUM_THREADS=1 python -m benchmarks.pairs

Trains a cross and a group head on a 4×4 Ising model (``tests/invariants/ising.py``) in random order, samples states in
few steps and compares the marginals of pairs of cells with the exact ones. Run it in the root of the repository.
"""

from __future__ import annotations

from pathlib import Path
from time import process_time
from typing import Any, cast

import torch
from benchmarks.record import commit
from tests.invariants.fit import fit
from tests.invariants.ising import CLASSES, SIDE, Ising, N
from torch import Tensor

from heptapod.configs.objective import ObjectiveConfig
from heptapod.configs.sampling import SamplingOrder
from heptapod.grid import GridSpec
from heptapod.likelihood import negative_log_likelihood
from heptapod.models import HeadConfig, HeptapodModel, ModelConfig
from heptapod.models.heptapod import build_model
from heptapod.sampling import SamplingConfig, sample_tokens
from heptapod.tools.bench.results import describe_hardware, hardware
from heptapod.training.config import TrainConfig
from heptapod.utils.files import write_json

OUT = Path(__file__).parent / "results" / "pairs.json"
DENSITY: dict[str, tuple[Any, Any]] = {"cross": ("all", 4), "group": (8, 8)}
STEPS = 1300
SAMPLES = 20_000
ORDERS = ("random", "spread")


def train(kind: str, truth: Ising) -> HeptapodModel:
    size = ModelConfig(width=32, depth=2, num_heads=2, head=HeadConfig(kind, 2))
    model = build_model(size, GridSpec(SIDE, SIDE, 2), CLASSES, 0)
    objective = ObjectiveConfig("random", *DENSITY[kind], label_dropout=0.0).for_head(kind)
    config = TrainConfig(steps=STEPS, batch_size=128, learning_rate=1e-2, weight_decay=0.0, beta2=0.99, ema_decay=0.99)
    generator = torch.Generator().manual_seed(1)
    return fit(model, objective, config, lambda count: truth.sample(count, generator)[::2])


def pair_errors(truth: Ising, labels: Tensor, states: Tensor) -> dict[str, float]:
    """Of P(x_i = x_j) over pairs of cells, averaged over the classes; of neighbors, and of all pairs."""
    spins = (2 * truth.states - 1).double()
    cells = torch.arange(N)
    rows, columns = cells // SIDE, cells % SIDE
    distance = (rows[:, None] - rows).abs() + (columns[:, None] - columns).abs()
    upper = cells[:, None] < cells
    found: dict[str, list[float]] = {"mean": [], "max": [], "neighbors": [], "others": []}
    for c in range(CLASSES):
        exact = (spins * truth.p[c].unsqueeze(1)).T @ spins
        drawn = (2 * states[labels == c] - 1).double()
        error = (drawn.T @ drawn / len(drawn) - exact).abs() / 2
        found["mean"].append(float(error[upper].mean()))
        found["max"].append(float(error[upper].max()))
        found["neighbors"].append(float(error[upper & (distance == 1)].mean()))
        found["others"].append(float(error[upper & (distance > 1)].mean()))
    return {name: sum(values) / CLASSES for name, values in found.items()}


def measure(kind: str, truth: Ising) -> dict[str, Any]:
    start = process_time()
    model = train(kind, truth)
    seconds = process_time() - start
    labels, numbers, states = truth.sample(4096, torch.Generator().manual_seed(2))
    nll = negative_log_likelihood(model, states, labels, "random", batch_size=512).double() * N
    excess = float((nll + truth.log_p[labels, numbers]).mean())
    rows = []
    labels = torch.arange(SAMPLES) % CLASSES
    for order in ORDERS:
        for steps in (4, 8, 16):
            config = SamplingConfig(steps=steps, token_order=cast("SamplingOrder", order), schedule="constant")
            seeds = torch.arange(SAMPLES).split(1000)
            drawn = torch.cat([sample_tokens(model, labels[some], some.tolist(), config) for some in seeds])
            rows.append({"order": order, "steps": steps, **pair_errors(truth, labels, drawn)})
            print(kind, rows[-1], flush=True)
    return {
        "prefixes_per_image": DENSITY[kind][0],
        "targets_per_prefix": DENSITY[kind][1],
        "excess_nats": excess,
        "train_cpu_seconds": round(seconds),
        "rows": rows,
    }


def main() -> None:
    torch.set_num_threads(1)
    truth = Ising()
    labels, _, states = truth.sample(SAMPLES, torch.Generator().manual_seed(5))
    results = {
        "provenance": {
            "command": "python -m benchmarks.pairs",
            "commit": commit(),
            "machine": describe_hardware(hardware()),
        },
        "settings": {"steps": STEPS, "samples": SAMPLES, "schedule": "constant"},
        "true_samples": pair_errors(truth, labels, states),
        "heads": {kind: measure(kind, truth) for kind in DENSITY},
    }
    write_json(OUT, results)


if __name__ == "__main__":
    main()
