"""Runs commands on damaged files: ``python -m tests.fuzz --count 10000``.

Every input is made from its number alone, so ``--first 4711 --count 1 --keep folder`` makes one of them again. Each
runs in a process of its own. It fails with a traceback, an exit code that no command has, a message of more than one
line, output in spite of an error, after more than 20 seconds, or with a peak of more than 2 GiB of memory.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.fuzz.harness import Outcome, fork_inputs, make_base


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="inputs")
    parser.add_argument("--first", type=int, default=0, help="number of the first one")
    parser.add_argument("--numbers", default="", help="these inputs instead, with commas")
    parser.add_argument("--kind", default="", help="inputs of this kind only")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--keep", type=Path, help="leave the folders of failed inputs here")
    parser.add_argument("--out", type=Path, help="write the failures as JSON")
    options = parser.parse_args()
    numbers = [int(number) for number in options.numbers.split(",") if number]
    numbers = numbers or list(range(options.first, options.first + options.count))
    with tempfile.TemporaryDirectory() as base:
        make_base(Path(base))
        outcomes = fork_inputs(Path(base), numbers, options.kind, options.jobs, options.keep)
    failures = [outcome for outcome in outcomes if outcome.fault]
    for outcome in failures:
        print(f"{outcome.number} {outcome.kind}: {outcome.fault}: heptapod {' '.join(outcome.arguments)[:200]}")
        print("    " + outcome.output.strip()[-1500:].replace("\n", "\n    "))
    print(_summary(outcomes, failures))
    if options.out:
        options.out.write_text(json.dumps([vars(outcome) for outcome in failures], indent=1))
    return 1 if failures else 0


def _summary(outcomes: list[Outcome], failures: list[Outcome]) -> str:
    kinds = Counter(outcome.kind for outcome in outcomes)
    refused = sum(outcome.code != 0 for outcome in outcomes)
    return (
        f"{len(outcomes)} inputs ({', '.join(f'{count} {kind}' for kind, count in kinds.items())}): {refused} refused, "
        f"{len(failures)} failed; at most {max(outcome.seconds for outcome in outcomes):.1f} s and "
        f"{max(outcome.peak_mib for outcome in outcomes):.0f} MiB"
    )


if __name__ == "__main__":
    sys.exit(main())
