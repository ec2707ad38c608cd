"""Trained models against an enumerated 4×4 Ising model: the figures of ``tests/invariants/test_ising.py``, as JSON.

    OMP_NUM_THREADS=1 python -m benchmarks.ising

Run it in the root of the repository. A head given by name is measured alone and joins what the file holds of the same
commit.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from time import process_time
from typing import Any

import torch
from benchmarks.record import provenance
from tests.invariants.enumerated import Enumerated
from tests.invariants.ising import Ising
from tests.invariants.oracle import KINDS, POSTERIORS, SEED, STATES, Training, measure, train
from tests.invariants.test_ising import TRAINING

from heptapod.models import HeptapodModel
from heptapod.utils.config import to_dict
from heptapod.utils.files import read_json, write_json

RESULTS = Path(__file__).parent / "results"
Further = Callable[[HeptapodModel, Enumerated], dict[str, Any]]


def measure_head(kind: str, truth: Enumerated, training: Training, further: Further) -> dict[str, Any]:
    start = process_time()
    model = train(kind, truth, training)
    seconds = process_time() - start
    found = measure(model, truth)
    return {
        "objective": to_dict(training.objective(kind)),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        **asdict(found),
        "excess": found.excess,
        **further(model, truth),
        "train_cpu_seconds": round(seconds),
    }


def record(
    name: str,
    truth: Enumerated,
    training: Training,
    settings: dict[str, Any],
    further: Further,
    kinds: Sequence[str],
) -> None:
    """Measures heads and writes ``results/<name>.json``."""
    torch.set_num_threads(1)
    common = {
        "steps": training.steps,
        "ema_decay": training.ema_decay,
        "seed": SEED,
        "states": STATES,
        "posterior_states": POSTERIORS,
    }
    head = {"provenance": provenance(f"python -m benchmarks.{name}"), "settings": common | settings}
    file = RESULTS / f"{name}.json"
    for kind in kinds or KINDS:
        found = measure_head(kind, truth, training, further)
        known = read_json(file) if file.exists() else {}
        heads = known["heads"] if {**known, "heads": 0} == {**head, "heads": 0} else {}
        write_json(file, {**head, "heads": {**heads, kind: found}})
        print(kind, found, flush=True)


if __name__ == "__main__":
    record("ising", Ising(), TRAINING, {}, lambda model, truth: {}, sys.argv[1:])
