"""Quality and time of images against the network evaluations per continuous cell.

    OMP_NUM_THREADS=1 python benchmarks/cell_quality.py --models runs/… runs/… --names diffusion flow --data images/

For every model, solver, number of evaluations and temperature: images of the same labels and seeds, their time, and
their distance to real images in features of EfficientNet-Lite0. References: one half of the real images against the
other (``halves``, the floor), and that half through a model's tokenizer against the other (``reconstructions``, the
best that the model can reach). The Fréchet distance depends on the number of images and compares settings only with
each other; the kernel distance does not.

Writes JSON after every setting (the same command resumes) and a figure, and prints a table.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import tyro
from cell_cost import CellSolver, cell_solvers, seconds_in_cells
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from record import provenance
from torch import Tensor

from heptapod import Heptapod
from heptapod.data import ImageSet
from heptapod.data.selection import random_images, split_images
from heptapod.evaluation.distances import FeatureStatistics, frechet_distance, kernel_distance
from heptapod.evaluation.features import EfficientNetLite0Features
from heptapod.evaluation.reconstruction import reconstruct
from heptapod.tools.bench.results import Column, describe_model, hardware, markdown_table, resume_rows, save_figure
from heptapod.tools.image_features import image_features
from heptapod.utils.files import write_json
from heptapod.utils.random import Stream, numpy_generator

FEATURES_AT_ONCE = 32


@dataclass
class Options:
    """Options of the benchmark."""

    models: tuple[str, ...]
    """Folders of models, or of their runs."""
    data: str
    """Real images: a folder, parquet file(s) or a built-in set."""
    names: tuple[str, ...] = ()
    """Names of the models in the results; those of the folders if unset."""
    images: int = 1000
    """Images per setting."""
    real: int = 5000
    """Maximum number of real images, chosen at random."""
    split: Literal["all", "held_out"] = "all"
    """Which real images: all of the data, or those that training holds out of it, on which settings are chosen."""
    steps: tuple[int, ...] = (4, 8, 12, 25, 50, 100)
    """Network evaluations per cell."""
    temperatures: tuple[float, ...] = (1.0,)
    """Temperatures."""
    token_steps: tuple[int, ...] = (0,)
    """Sampling steps that fill the grid; 0: one cell per step."""
    solvers: tuple[str, ...] = ()
    """Solvers; all of a distribution if unset."""
    batch_size: int = 250
    """Images at a time."""
    keep: Path | None = None
    """Folder that keeps the features of real and reconstructed images from one call to the next."""
    out: Path = Path("benchmarks/results/cell_quality.json")
    """JSON file; the figure is next to it."""


class Setting(NamedTuple):
    """The setting of a row."""

    model: str
    solver: CellSolver | None
    """None for discrete tokens."""
    temperature: float
    token_steps: int
    """Sampling steps that fill the grid; 0: one cell per step."""

    @property
    def key(self) -> dict[str, Any]:
        """The setting as entries of a row."""
        solver, steps, evaluations = self.solver or (None, None, None)
        return {
            "model": self.model,
            "solver": solver,
            "steps": steps,
            "evaluations": evaluations,
            "temperature": self.temperature,
            "token_steps": self.token_steps,
        }

    def is_in(self, rows: list[dict[str, Any]]) -> bool:
        """Whether the rows include this setting."""
        return any(self.key.items() <= row.items() for row in rows)


def main(options: Options) -> None:
    options.batch_size = min(options.batch_size, options.images)
    if options.images % options.batch_size:
        raise SystemExit(f"--images: {options.images} given, must be a multiple of --batch_size {options.batch_size}")
    names = options.names or [Path(folder).resolve().name for folder in options.models]
    if len(set(names)) != len(options.models):
        raise SystemExit(f"--names: {', '.join(names)} for {len(options.models)} models; give each a different name")

    models = {name: Heptapod.from_pretrained(folder) for name, folder in zip(names, options.models, strict=True)}
    sizes = {model.model.grid.height * model.tokenizer.factor for model in models.values()}
    if len(sizes) > 1:
        raise SystemExit(f"--models: their images have {sorted(sizes)} pixels; compare models of one size")
    if options.split == "all":
        real = random_images("cell_quality", "data", options.data, sizes.pop(), options.real, (Stream.EVALUATION, 0))
    else:
        real = split_images("cell_quality", options.data, options.split, sizes.pop(), None, options.real, 0, 4.0)
    folders = dict(zip(names, options.models, strict=True))
    results = open_results(
        options, {name: describe_model(model, Path(folders[name])) for name, model in models.items()}, real
    )
    if left := [setting for setting in all_settings(models, options) if not setting.is_in(results["rows"])]:
        run(left, models, real.in_memory(), results, options)
    save_figure(draw(results), options.out.with_suffix(".png"), dpi=150)
    print_table(results)


def open_results(options: Options, models: Mapping[str, Any], real: ImageSet) -> dict[str, Any]:
    """The results so far; raises for a file whose rows are not comparable."""
    settings = {
        "images": options.images,
        "seeds": f"0 to {options.images - 1}",
        "labels": "image i has label i % classes",
        "batch_size": options.batch_size,
        "dtype": "float32",
        "features": EfficientNetLite0Features.name,
        "data": options.data,
        "split": options.split,
        "real_images": len(real),
        "real_sha256": real.sha256(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    results = resume_rows(options.out, settings, models={}, halves={}, reconstructions={})
    results["provenance"] = provenance(shlex.join(["python", "benchmarks/cell_quality.py", *sys.argv[1:]]))
    for name, description in models.items():
        if results["models"].setdefault(name, description)["sha256"] != description["sha256"]:
            raise SystemExit(f"{options.out}: {name} is another model there; give other --names or another --out")
    return results


def all_settings(models: Mapping[str, Heptapod], options: Options) -> list[Setting]:
    """All settings, the fastest first, so that all models can soon be compared."""
    settings = [
        Setting(name, solver, temperature, token_steps)
        for name, model in models.items()
        for solver in cell_solvers(model.model.distribution, options.steps, options.solvers or None) or (None,)
        for temperature in dict.fromkeys(options.temperatures)
        for token_steps in dict.fromkeys(options.token_steps)
    ]
    return sorted(settings, key=lambda setting: setting.solver.evaluations if setting.solver else 0)


def run(
    settings: list[Setting],
    models: Mapping[str, Heptapod],
    real: Tensor,
    results: dict[str, Any],
    options: Options,
) -> None:
    """Adds the missing rows to the results, and writes them after every setting."""
    extractor = EfficientNetLite0Features()

    def features(name: str, images: Callable[[], Tensor]) -> Tensor:
        file = options.keep and options.keep / f"{name}.pt"
        if file and file.exists():
            return torch.load(file)
        found = image_features(extractor, images(), FEATURES_AT_ONCE)
        if file:
            torch.save(found, file)
        return found

    reference = features(results["settings"]["real_sha256"], lambda: real)
    shuffled = torch.from_numpy(numpy_generator(Stream.EVALUATION, 1).permutation(len(real)))
    first, second = shuffled.tensor_split(2)
    results["halves"] = results["halves"] or distances(reference[first], reference[second])
    for name, model in models.items():
        tokenizer = results["models"][name]["tokenizer_sha256"]
        if tokenizer not in results["reconstructions"]:
            decoded = features(tokenizer, lambda model=model: reconstruct(model.tokenizer, real[first], 250)[0])
            results["reconstructions"][tokenizer] = distances(decoded, reference[second])
    write_json(options.out, results)
    for number, setting in enumerate(settings, 1):
        print(f"{number} of {len(settings)}: {', '.join(f'{name} {value}' for name, value in setting.key.items())}")
        images, seconds = generate(models[setting.model], setting, options)
        quality = distances(image_features(extractor, images, FEATURES_AT_ONCE), reference)
        results["rows"].append({**setting.key, **seconds, **quality, **hardware()})
        write_json(options.out, results)


def generate(model: Heptapod, setting: Setting, options: Options) -> tuple[Tensor, dict[str, float]]:
    """Images (M, 3, h, w) uint8 and the seconds per image."""
    classes = len(model.class_names)
    solver = setting.solver
    config: dict[str, Any] = {} if solver is None else {"cell_solver": solver.solver, "cell_steps": solver.steps}
    started = time.perf_counter()
    with seconds_in_cells(model.model.distribution) as cells:
        tokens = model.generate_tokens(
            [i % classes for i in range(options.images)] if classes else None,
            count=options.images,
            seed=0,
            batch_size=options.batch_size,
            progress=True,
            temperature=setting.temperature,
            steps=setting.token_steps or None,
            **config,
        )
    sampled = time.perf_counter()
    images = model.decode(tokens, options.batch_size)
    decoded = time.perf_counter()
    seconds = {"": decoded - started, "_in_cells": sum(cells), "_in_decoder": decoded - sampled}
    return images, {f"seconds_per_image{part}": value / options.images for part, value in seconds.items()}


def distances(x: Tensor, y: Tensor) -> dict[str, Any]:
    """Kernel and Fréchet distance of features (M, F) and (M', F)."""
    kernel = kernel_distance(x, y)
    statistics = [FeatureStatistics(each.shape[1]) for each in (x, y)]
    for part, each in zip(statistics, (x, y), strict=True):
        part.add(each)
    return {
        "kernel_distance": {"mean": kernel.mean, "standard_error": kernel.standard_error},
        "frechet_distance": frechet_distance(*statistics),
        "compared_images": [len(x), len(y)],
    }


def draw(results: Mapping[str, Any]) -> Figure:
    """Kernel distance against seconds per image."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    lines: dict[str, list[dict[str, Any]]] = {}
    several = len({row["temperature"] for row in results["rows"]}) > 1
    for row in sorted(results["rows"], key=lambda row: row["evaluations"] or 0):
        title = f"{row['model']}, {row['solver']}" if row["solver"] else row["model"]
        title += f", temperature {row['temperature']}" if several else ""
        lines.setdefault(f"{title}, {row['token_steps']} steps" if row["token_steps"] else title, []).append(row)
    for title, rows in lines.items():
        x = [row["seconds_per_image"] for row in rows]
        y = [row["kernel_distance"]["mean"] for row in rows]
        error = [row["kernel_distance"]["standard_error"] or 0.0 for row in rows]
        axes.errorbar(x, y, error, marker="o", markersize=4, capsize=3, label=title)
        for row, place in zip(rows, zip(x, y, strict=True), strict=True):
            axes.annotate(str(row["evaluations"] or ""), place, xytext=(4, 4), textcoords="offset points", fontsize=8)
    for number, (title, bound) in enumerate(reconstructions(results).items()):
        style = ("--", ":", "-.")[number % 3]
        axes.axhline(bound["kernel_distance"]["mean"], color="gray", linestyle=style, label=title)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(f"seconds per image ({results['settings']['threads']} CPU thread(s))")
    axes.set_ylabel(f"kernel distance ({results['settings']['features']})")
    axes.set_title("Points: network evaluations per cell", fontsize=10)
    axes.legend(fontsize=8)
    return figure


def reconstructions(results: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The reconstructions of each tokenizer, under a title that names its models."""
    bounds = {}
    for tokenizer, bound in results["reconstructions"].items():
        users = [name for name, model in results["models"].items() if model["tokenizer_sha256"] == tokenizer]
        bounds[f"reconstructions ({', '.join(users)})"] = bound
    return bounds


def print_table(results: Mapping[str, Any]) -> None:
    bounds = {"halves": results["halves"], **reconstructions(results)}
    rows = [{"model": title, **bound} for title, bound in bounds.items()]
    print(markdown_table(COLUMNS, rows + sorted(results["rows"], key=place_in_table)))


def place_in_table(row: Mapping[str, Any]) -> tuple[str, str, float, int, int]:
    return row["model"], row["solver"] or "", row["temperature"], row["token_steps"], row["evaluations"] or 0


def _kernel(row: Mapping[str, Any]) -> str:
    return f"{row['kernel_distance']['mean']:.5f} ± {row['kernel_distance']['standard_error'] or 0:.5f}"


COLUMNS: dict[str, Column] = {
    "model": "model",
    "solver": lambda row: row.get("solver"),
    "evaluations": lambda row: row.get("evaluations"),
    "temperature": lambda row: row.get("temperature"),
    "steps": lambda row: row.get("token_steps", None) or ("all" if "token_steps" in row else None),
    "s/image": lambda row: f"{row['seconds_per_image']:.3f}" if "seconds_per_image" in row else None,
    "in cells": lambda row: f"{row['seconds_per_image_in_cells']:.3f}" if "seconds_per_image" in row else None,
    "kernel distance": _kernel,
    "Fréchet": lambda row: f"{row['frechet_distance']:.3f}",
}


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__, use_underscores=True))
