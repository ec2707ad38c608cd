"""Settings of the objective."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

from pydantic import Field

from heptapod.configs.grid import MAX_CELLS, TokenOrder
from heptapod.configs.models import HEADS
from heptapod.utils.config import settings

FAR_CELLS = 0.25
"""Default of far_cells, for heads that predict far cells apart from the next ones."""
FAR_WEIGHT = 0.2
"""Default of far_weight with far_cells."""
FAR_SETTINGS = (
    *("far_cells", "far_prefixes", "near_share", "group_size", "spread_share"),
    *("far_weight", "far_warmup", "far_decay"),
)
"""Settings of cells other than the next one, which depend on the head."""
Share = Annotated[float, Field(ge=0, le=1)]


@settings
class ObjectiveConfig:
    """Token order, supervised cells and their weights."""

    token_order: TokenOrder = "raster"
    """Order in which tokens are read: raster, a random permutation per image, or one of the two per image."""
    prefixes_per_image: Annotated[int, Field(ge=1, le=MAX_CELLS)] | Literal["all"] | None = None
    """S: random prefixes supervised per image and step, or all of them. Unset: all for a cross, next_token or local
    head, 1 for global, 32 for group."""
    targets_per_prefix: Annotated[int, Field(ge=1, le=MAX_CELLS)] | Literal["all"] | None = None
    """L: cells predicted per prefix, the next one and L-1 random other unread ones, or all unread. Unset: 1 for a cross
    or next_token head, 3 for local, all for global, groups of up to 8 for group."""
    far_cells: Annotated[float, Field(ge=0, le=16)] | None = None
    """Far cells (unread cells other than the next one) supervised per image and step besides the targets of the
    prefixes, as a multiple of the grid's cells: 0.25 adds one to every fourth prefix. Only for a cross head with
    targets_per_prefix 1. Unset: 0.25 there, else 0."""
    far_prefixes: Annotated[int, Field(ge=1, le=MAX_CELLS)] | None = None
    """Prefixes over which the far cells are spread evenly; unset: each has its own prefix."""
    near_share: Share = 0.0
    """Share of the far cells drawn from the neighbors of read cells; the others are drawn from all unread cells. For
    groups of random size: share of the groups in which such neighbors come first."""
    group_size: Literal["random", "fixed"] | None = None
    """Only for a head whose targets see each other (group). random: each prefix has from 1 to L targets, so that
    any number of cells per step can be sampled. fixed: always L. Unset: random where L is a number, fixed where it is
    all: then only all unread cells together are predicted as in training."""
    spread_share: Share = 0.5
    """Share of the groups of random size that are spread over the grid, as consecutive cells of the sampling order
    spread; the others are random."""
    far_weight: Annotated[float, Field(ge=0, le=100)] | Literal["uniform"] | None = None
    """Weight λ of the cells other than the next one: the loss is that of the next cell + λ · the mean of the others.
    uniform: the mean over all supervised cells of each prefix, as in the paper. Unset: 0.2 for far_cells, uniform
    for targets_per_prefix above 1."""
    far_warmup: Share = 0.0
    """Share of the training steps, at the start, that train on next cells only."""
    far_decay: Share = 0.0
    """Share of the training steps, at the end, in which λ falls linearly to 0."""
    label_dropout: Share = 0.1
    """Probability of training an image without its label."""

    def __post_init__(self) -> None:
        if self.far_weight == "uniform" and self.far_cells:
            raise ValueError(
                f"far_weight: uniform given, but far_cells ({self.far_cells:g}) are not targets of a prefix; must be a "
                "number"
            )
        if self.far_warmup + self.far_decay > 1:
            raise ValueError(
                f"far_decay: {self.far_decay:g} given with far_warmup {self.far_warmup:g}; together at most 1"
            )
        if self.far_cells and self.targets_per_prefix not in (None, 1):
            raise ValueError(
                f"far_cells: {self.far_cells:g} given, but targets_per_prefix is {self.targets_per_prefix}; must be 0, "
                "or set targets_per_prefix to 1"
            )

    def for_head(self, kind: str) -> ObjectiveConfig:
        """The same with every unset value filled in for a kind of head.

        Raises:
            ValueError: for values that the head does not support.
        """
        prefixes, targets = HEADS.fact(kind, "density")
        targets = self.targets_per_prefix or targets
        separate = HEADS.fact(kind, "separate_targets")
        if self.far_cells and not separate:
            raise ValueError(
                f"far_cells: {self.far_cells:g} given, but a {kind} head does not predict them apart from the next "
                "cells; must be 0 (set targets_per_prefix and far_weight)"
            )
        group_size = self.group_size
        if HEADS.fact(kind, "sees_targets"):
            group_size = group_size or ("fixed" if targets == "all" else "random")
        elif group_size is not None:
            raise ValueError(f"group_size: {group_size} given, but the targets of a {kind} head do not see each other")
        far_cells = self.far_cells
        if far_cells is None:
            far_cells = FAR_CELLS if separate and targets == 1 else 0.0
        far_weight = self.far_weight
        if far_weight is None and (far_cells or targets != 1):
            far_weight = FAR_WEIGHT if far_cells else "uniform"
        resolved = dataclasses.replace(
            self,
            prefixes_per_image=self.prefixes_per_image or prefixes,
            targets_per_prefix=targets,
            far_cells=far_cells,
            far_weight=far_weight,
            group_size=group_size,
        )
        resolved._check_effect()
        return resolved

    def _check_effect(self) -> None:
        """Refuses settings that change nothing, given the others."""
        groups = self.group_size == "random"
        scheduled = isinstance(self.far_weight, float)
        without_effect = {
            "far_prefixes": "far_cells is 0" if not self.far_cells else None,
            "near_share": "far_cells is 0" if not (self.far_cells or groups) else None,
            "spread_share": "there are no groups of random size" if self.spread_share != 0.5 and not groups else None,
            "far_weight": "only next cells are supervised"
            if scheduled and not self.far_cells and self.targets_per_prefix == 1
            else None,
            "far_warmup": f"far_weight is {self.far_weight}" if not scheduled else None,
            "far_decay": f"far_weight is {self.far_weight}" if not scheduled else None,
        }
        for name, why in without_effect.items():
            if why and getattr(self, name):
                default = getattr(ObjectiveConfig(), name)
                needed = "none" if default is None else f"{default:g}"
                raise ValueError(f"{name}: {getattr(self, name):g} given, but {why}; must be {needed}")

    def with_density(
        self, prefixes: int | Literal["all"], targets: int | Literal["all"], kind: str, own_kind: str
    ) -> ObjectiveConfig:
        """The same for another head or density.

        Settings of far cells and groups stay where the head is the own one and takes them; otherwise they are unset.

        Args:
            prefixes: S.
            targets: L.
            kind: the head.
            own_kind: the head for which these settings were made.
        """
        changes: dict[str, Any] = {"prefixes_per_image": prefixes, "targets_per_prefix": targets}
        if kind != own_kind or targets != (self.targets_per_prefix or HEADS.fact(kind, "density")[1]):
            defaults = ObjectiveConfig()
            changes |= {name: getattr(defaults, name) for name in FAR_SETTINGS}
        return dataclasses.replace(self, **changes)

    def far_scale(self, progress: float) -> float:
        """The factor of λ at a share of the training steps (0 to 1)."""
        if progress < self.far_warmup:
            return 0.0
        if self.far_decay and progress > 1 - self.far_decay:
            return max(0.0, (1 - progress) / self.far_decay)
        return 1.0
