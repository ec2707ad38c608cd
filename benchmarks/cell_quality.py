"""Quality and time of images against the network evaluations in which every continuous cell is drawn.

    OMP_NUM_THREADS=1 python benchmarks/cell_quality.py --models runs/… runs/… --names diffusion flow --data images/

For every model, solver, number of evaluations and temperature: images of the same labels and seeds, the seconds they
take, and their distance to real images in features of EfficientNet-Lite0. To compare with: one half of the real images
against the other (``halves``, the floor), and that half through a model's tokenizer against the other
(``reconstructions``, the best that the model could reach). The Fréchet distance depends on the number of images, so it
compares settings with each other only; the kernel distance does not.

Writes JSON after every setting (started again, it goes on from there) and a picture, and prints a table.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from cell_cost import MemoryOption, seconds_in_cells, ways
from heptapod.tools.bench.hardware import hardware
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from torch import Tensor

from heptapod import Heptapod
from heptapod.data import ImageSet
from heptapod.data.selection import random_images
from heptapod.evaluation.distances import FeatureStatistics, frechet_distance, kernel_distance
from heptapod.evaluation.features import EfficientNetLite0Features
from heptapod.evaluation.reconstruction import reconstruct
from heptapod.inference.pretrained import find_pretrained
from heptapod.tokenizers import tokenizer_hash
from heptapod.utils.config import to_dict
from heptapod.utils.files import read_json, sha256, write_atomically, write_json
from heptapod.utils.logging import Progress, say
from heptapod.utils.random import Stream, numpy_generator

FEATURES_AT_ONCE = 32


class Setting(NamedTuple):
    """What a row of the results is about."""

    model: str
    way: MemoryOption | None
    """None for codes, which are drawn in one go."""
    temperature: float
    token_steps: int
    """Sampling steps in which the grid is filled; 0 for one cell per step."""

    @property
    def key(self) -> dict[str, Any]:
        """As it stands in the results."""
        solver, steps, evaluations = self.way or (None, None, None)
        how = {"solver": solver, "steps": steps, "evaluations": evaluations, "temperature": self.temperature}
        how["token_steps"] = self.token_steps
        return {"model": self.model, **how}

    def is_in(self, rows: list[dict[str, Any]]) -> bool:
        """Whether there is a row about it."""
        return any(self.key.items() <= row.items() for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", required=True, help="folders of models or of their runs")
    parser.add_argument("--names", nargs="+", help="of the models, in the results; the folders' if left out")
    parser.add_argument("--data", required=True, help="real images: a folder, parquet file(s) or a built-in set")
    parser.add_argument("--images", type=int, default=1000, help="images per setting")
    parser.add_argument("--real", type=int, default=5000, help="real images at most, drawn at random")
    parser.add_argument("--steps", nargs="+", type=int, default=[4, 8, 12, 25, 50, 100], help="evaluations per cell")
    parser.add_argument("--temperatures", nargs="+", type=float, default=[1.0])
    parser.add_argument(
        "--token_steps", nargs="+", type=int, default=[0], help="steps that fill the grid, 0 for one per cell"
    )
    parser.add_argument("--solvers", nargs="+", help="only these; all of a distribution's if left out")
    parser.add_argument("--batch_size", type=int, default=250)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/cell_quality.json"))
    args = parser.parse_args()
    args.batch_size = min(args.batch_size, args.images)
    if args.images % args.batch_size:
        parser.error(f"--images: {args.images} given, must be a multiple of --batch_size {args.batch_size}")
    names = args.names or [Path(folder).resolve().name for folder in args.models]
    if len(set(names)) != len(args.models):
        parser.error(f"--names: {', '.join(names)} for {len(args.models)} models; give each a name of its own")

    models = {name: Heptapod.from_pretrained(folder) for name, folder in zip(names, args.models, strict=True)}
    sizes = {model.model.grid.height * model.tokenizer.factor for model in models.values()}
    if len(sizes) > 1:
        parser.error(f"--models: of images of {sorted(sizes)} pixels; compare models of one size")
    real = random_images("cell_quality", "data", args.data, sizes.pop(), args.real, (Stream.EVALUATION, 0))
    described = {name: describe(models[name], Path(folder)) for name, folder in zip(names, args.models, strict=True)}
    results = begun(args, described, real)
    if left := [setting for setting in all_settings(models, args) if not setting.is_in(results["rows"])]:
        run(left, models, real.in_memory(), results, args)
    write_atomically(args.out.with_suffix(".png"), lambda file: draw(results).savefig(file, format="png", dpi=150))
    print_table(results)


def describe(model: Heptapod, folder: Path) -> dict[str, Any]:
    files = [find_pretrained(folder) / name for name in ("config.json", "model.safetensors")]
    return {
        "distribution": to_dict(model.model.config.distribution),
        "sampling": to_dict(model.sampling),
        "sha256": {file.name: sha256(file) for file in files},
        "tokenizer_sha256": tokenizer_hash(model.tokenizer),
    }


def begun(args: argparse.Namespace, models: Mapping[str, Any], real: ImageSet) -> dict[str, Any]:
    """The results so far; refuses a file whose rows would not compare with ours."""
    settings = {
        "images": args.images,
        "seeds": f"0 to {args.images - 1}",
        "labels": "image i has label i % classes",
        "batch_size": args.batch_size,
        "dtype": "float32",
        "features": EfficientNetLite0Features.name,
        "real_images": len(real),
        "real_sha256": real.sha256(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    results: dict[str, Any] = {"settings": settings, "models": {}, "halves": {}, "reconstructions": {}, "rows": []}
    if args.out.exists():
        results = read_json(args.out)
        differing = [name for name, value in settings.items() if results["settings"].get(name) != value]
        if differing:
            raise SystemExit(f"{args.out}: was begun with other {', '.join(differing)}; give another --out")
    for name, description in models.items():
        if results["models"].setdefault(name, description)["sha256"] != description["sha256"]:
            raise SystemExit(f"{args.out}: {name} is another model there; give other --names or another --out")
    return results


def all_settings(models: Mapping[str, Heptapod], args: argparse.Namespace) -> list[Setting]:
    """The quick ones first, so that all models can soon be compared."""
    settings = [
        Setting(name, way, temperature, token_steps)
        for name, model in models.items()
        for way in tuple(ways(model.model.distribution, args.steps, args.solvers)) or (None,)
        for temperature in dict.fromkeys(args.temperatures)
        for token_steps in dict.fromkeys(args.token_steps)
    ]
    return sorted(settings, key=lambda setting: setting.way.evaluations if setting.way else 0)


def run(
    settings: list[Setting],
    models: Mapping[str, Heptapod],
    real: Tensor,
    results: dict[str, Any],
    args: argparse.Namespace,
) -> None:
    """Adds what is missing to the results, and writes them after every setting."""
    extractor = EfficientNetLite0Features()
    reference = features(extractor, real, "real images")
    shuffled = torch.from_numpy(numpy_generator(Stream.EVALUATION, 1).permutation(len(real)))
    first, second = shuffled.tensor_split(2)
    results["halves"] = results["halves"] or distances(reference[first], reference[second])
    for name, model in models.items():
        tokenizer = results["models"][name]["tokenizer_sha256"]
        if tokenizer not in results["reconstructions"]:
            decoded, _ = reconstruct(model.tokenizer, real[first], args.batch_size)
            read = features(extractor, decoded, "reconstructions")
            results["reconstructions"][tokenizer] = distances(read, reference[second])
    write_json(args.out, results)
    for number, setting in enumerate(settings, 1):
        say(f"{number} of {len(settings)}: {', '.join(f'{name} {value}' for name, value in setting.key.items())}")
        images, seconds = generate(models[setting.model], setting, args)
        quality = distances(features(extractor, images, "generated images"), reference)
        results["rows"].append({**setting.key, **seconds, **quality, **hardware(torch.device("cpu"))})
        write_json(args.out, results)


def generate(model: Heptapod, setting: Setting, args: argparse.Namespace) -> tuple[Tensor, dict[str, float]]:
    """Images (M, 3, h, w) uint8 and the seconds that one of them took."""
    classes = len(model.class_names)
    how: dict[str, Any] = (
        {} if setting.way is None else {"cell_solver": setting.way.solver, "cell_steps": setting.way.steps}
    )
    started = time.perf_counter()
    with seconds_in_cells(model.model.distribution) as cells:
        tokens = model.generate_tokens(
            [i % classes for i in range(args.images)] if classes else None,
            count=args.images,
            seed=0,
            batch_size=args.batch_size,
            progress=True,
            temperature=setting.temperature,
            steps=setting.token_steps or None,
            **how,
        )
    sampled = time.perf_counter()
    images = model.decode(tokens, args.batch_size)
    decoded = time.perf_counter()
    seconds = {"": decoded - started, "_in_cells": sum(cells), "_in_decoder": decoded - sampled}
    return images, {f"seconds_per_image{part}": value / args.images for part, value in seconds.items()}


def features(extractor: EfficientNetLite0Features, images: Tensor, title: str) -> Tensor:
    """(M, F)."""
    parts = []
    with Progress(f"features of {len(images):,} {title}", len(images)) as progress:
        for part in images.split(FEATURES_AT_ONCE):
            parts.append(extractor.extract(part))
            progress.advance(len(part))
    return torch.cat(parts)


def distances(x: Tensor, y: Tensor) -> dict[str, Any]:
    """Kernel and Fréchet distance of features (M, F) and (M', F)."""
    kernel = kernel_distance(x, y)
    statistics = [FeatureStatistics(each.shape[1]) for each in (x, y)]
    for one, each in zip(statistics, (x, y), strict=True):
        one.add(each)
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
    """What each tokenizer reaches, under a title that names its models."""
    found = {}
    for tokenizer, bound in results["reconstructions"].items():
        users = [name for name, model in results["models"].items() if model["tokenizer_sha256"] == tokenizer]
        found[f"reconstructions ({', '.join(users)})"] = bound
    return found


def print_table(results: Mapping[str, Any]) -> None:
    bounds = {"halves": results["halves"], **reconstructions(results)}
    width = max(map(len, [*bounds, *results["models"]])) + 2
    print(
        f"{'':<{width}}{'solver':<11}{'evaluations':>11}{'temperature':>13}{'steps':>7}{'s/image':>10}{'in cells':>10}"
        f"{'kernel distance':>23}{'Fréchet':>11}"
    )
    for title, bound in bounds.items():
        print(f"{title:<{width}}{'':<62}{distance_columns(bound)}")
    for row in sorted(results["rows"], key=place_in_table):
        print(
            f"{row['model']:<{width}}{row['solver'] or '':<11}{row['evaluations'] or '':>11}{row['temperature']:>13}"
            f"{row['token_steps'] or 'all':>7}"
            f"{row['seconds_per_image']:>10.3f}{row['seconds_per_image_in_cells']:>10.3f}{distance_columns(row)}"
        )


def place_in_table(row: Mapping[str, Any]) -> tuple[str, str, float, int, int]:
    return row["model"], row["solver"] or "", row["temperature"], row["token_steps"], row["evaluations"] or 0


def distance_columns(row: Mapping[str, Any]) -> str:
    kernel = row["kernel_distance"]
    return f"{kernel['mean']:>13.5f} ± {kernel['standard_error'] or 0:.5f}{row['frechet_distance']:>11.3f}"


if __name__ == "__main__":
    main()
