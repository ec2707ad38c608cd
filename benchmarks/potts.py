"""Trained models against an enumerated 3×3 Potts model: the figures of ``tests/invariants/test_potts.py``, as JSON.

    OMP_NUM_THREADS=1 python -m benchmarks.potts

As ``benchmarks/ising.py``, and with the pair marginals of samples.
"""

from __future__ import annotations

import sys

from benchmarks.ising import record
from tests.invariants.oracle import pair_error
from tests.invariants.potts import Potts
from tests.invariants.test_potts import SAMPLES, TRAINING

if __name__ == "__main__":
    record(
        "potts",
        Potts(),
        TRAINING,
        {"samples": SAMPLES},
        lambda model, truth: {"pair_error": pair_error(model, truth, SAMPLES)},
        sys.argv[1:],
    )
