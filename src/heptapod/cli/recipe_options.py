"""Commands that take a recipe with its settings and options of their own."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from heptapod.tools.planning.training_setup import SetupOverrides
from heptapod.training.recipe import recipe_names


@dataclass
class GridOptions:
    """What a recipe's data would tell, where they are not there."""

    grid: str | None = None
    """Rows x columns of the token grid (16x16), where the recipe's data and tokenizer do not tell."""
    codes: int | None = None
    """Codes of a discrete tokenizer, in place of the recipe's."""
    channels: int | None = None
    """Numbers per token of a continuous tokenizer, in place of the recipe's."""
    classes: int | None = None
    """Classes (0 for none), where the data are not there to tell."""

    def given(self, images: int | None = None) -> SetupOverrides:
        """As the planner takes them."""
        return SetupOverrides(self.grid, self.codes, self.channels, self.classes, images)


def recipe_first(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The name of a recipe, which comes first, and the other arguments.

    Raises:
        ValueError: if something else comes first.
    """
    name, *rest = arguments
    if name.startswith("-"):
        raise ValueError(f"a recipe comes first: {', '.join(recipe_names())}, or a .yaml file; then {name}")
    return name, rest


def split_options(arguments: Sequence[str], own: Collection[str]) -> tuple[list[str], list[str]]:
    """A command's own options, and the recipe's settings, each with the values that follow it."""
    options: list[str] = []
    settings: list[str] = []
    chosen = settings
    for argument in arguments:
        if argument.startswith("--"):
            key = argument[2:].partition("=")[0].replace("-", "_")
            chosen = options if key in own else settings
        chosen.append(argument)
    return options, settings
