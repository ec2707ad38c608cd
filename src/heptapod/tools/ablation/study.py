"""A study: its arms, its budgets, and the recipe of each run."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from pydantic import Field

from heptapod.configs.distributions import DISTRIBUTIONS, MAX_DEPTH
from heptapod.configs.grid import MAX_CELLS, TokenOrder
from heptapod.configs.models import HEADS
from heptapod.configs.tokenizers import MAX_STEPS
from heptapod.training.recipe import Recipe, load_recipe
from heptapod.utils.arguments import parse_arguments
from heptapod.utils.checks import Seed
from heptapod.utils.config import find_yaml, from_dict, merge, settings, shipped_names, to_dict
from heptapod.utils.extensions import import_extensions, read_imports
from heptapod.utils.options import Group
from heptapod.utils.yaml_text import read_yaml


@settings
class HeadArm:
    """A head, with the supervision densities it is trained at."""

    kind: str
    """As in model.head.kind."""
    window: Annotated[int, Field(ge=1, le=511)] | None = None
    """As in model.head.window."""
    depth: Annotated[int, Field(ge=0, le=MAX_DEPTH)] | None = None
    """Blocks of the head; the recipe's if unset."""
    backbone_depth: Annotated[int, Field(ge=0, le=MAX_DEPTH)] | None = None
    """Blocks of the backbone; the recipe's if unset. Lower it by as much as you raise depth."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Further settings of a registered head, as in model.head."""
    densities: list[str] = field(default_factory=list)
    """S/L, prefixes per image and targets per prefix: 8/4, all/3, 4/all. Of a next_token head it is all/1."""

    def __post_init__(self) -> None:
        if not self.densities:
            if HEADS.fact(self.kind, "predicts_grid"):
                raise ValueError(f"densities: none given for the {self.kind} head; name at least one, such as all/3")
            self.densities = ["all/1"]
        for density in self.densities:
            if not re.fullmatch(r"(all|[1-9]\d*)/(all|[1-9]\d*)", density):
                raise ValueError(f"densities: {density} given, must be S/L such as 8/4, all/3 or 4/all")
            if not HEADS.fact(self.kind, "predicts_grid") and not density.endswith("/1"):
                raise ValueError(f"densities: {density} given, but a {self.kind} head predicts one cell: S/1")

    @property
    def name(self) -> str:
        """For the names of arms."""
        depths = f"{self.depth or ''}of{self.backbone_depth or ''}" if self.depth or self.backbone_depth else ""
        settings = "".join(f"-{name}{value}" for name, value in self.settings.items())
        return f"{self.kind}{self.window or ''}{f'-d{depths}' if depths else ''}{settings}"


@settings
class Budget:
    """Training length of every arm."""

    equal: Literal["time", "steps"] = "time"
    """time: the time of the first arm's steps; steps: the same number of steps."""
    steps: Annotated[int, Field(ge=10, le=MAX_STEPS)] = 1000
    """Steps of the first arm."""
    seeds: list[Seed] = field(default_factory=lambda: [0])
    """Seeds of the recipe: initial weights, order of the images, supervision."""
    arms: list[str] = field(default_factory=lambda: ["*"])
    """Names of the arms that take part; * and ? stand for anything."""

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: {self.seeds} given, must be at least one, and all different")


@settings
class Measures:
    """Measures of every trained model."""

    nll_images: Annotated[int, Field(ge=2, le=MAX_STEPS)] = 1000
    """Held-out images for the likelihood (of a diffusion model: its loss)."""
    samples: Annotated[int, Field(ge=0, le=MAX_STEPS)] = 500
    """Sampled images per number of sampling steps, balanced over the classes; 0 for none."""
    sampling_steps: list[Annotated[int, Field(ge=0, le=MAX_CELLS)]] = field(default_factory=lambda: [0, 8])
    """Numbers of steps; 0 stands for one cell per step, the only one that a next_token head is measured at."""
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    """The recipe's if unset."""
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
        if not self.sampling_steps or min(self.sampling_steps) < 0:
            raise ValueError(f"sampling_steps: {self.sampling_steps} given, must be numbers of at least 0, one or more")
        if self.samples and self.reference is None:
            raise ValueError("reference: none given, but samples are compared with real images; or set samples to 0")


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
            raise ValueError(f"heads: {sorted(twice)[0]} is given twice")
        for budget in self.budgets:
            for pattern in budget.arms:
                if not any(fnmatchcase(name, pattern) for name in names):
                    raise ValueError(f"budgets.arms: {pattern} fits no arm; there are {', '.join(names)}")

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
class Arm:
    """One combination of head, density, order and distribution."""

    head: HeadArm
    density: str
    token_order: TokenOrder
    distribution: str

    @property
    def name(self) -> str:
        """Unique within a study."""
        kind = "" if self.distribution == "categorical" else f"-{self.distribution}"
        return f"{self.head.name}-{self.density.replace('/', '-')}-{self.token_order}{kind}"

    @property
    def label(self) -> str:
        """Name in tables and figures."""
        window = f" {self.head.window}×{self.head.window}" if self.head.window else ""
        depths = [f"{n} {what}" for n, what in ((self.head.backbone_depth, "+"), (self.head.depth, "deep")) if n]
        kind = "" if self.distribution == "categorical" else f", {self.distribution}"
        return f"{self.head.kind}{window}{' ' + ' '.join(depths) if depths else ''} {self.density}{kind}"


@dataclass(frozen=True)
class Run:
    """One training: an arm, a budget and a seed."""

    budget: Budget
    arm: Arm
    seed: int

    @property
    def name(self) -> str:
        """Folder inside the study's folder."""
        return f"runs/{self.budget.equal}-{self.budget.steps}/{self.arm.name}/seed{self.seed}"


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


VARIED = (
    "seed", "out", "data.path", "model.head.kind", "model.head.window", "model.distribution.kind",
    "objective.token_order", "objective.prefixes_per_image", "objective.targets_per_prefix", "train.steps",
)  # fmt: skip
"""Settings of a recipe that a study sets itself."""


def _contains(values: Any, path: list[str]) -> bool:
    first, *rest = path
    return isinstance(values, dict) and first in values and (not rest or _contains(values[first], rest))


def arm_recipe(study: Study, arm: Arm, seed: int = 0, steps: int | None = None, out: str = "") -> Recipe:
    """The recipe of an arm.

    Args:
        study: the study.
        arm: one of its arms.
        seed: seed of the run.
        steps: optimizer steps; None keeps those of the recipe.
        out: folder of the run.

    Raises:
        ValueError: for an unknown setting in the changes, or one that the study sets itself.
    """
    for key in VARIED:
        if _contains(study.changes, key.split(".")):
            raise ValueError(f"changes.{key}: given, but the study sets it")
    base = load_recipe(study.recipe)
    values = merge(to_dict(base), study.changes)
    prefixes, targets = (part if part == "all" else int(part) for part in arm.density.split("/"))
    head: dict[str, Any] = {"kind": arm.head.kind, "window": arm.head.window, **arm.head.settings}
    head["depth"] = arm.head.depth or values["model"]["head"]["depth"]
    values["model"] |= {"head": head, "depth": arm.head.backbone_depth or values["model"]["depth"]}
    if values["model"]["distribution"]["kind"] != arm.distribution:
        values["model"]["distribution"] = {"kind": arm.distribution}
    order = {"token_order": arm.token_order, "prefixes_per_image": prefixes, "targets_per_prefix": targets}
    values["objective"] |= order
    values["sampling"]["token_order"] = None
    values["data"]["path"] = study.codes if DISTRIBUTIONS.fact(arm.distribution, "is_discrete") else study.vectors
    values["imports"] = list(dict.fromkeys([*base.imports, *study.imports]))
    values |= {"seed": seed, "out": out, "description": f"{arm.label}, {arm.token_order} order"}
    if steps is not None:
        values["train"] |= _intervals(steps, values["train"])
    return from_dict(Recipe, values, f"study, arm {arm.name}")


def _intervals(steps: int, train: dict[str, Any]) -> dict[str, Any]:
    """Ten evaluations, five checkpoints and one sample grid per run; warm-up for at most a tenth of it."""
    tenth = -(-steps // 10)
    return {
        "steps": steps,
        "warmup_steps": min(train["warmup_steps"], tenth),
        "eval_every": tenth,
        "save_every": 2 * tenth,
        "preview_every": steps,
        "keep_last": 1,
    }


def study_names() -> list[str]:
    """Names of the shipped studies."""
    return shipped_names("study")


def load_study(name: str, overrides: Sequence[str] = ()) -> Study:
    """Loads a shipped study by name or a YAML file, and applies overrides such as ``--measures.samples 0``.

    Raises:
        FileNotFoundError: if there is no such study.
        ValueError: for an unknown setting or a value out of range.
    """
    values = read_study(name)
    return build_study(name, values, parse_arguments([Group(Study, values)], f"ablate {name}", overrides)[0])


def read_study(name: str) -> dict[str, Any]:
    """The settings in the file of a study; imports what it names. Raises like :func:`load_study`."""
    path = find_yaml("study", name)
    values = read_yaml(path)
    import_extensions(read_imports(values, str(path)))
    return values


def build_study(name: str, values: Mapping[str, Any], changes: Mapping[str, Any]) -> Study:
    """A study from the settings of its file and changes to them.

    Raises:
        ValueError: for an unknown setting, a value out of range, or an arm without a valid recipe.
    """
    study = from_dict(Study, merge(values, changes), f"study {name}")
    study = dataclasses.replace(study, out=study.out or f"ablations/{find_yaml('study', name).stem}")
    for arm in study.arms():
        arm_recipe(study, arm)
    return study
