"""Trained models against an enumerated 4×4 Ising model: the figures of ``tests/invariants/test_ising.py``, as JSON.

    OMP_NUM_THREADS=1 python -m benchmarks.ising

Run it in the root of the repository.
"""

from __future__ import annotations

import subprocess
from dataclasses import asdict
from pathlib import Path
from time import process_time

import torch
from tests.invariants.ising import Ising
from tests.invariants.test_ising import DENSITY, POSTERIORS, SEED, STATES, STEPS, measure, train

from heptapod.tools.bench.results import describe_hardware, hardware
from heptapod.utils.files import write_json

OUT = Path(__file__).parent / "results" / "ising.json"


def main() -> None:
    torch.set_num_threads(1)
    commit = subprocess.run(["git", "describe", "--always", "--dirty", "--exclude=*"], capture_output=True, text=True)
    provenance = {
        "command": "python -m benchmarks.ising",
        "commit": commit.stdout.strip(),
        "machine": describe_hardware(hardware()),
    }
    truth, heads = Ising(), {}
    for kind, (prefixes, targets) in DENSITY.items():
        start = process_time()
        model = train(kind, truth)
        seconds = process_time() - start
        found = measure(model, truth)
        heads[kind] = {
            "prefixes_per_image": prefixes,
            "targets_per_prefix": targets,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            **asdict(found),
            "excess": found.excess,
            "train_cpu_seconds": round(seconds),
        }
        print(kind, heads[kind], flush=True)
    settings = {"steps": STEPS, "seed": SEED, "states": STATES, "posterior_states": POSTERIORS}
    write_json(OUT, {"provenance": provenance, "settings": settings, "heads": heads})


if __name__ == "__main__":
    main()
