"""Trained models against an enumerated 4×4 Ising model: the figures of ``tests/invariants/test_ising.py``, as JSON.

    OMP_NUM_THREADS=1 python -m benchmarks.ising

Run it in the root of the repository. A head given by name is measured alone and joins what the file holds of the same
commit.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from time import process_time
from typing import Any

import torch
from benchmarks.record import commit
from tests.invariants.ising import Ising
from tests.invariants.test_ising import DENSITY, POSTERIORS, SEED, STATES, STEPS, measure, train

from heptapod.tools.bench.results import describe_hardware, hardware
from heptapod.utils.files import read_json, write_json

OUT = Path(__file__).parent / "results" / "ising.json"


def measure_head(kind: str) -> dict[str, Any]:
    truth, start = Ising(), process_time()
    model = train(kind, truth)
    seconds = process_time() - start
    found = measure(model, truth)
    return {
        "prefixes_per_image": DENSITY[kind][0],
        "targets_per_prefix": DENSITY[kind][1],
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        **asdict(found),
        "excess": found.excess,
        "train_cpu_seconds": round(seconds),
    }


def main(*kinds: str) -> None:
    torch.set_num_threads(1)
    provenance = {
        "command": "python -m benchmarks.ising",
        "commit": commit(),
        "machine": describe_hardware(hardware()),
    }
    settings = {"steps": STEPS, "seed": SEED, "states": STATES, "posterior_states": POSTERIORS}
    head = {"provenance": provenance, "settings": settings}
    for kind in kinds or DENSITY:
        found = measure_head(kind)
        known = read_json(OUT) if OUT.exists() else {}
        heads = known["heads"] if {**known, "heads": 0} == {**head, "heads": 0} else {}
        write_json(OUT, {**head, "heads": {**heads, kind: found}})
        print(kind, found, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
