"""``heptapod train`` and ``heptapod train-tokenizer``."""

from __future__ import annotations

from pathlib import Path

import tyro

from heptapod.distributed import process_group
from heptapod.distributed.coordination import report_failure_once
from heptapod.training import run
from heptapod.training.recipe import Recipe, load_recipe, recipe_names
from heptapod.utils.config import to_yaml
from heptapod.utils.logging import say


def train(arguments: list[str]) -> None:
    """Trains the model of a recipe, and its tokenizer first where none is given."""
    recipe = recipe_from_arguments("train", arguments)
    if recipe is None:
        return
    with process_group.init_process_group(recipe.train.timeout), report_failure_once():
        figures = run.train_model(recipe)
        if not process_group.is_main_process():
            return
    out = Path(recipe.out)
    what, unit = ("NLL", " nats per token") if "val_nats_per_token" in figures else ("loss", "")
    say(f"held-out {what} {figures['best_val_loss']:.4f}{unit} after {figures['seconds']:.0f} s of training")
    print(f"model:   {out / 'best'}\nfigures: {out / 'training.json'}\nsamples: {out / 'samples'}")


def train_tokenizer(arguments: list[str]) -> None:
    """Trains the tokenizer of a recipe."""
    recipe = recipe_from_arguments("train-tokenizer", arguments)
    if recipe is None:
        return
    with process_group.init_process_group(recipe.tokenizer.train.timeout), report_failure_once():
        run.train_tokenizer(recipe)
        if not process_group.is_main_process():
            return
    out = Path(recipe.out) / "tokenizer"
    print(f"tokenizer: {out / 'best'}\nfigures:   {out / 'training.json'}\nsamples:   {out / 'samples'}")


def recipe_from_arguments(command: str, arguments: list[str]) -> Recipe | None:
    """The recipe that arguments describe; None where they ask to print it (or help) and that is done."""
    usage = f"usage: heptapod {command} RECIPE [--SETTING VALUE ...] [--print-config]"
    if not arguments or arguments[0] in ("-h", "--help"):
        _print_help(usage, None)
        return None
    name, *overrides = arguments
    if name.startswith("-"):
        raise ValueError(f"a recipe comes first: {', '.join(recipe_names())}, or a .yaml file; then {name}")
    if "--help" in overrides or "-h" in overrides:
        _print_help(usage, load_recipe(name))
        return None
    print_config = "--print-config" in overrides
    recipe = load_recipe(name, [argument for argument in overrides if argument != "--print-config"])
    if print_config:
        print(to_yaml(recipe), end="")
        return None
    return recipe


def _print_help(usage: str, recipe: Recipe | None) -> None:
    print(
        f"{usage}\n\nRECIPE is one of {', '.join(recipe_names())}, or a .yaml file. Settings are changed as in "
        "--model.head.depth 4;\n--data X is short for --data.path X. --print-config prints the resolved recipe and "
        "stops. The same command\nagain goes on where it was stopped. The settings, with the values of "
        f"{'the recipe' if recipe else 'an empty recipe'}:\n"
    )
    tyro.cli(
        Recipe,
        default=recipe or Recipe(),
        prog="heptapod",
        args=["--help"],
        use_underscores=True,
        config=(tyro.conf.FlagConversionOff, tyro.conf.AvoidSubcommands),
    )
