"""The arms of a study: heads with their densities, and custom settings."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field

from heptapod.configs.distributions import MAX_DEPTH
from heptapod.configs.grid import TokenOrder
from heptapod.configs.models import HEADS
from heptapod.utils.config import settings


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
    """S/L, prefixes per image and targets per prefix: 8/4, all/3, 4/all. Unset: the head's default, which is all/1 for
    next_token and cross (with far cells) and 1/all for global."""
    name: str | None = None
    """Name of the arm in place of its head's, in tables, folders and budgets.arms: letters, digits, - _ and dots."""
    changes: dict[str, Any] = field(default_factory=dict)
    """Changes to the recipe of this arm alone, nested as in a recipe, after those of the study; give such an arm a
    name."""
    sampling: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Changes to measures.sampling for this arm at some of the sampling_steps: {"64": {token_order: raster}}."""

    def __post_init__(self) -> None:
        if self.name is not None and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", self.name):
            raise ValueError(f"name: {self.name} given, must consist of letters, digits, - _ and dots")
        if self.changes and self.name is None:
            raise ValueError(f"name: none given, but the {self.kind} head has changes; name the arm")
        if fixed := self.settings.keys() & {"kind", "window", "depth"}:
            raise ValueError(
                f"settings.{min(fixed)}: given for {self.kind}, but {min(fixed)} is a setting of the arm itself"
            )
        if not self.densities:
            self.densities = ["/".join(map(str, HEADS.fact(self.kind, "density")))]
        for density in self.densities:
            if not re.fullmatch(r"(all|[1-9]\d*)/(all|[1-9]\d*)", density):
                raise ValueError(f"densities: {density} given, must be S/L such as 8/4, all/3 or 4/all")
            if not HEADS.fact(self.kind, "predicts_grid") and not density.endswith("/1"):
                raise ValueError(f"densities: {density} given, but a {self.kind} head predicts one cell: S/1")

    @property
    def title(self) -> str:
        """For the names of arms."""
        if self.name is not None:
            return self.name
        depths = f"{self.depth or ''}of{self.backbone_depth or ''}" if self.depth or self.backbone_depth else ""
        settings = "".join(f"-{name}{value}" for name, value in self.settings.items())
        return f"{self.kind}{self.window or ''}{f'-d{depths}' if depths else ''}{settings}"

    @property
    def description(self) -> str:
        """For tables and figures: the head, its sizes and settings, without its name."""
        window = f" {self.window}×{self.window}" if self.window else ""
        depths = [f" {n} {what}" for n, what in ((self.backbone_depth, "+"), (self.depth, "deep")) if n]
        settings = [f" {name} {value}" for name, value in self.settings.items()]
        return f"{self.kind}{window}{''.join(depths + settings)}"


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
        return f"{self.head.title}-{self.density.replace('/', '-')}-{self.token_order}{kind}"

    @property
    def label(self) -> str:
        """Name in tables and figures."""
        return self._label(self.head.name or self.head.description)

    @property
    def description(self) -> str:
        """The label of an arm without a name: its head, sizes and settings."""
        return self._label(self.head.description)

    def _label(self, head: str) -> str:
        kind = "" if self.distribution == "categorical" else f", {self.distribution}"
        return f"{head} {self.density}{kind}"
