"""``heptapod demo``: trains on real digits, samples and scores the samples."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heptapod.cli.recipe_options import PrintConfig, parse_recipe
from heptapod.cli.train import printed
from heptapod.configs.sampling import TRAINED_FOR
from heptapod.training.recipe import Recipe
from heptapod.utils.config import to_dict

if TYPE_CHECKING:
    from heptapod.evaluation.classifier import Classifier
    from heptapod.inference.pipeline import Heptapod

logger = logging.getLogger(__name__)
ABOUT = (
    "Trains a tokenizer and a model on 5,000 real handwritten digits, samples 1,000 digits without guidance and scores "
    "them with a classifier trained on real digits only: one cell per step, and in 8 steps (in random order at "
    "temperature 0.3 or less, unless the recipe names an order). Takes some minutes on a CPU; writes samples.png, "
    "belief.png and metrics.json to --out (runs/demo)."
)
IMAGES = 1000
FEW_STEPS, FEW_TEMPERATURE = 8, 0.3
"""Cells of one step are drawn independently of each other: the more there are, the lower the temperature they need."""
SHOWN_PER_CLASS = 12


def demo(arguments: list[str]) -> None:
    """Trains on mnist5k, samples and classifies 1,000 digits; writes samples.png, belief.png, metrics.json."""
    recipe, options = parse_recipe("demo", ["demo", *arguments], PrintConfig, ABOUT)
    if printed(recipe, options):
        return
    import torch

    from heptapod.data import load_images
    from heptapod.evaluation.classifier import accuracy, train_classifier
    from heptapod.inference.pipeline import Heptapod
    from heptapod.training.run import train_model, train_tokenizer
    from heptapod.utils.files import read_json

    if recipe.data.path != "mnist5k":
        raise ValueError(f"data.path: {recipe.data.path} given, but the demo is about mnist5k; use `heptapod train`")
    started = time.perf_counter()
    seconds: dict[str, float] = {}

    def stage(number: int, what: str) -> None:
        logger.info(f"[{number}/4] {what}  ({time.perf_counter() - started:.0f} s so far)")

    if recipe.tokenizer.path is None:
        stage(1, "training the tokenizer: images <-> 7×7 tokens")
        train_tokenizer(recipe)
        seconds["tokenizer"] = read_json(Path(recipe.out) / "tokenizer" / "training.json").get("seconds", 0.0)
    stage(2, "training the model: read tokens, predict all the others (the longest stage)")
    last = train_model(recipe)
    seconds["model"] = last["seconds"]
    stage(3, "training an independent judge on real digits")
    train, held_out = load_images(recipe.data)
    began = time.perf_counter()
    judge = train_classifier(train, len(train.class_names))
    seconds["judge"] = time.perf_counter() - began
    stage(4, f"sampling {IMAGES:,} digits, twice")
    heptapod = Heptapod.from_pretrained(recipe.out)
    settings: list[dict[str, Any]] = [{"steps": heptapod.model.grid.num_cells}]
    if heptapod.model.head.reaches_grid:
        few: dict[str, Any] = {"steps": FEW_STEPS, "temperature": min(FEW_TEMPERATURE, recipe.sampling.temperature)}
        if recipe.sampling.token_order is None and "random" in TRAINED_FOR[recipe.objective.token_order]:
            few["token_order"] = "random"
        settings.append(few)
    results = [_judged(heptapod, judge, **changes) for changes in settings]
    seconds["this_command"] = time.perf_counter() - started
    metrics = {
        "judge_accuracy_on_real_held_out": accuracy(judge, held_out.in_memory(), held_out.labels),
        "images": IMAGES,
        "guidance": None,
        "results": results,
        "model": heptapod.metadata,
        "last": last,
        "objective": to_dict(recipe.objective.for_head(recipe.model.head.kind)),
        "threads": torch.get_num_threads(),
        "seconds": seconds,
    }
    _write(recipe, heptapod, metrics)


def _judged(heptapod: Heptapod, judge: Classifier, **settings: Any) -> dict[str, Any]:
    """Samples the same number of digits per class, and measures how many the classifier recognizes."""
    import torch

    from heptapod.evaluation.classifier import accuracy

    classes = len(heptapod.class_names)
    labels = [i % classes for i in range(IMAGES)]
    began = time.perf_counter()
    pixels = heptapod.decode(heptapod.generate_tokens(labels, seed=0, batch_size=250, progress=True, **settings))
    seconds = time.perf_counter() - began
    return {
        "sampling": to_dict(heptapod.sampling_config(**settings)),
        "seed": 0,
        "accuracy": accuracy(judge, pixels, torch.tensor(labels)),
        "seconds": seconds,
        "images_per_second": IMAGES / seconds,
    }


def _write(recipe: Recipe, heptapod: Heptapod, metrics: dict[str, Any]) -> None:
    import rich.table
    from rich.console import Console

    from heptapod.utils.files import write_json
    from heptapod.utils.images import image_grid, save_png

    out = Path(recipe.out)
    names = heptapod.class_names
    labels = [i for i in range(len(names)) for _ in range(SHOWN_PER_CLASS)]
    grid = image_grid(heptapod.decode(heptapod.generate_tokens(labels, seed=0)), SHOWN_PER_CLASS, names)
    save_png(grid, out / "samples.png")
    if heptapod.model.head.reaches_grid:
        save_png(heptapod.belief("3", seed=0), out / "belief.png")
    write_json(out / "metrics.json", metrics)

    table = rich.table.Table(title=f"{IMAGES:,} digits, no guidance")
    for column in ("", "recognised", "images/s"):
        table.add_column(column, justify="left" if not column else "right")
    for result in metrics["results"]:
        sampling = result["sampling"]
        table.add_row(
            f"{sampling['steps']} steps, {sampling['token_order']} order, temperature {sampling['temperature']:g}",
            f"{result['accuracy']:.1%}",
            f"{result['images_per_second']:.0f}",
        )
    table.add_row("real held-out digits", f"{metrics['judge_accuracy_on_real_held_out']:.1%}", "")
    Console().print(table)
    print(
        f"held-out NLL of the last weights {metrics['last']['val_loss']:.3f} nats per token; "
        f"{metrics['seconds']['this_command']:.0f} s"
    )
    print(f"look at {' and '.join(map(str, sorted(out.glob('*.png'))))}; all figures in {out / 'metrics.json'}")
