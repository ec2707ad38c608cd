"""``heptapod bench``."""

from __future__ import annotations

from pathlib import Path

import tyro

from heptapod.bench.hardware import hardware
from heptapod.bench.report import to_json, to_markdown
from heptapod.bench.sampling import SamplingBench, measure, threads_set
from heptapod.files import write_atomically, write_json
from heptapod.recipe import resolve_device

BENCHMARKS = ("sampling",)


def bench(arguments: list[str]) -> None:
    """Runs the benchmark that the first argument names."""
    if arguments[:1] in (["-h"], ["--help"]):
        print(
            "usage: heptapod bench sampling [OPTIONS]    (heptapod bench sampling --help explains them)\n\n"
            "Measures sampling on this machine, beside next-token decoding and a masked model, with random weights."
        )
        return
    if not arguments or arguments[0] not in BENCHMARKS:
        given = repr(arguments[0]) if arguments else "none"
        raise ValueError(
            f"benchmark: {given} given, must be {' or '.join(BENCHMARKS)} (heptapod bench sampling --help)"
        )
    tyro.cli(sampling, prog="heptapod bench sampling", args=arguments[1:], use_underscores=True)


def sampling(bench: tyro.conf.OmitArgPrefixes[SamplingBench], out: str = "sampling-bench") -> None:
    """Measures what sampling costs on this machine, beside the usual ways to do it, in one run.

    Images per second, milliseconds per step and peak memory, with random weights in float32 (what the weights are
    changes no time). The models are Heptapod's heads (cross, global, global_approximate) and two baselines:
    next_token, which draws one cell per step with a KV cache and has as many parameters as cross (as LlamaGen does),
    and masked, a bidirectional Transformer of as many blocks that is run again in full at every step (as MAR does;
    its steps cost the same, so two are timed and scaled).

    Fits how time and memory grow with the number of cells N at equal steps, and compares the heads with the
    baselines. Prints Markdown tables and writes them beside a JSON file, with the hardware. A row that would take
    longer than max_seconds is not measured but listed with the time predicted for it. The defaults take some ten
    minutes on two free cores; a quick look takes seconds: --sizes tiny --grids 8 16 --batches 1 --steps 16.

    Args:
        bench: What to measure.
        out: Folder for sampling.json and sampling.md, or a .json file (the .md lies beside it).
    """
    target = Path(out)
    if target.suffix not in ("", ".json"):
        raise ValueError(f"out: {out} given, must be a folder or a .json file")
    file = target if target.suffix else target / "sampling.json"
    bench.check()
    resolve_device(bench.device)
    file.parent.mkdir(parents=True, exist_ok=True)  # what cannot be written is to be known before it is measured
    rows, skipped = measure(bench)
    with threads_set(bench.threads):
        report = to_json(hardware(resolve_device(bench.device)), bench, rows, skipped)
    text = to_markdown(report)
    write_json(file, report)
    write_atomically(file.with_suffix(".md"), lambda path: path.write_text(text, encoding="utf-8"))
    print(text)
    print(f"{file}, {file.with_suffix('.md')}")
