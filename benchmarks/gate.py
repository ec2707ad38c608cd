"""The regression gate: speed as ratios to a baseline of the same run, compared with the stored ones.

    python benchmarks/gate.py            # compares; the exit code is 1 where something has become slower
    python benchmarks/gate.py --store    # stores the ratios of this machine in benchmarks/results/gate.json

A ratio is the time of something of ours over that of a baseline: a bare float32 matrix product with the same number of
FLOPs, or next-token decoding or training of the same size. The actions run in turns on one thread, the CPU time of the
process counts, and the fastest of several rounds. Where a ratio is above its limit, more rounds follow, twice.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from record import provenance
from torch.utils.flop_counter import FlopCounterMode

from heptapod.grid import GridSpec
from heptapod.tokenizers import VQConfig
from heptapod.tokenizers.store import build_trainable
from heptapod.tools.bench.cases import Case, build, run
from heptapod.tools.bench.config import TrainingVariant
from heptapod.tools.bench.results import hardware, markdown_table
from heptapod.tools.bench.timing import in_turns, num_threads
from heptapod.tools.bench.training_cases import TrainingSteps, random_tokens, variant_recipe
from heptapod.tools.planning.flops import training_flops
from heptapod.tools.planning.training_setup import TrainingSetup
from heptapod.training.recipe import load_recipe
from heptapod.utils.files import read_json, write_json

FILE = Path(__file__).parent / "results" / "gate.json"
TOLERANCE, ELSEWHERE = 1.4, 3.0
"""How many times the stored ratio is still accepted: on a processor that is stored, and on another one."""
ROUNDS, RUNS = 7, 3
CPU = torch.device("cpu")
SIDE = 512
"""Of the bare matrix product."""

COMPARED = (
    ("training cross", "training next_token"),
    ("sampling cross, 8 steps", "sampling next_token"),
    ("sampling cross, 64 steps", "sampling next_token"),
)

Ratios = dict[str, float]


class Gate:
    """The measured actions, built once."""

    def __init__(self) -> None:
        grid = GridSpec(7, 7, 64)
        recipe = load_recipe("demo")
        recipe = dataclasses.replace(
            recipe, train=dataclasses.replace(recipe.train, batch_size=16, precision="float32")
        )
        tokens = random_tokens(grid, 10)
        cross = variant_recipe(recipe, TrainingVariant("cross", "all", 1))
        steps = {"cross": TrainingSteps(cross, tokens, CPU)}
        steps["next_token"] = TrainingSteps(
            variant_recipe(recipe, TrainingVariant("next_token", "all", 1)), tokens, CPU
        )
        models = {kind: build("tiny", kind, 256, CPU) for kind in ("cross", "next_token")}
        images = torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        tokenizer = build_trainable(VQConfig(), 0).eval()
        self.fastest: dict[str, float] = {}
        self.factor = torch.ones(SIDE, SIDE)
        self.actions: dict[str, Callable[[], object]] = {
            "matrix product": lambda: self.factor @ self.factor,
            **{f"training {kind}": lambda kind=kind: steps[kind].step(by_phase=False) for kind in steps},
            "sampling cross, 8 steps": lambda: run(models["cross"], Case("tiny", "cross", 8, 8, 8)),
            "sampling cross, 64 steps": lambda: run(models["cross"], Case("tiny", "cross", 8, 8, 64)),
            "sampling next_token": lambda: run(models["next_token"], Case("tiny", "next_token", 8, 8, 64)),
            "encoding": torch.inference_mode()(lambda: tokenizer.encode(images)),
        }
        with FlopCounterMode(display=False) as counter:
            self.actions["encoding"]()
        setup = TrainingSetup(cross, grid, 10, len(tokens), views=1, float_bytes=2)
        self.flops = {"training cross": 16 * training_flops(setup).total, "encoding": float(counter.get_total_flops())}

    def measure(self) -> None:
        """Runs every action in turns, and keeps the fastest run of each so far."""
        runs = {name: _timed(action) for name, action in self.actions.items()}
        for name, seconds in in_turns(runs, ROUNDS).items():
            self.fastest[name] = min(*seconds, self.fastest.get(name, float("inf")))

    def ratios(self) -> Ratios:
        """All ratios, of the fastest runs: noise only ever adds time to one."""
        fastest = self.fastest
        product = fastest["matrix product"] / (2 * SIDE**3)
        return {
            **{f"{name} / matrix product": fastest[name] / (count * product) for name, count in self.flops.items()},
            **{f"{name} / {baseline}": fastest[name] / fastest[baseline] for name, baseline in COMPARED},
        }


def _timed(action: Callable[[], object]) -> Callable[[], float]:
    def timed() -> float:
        started = time.process_time()
        action()
        return time.process_time() - started

    return timed


def limits(stored: dict[str, Ratios], processor: str) -> Ratios:
    """The largest accepted value of every ratio."""
    if processor in stored:
        return {name: TOLERANCE * ratio for name, ratio in stored[processor].items()}
    names = {name for ratios in stored.values() for name in ratios}
    return {name: ELSEWHERE * max(ratios[name] for ratios in stored.values() if name in ratios) for name in names}


def slower(gate: Gate, allowed: Ratios) -> list[str]:
    """The ratios above their limits; all of them before anything is measured."""
    found = gate.ratios() if gate.fastest else dict.fromkeys(allowed, float("inf"))
    return [name for name, limit in allowed.items() if found.get(name, float("inf")) > limit]


def processor_name() -> str:
    """The processor with its family and model, which its name alone may not tell."""
    name = str(hardware(CPU)["processor"])
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    facts = dict(re.split(r"\s*:\s*", line, maxsplit=1) for line in lines if ":" in line)
    return f"{name}, family {facts.get('cpu family', '?')}, model {facts.get('model', '?')}"


def main() -> int:
    """Measures, and compares or stores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", action="store_true", help="store the ratios of three runs for this processor")
    options = parser.parse_args()
    stored = read_json(FILE) if FILE.is_file() else {"processors": {}}
    with num_threads(1):
        gate, processor = Gate(), processor_name()
        gate.measure()
        gate.fastest.clear()  # that was the warm-up
        runs, allowed = 0, limits(stored["processors"], processor)
        while runs < (RUNS if options.store or slower(gate, allowed) else 1):
            gate.measure()
            runs += 1
    found = gate.ratios()
    if options.store:
        values = {**stored["processors"], processor: found}
        write_json(FILE, {"provenance": provenance("python benchmarks/gate.py --store"), "processors": values})
        allowed = limits(values, processor)
    rows = [
        {
            "ratio": name,
            "measured": found[name],
            "allowed": allowed.get(name),
            "slower": found[name] > allowed.get(name, 1e9),
        }
        for name in found
    ]
    columns = {
        "ratio": "ratio",
        "measured": lambda row: f"{row['measured']:.3f}",
        "at most": lambda row: "not stored" if row["allowed"] is None else f"{row['allowed']:.3f}",
        "": lambda row: "SLOWER" if row["slower"] else "",
    }
    print(f"{processor}, {runs} run(s)\n\n{markdown_table(columns, rows)}")
    return 1 if any(row["slower"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
