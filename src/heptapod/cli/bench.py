"""``heptapod bench``."""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import field
from pathlib import Path

import tyro

from heptapod.cli.recipe_options import GridOptions, parse_recipe, train_settings_except
from heptapod.tools.bench.config import SamplingBench, TrainingBench
from heptapod.utils.arguments import parse_function
from heptapod.utils.config import settings

logger = logging.getLogger(__name__)
BENCHMARKS = ("sampling", "training")


def bench(arguments: list[str]) -> None:
    """Runs the benchmark named by the first argument."""
    if arguments[:1] in (["-h"], ["--help"]):
        print(
            "usage: heptapod bench sampling [OPTIONS]\n       heptapod bench training RECIPE [OPTIONS]\n\n"
            "sampling: the speed of sampling on this machine, next to next-token decoding and a masked model, with "
            "random weights.\ntraining: the speed of training a recipe on this machine, next to other heads and "
            "supervision densities.\n\nheptapod bench sampling --help and heptapod bench training --help list the "
            "options."
        )
        return
    if not arguments or arguments[0] not in BENCHMARKS:
        given = repr(arguments[0]) if arguments else "none"
        raise ValueError(f"benchmark: {given} given, must be {' or '.join(BENCHMARKS)} (heptapod bench --help)")
    if arguments[0] == "training":
        training(arguments[1:])
    else:
        parse_function(sampling, "bench sampling", arguments[1:])()


def sampling(bench: tyro.conf.OmitArgPrefixes[SamplingBench], out: str = "sampling-bench") -> None:
    """Measures the speed of sampling on this machine, next to the usual methods, in one run.

    Images per second, milliseconds per step and peak memory, with random weights (their values change no
    time). The models are Heptapod's heads (cross, global, global_approximate) and two baselines: next_token, which
    samples one cell per step with a KV cache and has as many parameters as cross (as in LlamaGen), and masked, a
    bidirectional Transformer with the same number of blocks that runs in full at every step (as in MAR; all its steps
    cost the same, so two are timed and scaled).

    Fits how time and memory grow with the number of cells N at equal steps, and compares the heads with the baselines.
    Prints Markdown tables and writes them and a JSON file, with the hardware. A row that would take longer than
    max_seconds is listed with its predicted time and not measured. The defaults take about ten minutes on two idle
    cores; this takes seconds: --sizes tiny --grids 8 16 --batches 1 --steps 16.

    Args:
        bench: What to measure.
        out: Folder for sampling.json and sampling.md, or a .json file (the .md is written next to it).
    """
    from heptapod.distributed.device import resolve_device
    from heptapod.tools.bench.report import to_json, to_markdown
    from heptapod.tools.bench.results import hardware
    from heptapod.tools.bench.sampling import measure
    from heptapod.tools.bench.timing import num_threads
    from heptapod.utils.files import check_folder, write_atomically, write_json

    file = _json_file(out, "sampling")
    bench.check()
    resolve_device(bench.device)
    check_folder(file.parent)
    rows, skipped = measure(bench)
    with num_threads(bench.threads):
        report = to_json(hardware(resolve_device(bench.device)), bench, rows, skipped)
    text = to_markdown(report)
    write_json(file, report)
    write_atomically(file.with_suffix(".md"), lambda path: path.write_text(text, encoding="utf-8"))
    print(text)
    print(f"{file}, {file.with_suffix('.md')}")


TRAINING = """Measures the speed of training a recipe on this machine, next to other heads and densities, in one run.

Images, tokens and supervised cells per second, model FLOPs utilization, peak memory (next to the estimate of `heptapod
plan`), and the share of a step spent on reading data, forward and backward pass, optimizer and moving average. The
baseline is next_token; width and depths are those of the recipe; the models take turns, step by step. Tokens are
random and in memory, so that no data are needed; weights are fresh (neither changes a time).

Utilization is relative to the GPU's peak (heptapod plan --help lists the GPUs known), or, on a CPU or another GPU, to
the fastest matrix product of the same run. The demo takes two minutes on two cores: heptapod bench training demo. A
smaller --train.batch-size is faster."""
WITHOUT = {
    *("description", "tokenizer.losses", "tokenizer.train", "probe", "sampling", "data.memory_gib"),
    *("data.validation_path", "data.validation_split", "data.validation_fraction", "data.limit", "data.flip"),
    *train_settings_except(
        *("batch_size", "accumulation", "grad_clip", "precision", "ema_decay", "activation_checkpointing", "compile"),
        *("flex_attention",),
    ),
}
"""Settings of a recipe that change nothing in the benchmark."""


@settings
class TrainingOptions(GridOptions):
    """Options of the training benchmark."""

    bench: tyro.conf.OmitArgPrefixes[TrainingBench] = field(default_factory=TrainingBench)
    """What to measure."""
    out: str = "training-bench"
    """Folder for training.json, training.md and training.png, or a .json file (the others are written next to it)."""


def training(arguments: list[str]) -> None:
    """Parses arguments, measures training, prints the tables and writes them."""
    recipe, options = parse_recipe("bench training", arguments, TrainingOptions, TRAINING, {*WITHOUT, "out"})
    from heptapod.distributed.device import resolve_device
    from heptapod.tools.bench.timing import num_threads
    from heptapod.tools.bench.training import measure_training
    from heptapod.tools.bench.training_report import training_json, training_markdown, training_picture
    from heptapod.tools.planning.training_setup import resolve_setup
    from heptapod.utils.files import check_folder, write_atomically, write_json

    file = _json_file(options.out, "training")
    options.bench.check(recipe)
    resolve_device(recipe.device)
    training_setup = resolve_setup(recipe, options.overrides())
    check_folder(file.parent)
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
        logger.info("no figure: it needs matplotlib (pip install 'heptapod[evaluation]')")
    print(text)
    print(", ".join(map(str, written)))


def _json_file(out: str, name: str) -> Path:
    """The file that ``--out`` names, or that of its folder."""
    target = Path(out)
    if target.suffix not in ("", ".json"):
        raise ValueError(f"out: {out} given, must be a folder or a .json file")
    return target if target.suffix else target / f"{name}.json"
