"""``heptapod train`` and ``heptapod train-tokenizer``."""

from __future__ import annotations

import logging
from pathlib import Path

from heptapod.cli.recipe_options import PrintConfig, parse_recipe
from heptapod.training.recipe import Recipe
from heptapod.utils.config import to_yaml

logger = logging.getLogger(__name__)
AGAIN = "Run the same command again to resume a run that was stopped."
NOT_OF_TOKENIZERS = {"description", "model", "objective", "train", "probe", "sampling"}


def train(arguments: list[str]) -> None:
    """Trains the model of a recipe, and its tokenizer first if none is given."""
    about = f"Trains the model of a recipe, and its tokenizer first if none is given. {AGAIN}"
    recipe, options = parse_recipe("train", arguments, PrintConfig, about)
    if printed(recipe, options):
        return
    from heptapod.distributed import process_group
    from heptapod.distributed.coordination import report_failure_once
    from heptapod.training import run

    with process_group.init_process_group(recipe.train.timeout), report_failure_once():
        figures = run.train_model(recipe)
        if not process_group.is_main_process():
            return
    out = Path(recipe.out)
    loss, unit = ("NLL", " nats per token") if "val_nats_per_token" in figures else ("loss", "")
    logger.info(
        f"held-out {loss} of the last weights {figures['val_loss']:.4f}{unit} after {figures['seconds']:.0f} s of "
        f"training; lowest, which chose the best weights, {figures['best_val_loss']:.4f}"
    )
    print(f"model:   {out / 'best'}\nfigures: {out / 'training.json'}\nsamples: {out / 'samples'}")


def train_tokenizer(arguments: list[str]) -> None:
    """Trains the tokenizer of a recipe."""
    about = f"Trains the tokenizer of a recipe. {AGAIN}"
    recipe, options = parse_recipe("train-tokenizer", arguments, PrintConfig, about, NOT_OF_TOKENIZERS)
    if printed(recipe, options):
        return
    from heptapod.distributed import process_group
    from heptapod.distributed.coordination import report_failure_once
    from heptapod.training import run

    with process_group.init_process_group(recipe.tokenizer.train.timeout), report_failure_once():
        run.train_tokenizer(recipe)
        if not process_group.is_main_process():
            return
    out = Path(recipe.out) / "tokenizer"
    print(f"tokenizer: {out / 'best'}\nfigures:   {out / 'training.json'}\nsamples:   {out / 'samples'}")


def printed(recipe: Recipe, options: PrintConfig) -> bool:
    """Prints the recipe if ``--print-config`` requests it; whether it does."""
    if options.print_config:
        print(to_yaml(recipe), end="")
    return options.print_config
