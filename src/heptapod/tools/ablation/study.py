"""A study: its arms, its budgets and its measures."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from pydantic import Field

from heptapod.configs.distributions import DISTRIBUTIONS
from heptapod.configs.grid import MAX_CELLS, TokenOrder
from heptapod.configs.sampling import TRAINED_FOR, SamplingConfig
from heptapod.configs.tokenizers import MAX_STEPS
from heptapod.tools.ablation.arms import Arm, HeadArm
from heptapod.utils.checks import Seed
from heptapod.utils.config import from_dict, settings


@settings
class Budget:
    """Training length of every arm."""

    equal: Literal["time", "steps", "epochs"] = "time"
    """time: the time of the first arm's steps; steps: the same number of steps; epochs: as many passes over the
    training images."""
    steps: Annotated[int, Field(ge=10, le=MAX_STEPS)] = 1000
    """Steps of the first arm; without effect at equal epochs."""
    seeds: list[Seed] = field(default_factory=lambda: [0])
    """Seeds of the recipe: initial weights, order of the images, supervision."""
    arms: list[str] = field(default_factory=lambda: ["*"])
    """Names of the arms that take part; * and ? stand for anything."""
    epochs: Annotated[int, Field(ge=1, le=MAX_STEPS)] | None = None
    """Passes over the training images, for equal: epochs."""

    def __post_init__(self) -> None:
        if (self.equal == "epochs") != (self.epochs is not None):
            raise ValueError(f"epochs: {self.epochs or 'none'} given, with equal: {self.equal}; they belong together")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: {self.seeds} given, must be at least one, and all different")

    @property
    def name(self) -> str:
        """In folders and rows: time-1000."""
        return f"{self.equal}-{self.steps if self.epochs is None else self.epochs}"


def check_sampling(changes: dict[str, Any], setting: str) -> None:
    """Checks changes to the sampling of a study.

    Raises:
        ValueError: for an unknown setting, a value out of range, or a number of steps.
    """
    if "steps" in changes:
        raise ValueError(f"{setting}.steps: given, but sampling_steps sets it")
    from_dict(SamplingConfig, changes, setting)


@settings
class Measures:
    """Measures of every trained model."""

    nll_images: Annotated[int, Field(ge=2, le=MAX_STEPS)] = 1000
    """Held-out images for the likelihood (of a diffusion model: its loss). Arms in mixed order read them in raster."""
    orders: Annotated[int, Field(ge=1, le=1000)] = 1
    """With more than 1, also the likelihood of the mean of the probabilities over this number of orders of each image,
    for arms in random or mixed order."""
    far_images: Annotated[int, Field(ge=0, le=MAX_STEPS)] = 0
    """Held-out images for the likelihood of far cells, given the prefix alone, of heads that predict the grid; 0 for
    none."""
    test: str | None = None
    """A cache by the same tokenizer whose images are measured (likelihood, probe) in place of the held-out ones of the
    training, which choose the best weights."""
    weights: Literal["last", "best"] = "last"
    """last: the final weights; best: those with the lowest held-out loss, every arm at its own best point."""
    samples: Annotated[int, Field(ge=0, le=MAX_STEPS)] = 500
    """Sampled images per number of sampling steps, balanced over the classes; 0 for none."""
    sampling_steps: list[Annotated[int, Field(ge=0, le=MAX_CELLS)]] = field(default_factory=lambda: [0, 8])
    """Numbers of steps; 0 stands for one cell per step, the only one that a next_token head is measured at."""
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    """The recipe's if unset."""
    sampling: dict[str, Any] = field(default_factory=dict)
    """Changes to the recipe's sampling for all samples: {token_order: confidence, schedule: constant}."""
    copies: bool = False
    """Count the samples whose tokens agree with those of a training image in 90% of the cells; discrete tokens only."""
    reference: str | None = None
    """Real images that samples are compared with: a folder, parquet file(s), .tar shards or a built-in set. Needed for
    samples."""
    reference_images: Annotated[int, Field(ge=100, le=MAX_STEPS)] = 2000
    """Number of real images, chosen at random."""
    probe_images: Annotated[int, Field(ge=0, le=MAX_STEPS)] = 2000
    """Training images for the linear probe of every layer, and half as many held-out ones; 0 for none."""

    def __post_init__(self) -> None:
        for name in ("samples", "probe_images"):
            if getattr(self, name) < 0 or 0 < getattr(self, name) < 20:
                raise ValueError(f"{name}: {getattr(self, name)} given, must be 0 (not measured) or at least 20")
        if self.far_images == 1:
            raise ValueError("far_images: 1 given, must be 0 (not measured) or at least 2")
        if not self.sampling_steps or min(self.sampling_steps) < 0:
            raise ValueError(f"sampling_steps: {self.sampling_steps} given, must be numbers of at least 0, one or more")
        if self.samples and self.reference is None:
            raise ValueError("reference: none given, but samples are compared with real images; or set samples to 0")
        if self.weights == "best" and self.test is None:
            raise ValueError("weights: best given, which the held-out images choose; name other images as test")
        check_sampling(self.sampling, "sampling")
        if self.temperature is not None and "temperature" in self.sampling:
            raise ValueError("temperature: given, and in sampling as well; leave one out")


PLOTTED = {
    "objective.far_cells": ("separate_targets",),
    "objective.far_prefixes": ("separate_targets",),
    "objective.near_share": ("separate_targets", "sees_targets"),
    "objective.far_weight": ("predicts_grid",),
}
"""What ``plot_against`` may name, and the facts of which a head that takes the setting has one."""


@settings
class Study:
    """Heads × densities × orders × distributions, under budgets."""

    description: str = ""
    """The question of the study."""
    out: str = ""
    """Folder; empty means ablations/<study>."""
    imports: list[str] = field(default_factory=list)
    """Files (my_head.py) or modules that register heads or distributions; imported before the rest is read."""
    recipe: str = "cifar10"
    """The recipe of every run, except for the settings that the study varies."""
    changes: dict[str, Any] = field(default_factory=dict)
    """Changes to the recipe for all runs, nested as in a recipe."""
    codes: str | None = None
    """A cache of discrete tokens (heptapod tokenize), for categorical cells."""
    vectors: str | None = None
    """A cache of continuous tokens, for flow and diffusion."""
    heads: list[HeadArm] = field(default_factory=lambda: [HeadArm("next_token"), HeadArm("cross", densities=["all/3"])])
    """The heads; the others are compared with the first."""
    token_orders: list[TokenOrder] = field(default_factory=lambda: ["raster"])
    """Token orders."""
    distributions: list[str] = field(default_factory=lambda: ["categorical"])
    """Cell distributions."""
    budgets: list[Budget] = field(default_factory=lambda: [Budget()])
    """Budgets, in the order of the runs."""
    measures: Measures = field(default_factory=lambda: Measures(samples=0))
    """Measures."""
    plot_against: str | None = None
    """A setting of the objective that arms change, as objective.far_cells: the report plots the measures against it, a
    line per combination of their other changes."""

    def __post_init__(self) -> None:
        for name in ("heads", "token_orders", "distributions", "budgets"):
            if not getattr(self, name):
                raise ValueError(f"{name}: none given, at least one is needed")
        for kind in self.distributions:
            needed = "codes" if DISTRIBUTIONS.fact(kind, "is_discrete") else "vectors"
            if getattr(self, needed) is None:
                raise ValueError(f"{needed}: no cache given, but distributions has {kind}; see heptapod tokenize")
        names = [arm.name for arm in self.arms()]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"heads: {sorted(twice)[0]} is given twice; give one of them a name")
        for head in self.heads:
            self._check_arm(head)
        self._check_likelihoods()
        discrete = [DISTRIBUTIONS.fact(kind, "is_discrete") for kind in self.distributions]
        if self.measures.copies and not all(discrete):
            raise ValueError("measures.copies: true given, but a distribution of the study has continuous tokens")
        self._check_plot()
        for budget in self.budgets:
            for pattern in budget.arms:
                if not any(fnmatchcase(name, pattern) for name in names):
                    raise ValueError(f"budgets.arms: {pattern} fits no arm; there are {', '.join(names)}")

    def _check_likelihoods(self) -> None:
        measures = self.measures
        without = [kind for kind in self.distributions if not DISTRIBUTIONS.fact(kind, "has_likelihood")]
        for name, given, least in (("orders", measures.orders, 1), ("far_images", measures.far_images, 0)):
            if given > least and without:
                raise ValueError(f"measures.{name}: {given} given, but {without[0]} has no likelihood; must be {least}")
        if measures.orders > 1 and set(self.token_orders) == {"raster"}:
            raise ValueError(
                f"measures.orders: {measures.orders} given, but all arms read in raster order, of which there is one; "
                "must be 1"
            )

    def _check_plot(self) -> None:
        if self.plot_against is None:
            return
        if self.plot_against not in PLOTTED:
            raise ValueError(f"plot_against: {self.plot_against} given, must be one of {', '.join(PLOTTED)}")
        changed = [_at(head.changes, self.plot_against) for head in self.heads]
        if len({value for value in changed if isinstance(value, int | float)}) < 2:
            raise ValueError(
                f"plot_against: {self.plot_against} given, but the arms do not change it to two or more numbers"
            )

    def _check_arm(self, head: HeadArm) -> None:
        for steps, changes in head.sampling.items():
            if steps not in map(str, self.measures.sampling_steps):
                given = self.measures.sampling_steps
                raise ValueError(f"heads.sampling: {steps} given, must be one of measures.sampling_steps ({given})")
            check_sampling(changes, f"heads.sampling.{steps}")
        if self.measures.test is None and set(_at(head.changes, "data") or {}) - {"flip"}:
            raise ValueError(
                f"heads.changes.data: given for {head.title}, but arms are compared on the same held-out images; name "
                "other images as measures.test"
            )

    def arms(self) -> list[Arm]:
        """All arms, by distribution, order, head and density."""
        return [
            Arm(head, density, order, kind)
            for kind in self.distributions
            for order in self.token_orders
            for head in self.heads
            for density in head.densities
        ]


@dataclass(frozen=True)
class Run:
    """One training: an arm, a budget and a seed."""

    budget: Budget
    arm: Arm
    seed: int

    @property
    def name(self) -> str:
        """Folder inside the study's folder."""
        return f"runs/{self.budget.name}/{self.arm.name}/seed{self.seed}"


def all_runs(study: Study) -> list[Run]:
    """Every run, by budget and seed, so that early runs are comparable."""
    runs = [
        Run(budget, arm, seed)
        for budget in study.budgets
        for seed in budget.seeds
        for arm in study.arms()
        if any(fnmatchcase(arm.name, pattern) for pattern in budget.arms)
    ]
    return list({run.name: run for run in runs}.values())


def _at(values: Any, key: str) -> Any:
    """The value of a nested setting such as objective.far_cells; None if it is not there."""
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def sampling_changes(measures: Measures, head: HeadArm, steps: int) -> dict[str, Any]:
    """Changes to the recipe's sampling for an arm at one of the study's ``sampling_steps``."""
    given = {} if measures.temperature is None else {"temperature": measures.temperature}
    return given | measures.sampling | head.sampling.get(str(steps), {})


def check_order(arm: Arm, changes: dict[str, Any], reaches_grid: bool) -> None:
    """Checks that an arm can be sampled in the order that a study asks for.

    Raises:
        ValueError: if not; names the orders that it can.
    """
    order, able = changes.get("token_order"), TRAINED_FOR[arm.token_order]
    if not reaches_grid:
        able = tuple(name for name in able if name in ("raster", "random"))
    if order is not None and order not in able:
        raise ValueError(f"sampling.token_order: {order} given, but {arm.name} can be sampled as {' or '.join(able)}")
