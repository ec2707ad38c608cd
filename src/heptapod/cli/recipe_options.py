"""Commands that take a recipe: its settings and the command's own options are options of one parser."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Annotated, TypeVar

from pydantic import Field

from heptapod.training.config import TrainConfig
from heptapod.training.recipe import Recipe, build_recipe, read_recipe, recipe_names, recipe_options
from heptapod.utils.arguments import HELP, parse_arguments
from heptapod.utils.config import from_dict, settings
from heptapod.utils.options import Group

if TYPE_CHECKING:
    from heptapod.tools.planning.training_setup import SetupOverrides

O = TypeVar("O")  # noqa: E741 - options


@settings
class PrintConfig:
    """What a command with a recipe does besides its work."""

    print_config: bool = False
    """Print the resolved recipe and stop."""


@settings
class GridOptions:
    """Facts of a recipe's data, for data that are not on this machine."""

    grid: str | None = None
    """Rows x columns of the token grid (16x16), if the recipe's data and tokenizer do not determine it."""
    codes: Annotated[int, Field(ge=2, le=2**24)] | None = None
    """Codes of a discrete tokenizer, instead of the recipe's."""
    channels: Annotated[int, Field(ge=1, le=2**14)] | None = None
    """Channels of a continuous token, instead of the recipe's."""
    classes: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """Number of classes (0 for none), if the data are not on this machine."""

    def overrides(self, images: int | None = None) -> SetupOverrides:
        """The facts as the planner takes them."""
        from heptapod.tools.planning.training_setup import SetupOverrides

        return SetupOverrides(self.grid, self.codes, self.channels, self.classes, images)


def train_settings_except(*used: str) -> set[str]:
    """Dotted names of the settings of training that a command has no use for."""
    return {f"train.{entry.name}" for entry in dataclasses.fields(TrainConfig) if entry.name not in used}


def parse_recipe(
    command: str, arguments: Sequence[str], options: type[O], about: str, without: Collection[str] = ()
) -> tuple[Recipe, O]:
    """Parses a recipe's name, changes to its settings and the command's own options.

    Args:
        command: name of the command.
        arguments: words of the command line.
        options: settings class of the command's own options.
        about: what ``--help`` says first.
        without: settings of a recipe that have no effect on this command.

    Raises:
        FileNotFoundError: if there is no such recipe.
        ValueError: in one line, for a mistake in an argument.
        SystemExit: once the help is printed.
    """
    names = f"{', '.join(recipe_names())}, or a .yaml file"
    about = f"{about}\n\nRECIPE is one of {names}. --data X is short for --data.path X."
    if not arguments or arguments[0] in HELP:
        parse_arguments([Group(options), recipe_options({}, without)], f"{command} RECIPE", ["--help"], about)
    name, *rest = arguments
    if name.startswith("-"):
        raise ValueError(f"a recipe comes first: {names}; then {name}")
    values = read_recipe(name)
    groups = [Group(options), recipe_options(values, without)]
    prog = command if command == name else f"{command} {name}"
    own, changes = parse_arguments(groups, prog, rest, about)
    return build_recipe(name, values, changes), from_dict(options, own, "")
