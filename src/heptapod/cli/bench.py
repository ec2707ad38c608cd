"""``heptapod bench``."""

from __future__ import annotations

import dataclasses
import importlib.util
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from heptapod.cli.recipe_options import GridOptions, recipe_first, split_options
from heptapod.distributed.device import resolve_device
from heptapod.tools.bench.report import to_json, to_markdown
from heptapod.tools.bench.results import hardware
from heptapod.tools.bench.sampling import SamplingBench, measure
from heptapod.tools.bench.timing import num_threads
from heptapod.tools.bench.training import TrainingBench, measure_training
from heptapod.tools.bench.training_report import training_json, training_markdown, training_picture
from heptapod.tools.planning.training_setup import resolve_setup
from heptapod.training.recipe import load_recipe, recipe_names
from heptapod.utils.files import write_atomically, write_json
from heptapod.utils.logging import say

BENCHMARKS = ("sampling", "training")


def bench(arguments: list[str]) -> None:
    """Runs the benchmark that the first argument names."""
    if arguments[:1] in (["-h"], ["--help"]):
        print(
            "usage: heptapod bench sampling [OPTIONS]\n       heptapod bench training RECIPE [--SETTING VALUE ...] "
            "[OPTIONS]\n\n(heptapod bench sampling --help, or training --help, explains them)\n\n"
            "sampling: what sampling costs on this machine, beside next-token decoding and a masked model, with random "
            "weights.\ntraining: what training a recipe costs on this machine, beside the same with other heads and "
            "supervision densities."
        )
        return
    if not arguments or arguments[0] not in BENCHMARKS:
        given = repr(arguments[0]) if arguments else "none"
        raise ValueError(f"benchmark: {given} given, must be {' or '.join(BENCHMARKS)} (heptapod bench --help)")
    if arguments[0] == "training":
        training(arguments[1:])
    else:
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
    file = _json_file(out, "sampling")
    bench.check()
    resolve_device(bench.device)
    file.parent.mkdir(parents=True, exist_ok=True)  # what cannot be written is to be known before it is measured
    rows, skipped = measure(bench)
    with num_threads(bench.threads):
        report = to_json(hardware(resolve_device(bench.device)), bench, rows, skipped)
    text = to_markdown(report)
    write_json(file, report)
    write_atomically(file.with_suffix(".md"), lambda path: path.write_text(text, encoding="utf-8"))
    print(text)
    print(f"{file}, {file.with_suffix('.md')}")


@dataclass
class TrainingOptions(GridOptions):
    """Measures what training a recipe costs on this machine, beside other heads and densities, in one run.

    Images, tokens and supervised cells per second, model FLOPs utilization, peak memory (beside what `heptapod plan`
    says of it), and how the time of a step is shared by reading data, forward and backward pass, optimizer and moving
    average. The baseline is next_token; width and depths are those of the recipe; the models take turns, step by step.
    Tokens are random ones in memory, so that no data are needed; weights are fresh (neither changes a time).

    Utilisation is told against the GPU's peak (heptapod plan --help lists those known), or, on a CPU or another GPU,
    against the fastest matrix product of the same run. The demo takes two minutes on two cores:
    heptapod bench training demo. Settings are the recipe's: a smaller --train.batch_size makes it quick.
    """

    bench: tyro.conf.OmitArgPrefixes[TrainingBench] = field(default_factory=TrainingBench)
    """What to measure."""
    out: str = "training-bench"
    """Folder for training.json, training.md and training.png, or a .json file (the others lie beside it)."""


OWN = {one.name for cls in (TrainingOptions, TrainingBench) for one in dataclasses.fields(cls)} - {"bench"}


def training(arguments: list[str]) -> None:
    """Parses arguments, measures training, prints the tables and writes them."""
    if not arguments or "--help" in arguments or "-h" in arguments:
        print(
            "usage: heptapod bench training RECIPE [--SETTING VALUE ...] [OPTIONS]\n\n"
            f"RECIPE is one of {', '.join(recipe_names())}, or a .yaml file.\n"
        )
        _training_options(["--help"])
    name, rest = recipe_first(arguments)
    own, overrides = split_options(rest, OWN)
    options = _training_options(own)
    file = _json_file(options.out, "training")
    recipe = load_recipe(name, overrides)
    options.bench.check(recipe)
    resolve_device(recipe.device)
    training_setup = resolve_setup(recipe, options.given())
    file.parent.mkdir(parents=True, exist_ok=True)
    result = measure_training(options.bench, training_setup)
    with num_threads(options.bench.threads):
        report = training_json(options.bench, training_setup, result)
    text = training_markdown(report)
    write_json(file, report)
    write_atomically(file.with_suffix(".md"), lambda path: path.write_text(text, encoding="utf-8"))
    written = [file, file.with_suffix(".md")]
    if importlib.util.find_spec("matplotlib"):
        written.append(training_picture(report, file.with_suffix(".png")))
    else:
        say("no picture is drawn: it needs matplotlib (pip install 'heptapod[evaluation]')")
    print(text)
    print(", ".join(map(str, written)))


def _training_options(arguments: list[str]) -> TrainingOptions:
    config = (tyro.conf.FlagConversionOff,)  # --memory False
    return tyro.cli(
        TrainingOptions, prog="heptapod bench training", args=arguments, use_underscores=True, config=config
    )


def _json_file(out: str, name: str) -> Path:
    """The file that ``--out`` names, or that of its folder."""
    target = Path(out)
    if target.suffix not in ("", ".json"):
        raise ValueError(f"out: {out} given, must be a folder or a .json file")
    return target if target.suffix else target / f"{name}.json"
