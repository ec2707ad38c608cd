"""The plans that docs/planning.md, docs/scale.md and the recipes quote.

    python benchmarks/plans.py

Plans every ImageNet recipe on H100s as its description says, and the two examples of docs/planning.md, whose printed
text it keeps. Nothing is timed: run it again after a change of the planner, the recipes or the sampling defaults.
Writes JSON.
"""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import tempfile
from pathlib import Path
from typing import Any

from record import provenance

from heptapod.cli import main as heptapod
from heptapod.utils.files import read_json, write_json

GPUS = {"b": 8, "l": 16, "h": 64}
EXAMPLES = (
    "plan imagenet256_b_vae_cross --gpus 8 --gpu h100",
    "plan imagenet256_h_vae --gpus 8 --train.strategy ddp --train.activation_checkpointing false",
)
KEPT = ("hardware", "parameters", "flops", "memory", "time", "sampling", "storage")


def plan(command: str) -> dict[str, Any]:
    """The JSON of a plan, and what the command prints."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()) as printed:
        out = str(Path(folder) / "plan.json")
        assert heptapod([*shlex.split(command), "--out", out]) == 0, command
        found = read_json(Path(out))
    return {**{name: found[name] for name in KEPT}, "printed": printed.getvalue().splitlines()}


def main(out: Path = Path("benchmarks/results/plans.json")) -> None:
    os.environ["COLUMNS"] = "200"
    plans = {command: plan(command) for command in EXAMPLES}
    for size, gpus in GPUS.items():
        for kind in ("vq", "vq_cross", "vae", "vae_cross"):
            name = f"imagenet256_{size}_{kind}"
            plans[name] = plan(f"plan {name} --gpus {gpus} --gpu h100")
            del plans[name]["printed"]
    write_json(out, {"provenance": provenance("python benchmarks/plans.py"), "plans": plans})


if __name__ == "__main__":
    main()
