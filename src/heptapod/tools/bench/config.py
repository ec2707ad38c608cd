"""Settings of the benchmarks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from heptapod.configs.grid import MAX_CODES
from heptapod.configs.models import HEADS, SIZES
from heptapod.training.recipe import Recipe
from heptapod.utils.checks import BatchSize
from heptapod.utils.config import settings

MODELS = {
    "cross": "Heptapod with a cross head: KV cache, a step computes only the cells it samples",
    "global": "Heptapod with a global head: the head runs over the whole grid at every step",
    "global_approximate": "the same with the head's states of read cells cached (approximate_head)",
    "next_token": "next-token decoding with a KV cache, one cell per step, the parameter count of cross (as LlamaGen)",
    "masked": "a bidirectional model with the same number of blocks, run in full at every step (as MAR)",
}
ALL = "all"
"""As many steps as cells."""
OWN = "own"
"""The recipe as it is."""


Density = int | Literal["all"]


@dataclass(frozen=True)
class TrainingVariant:
    """A head and a supervision density."""

    head: str
    prefixes: Density
    """S."""
    targets: Density
    """L."""

    @property
    def name(self) -> str:
        """As in ``--models``: global:4/all, next_token."""
        return (
            self.head if not HEADS.fact(self.head, "predicts_grid") else f"{self.head}:{self.prefixes}/{self.targets}"
        )


def parse_variant(text: str, recipe: Recipe) -> TrainingVariant:
    """Parses a value of ``--models``: own, next_token, or KIND:S/L.

    Raises:
        ValueError: for any other text.
    """
    if text == OWN:
        objective = recipe.objective.for_head(recipe.model.head.kind)
        assert objective.prefixes_per_image is not None
        assert objective.targets_per_prefix is not None
        return TrainingVariant(recipe.model.head.kind, objective.prefixes_per_image, objective.targets_per_prefix)
    if text in HEADS.kinds() and not HEADS.fact(text, "predicts_grid"):
        return TrainingVariant(text, "all", 1)
    match = re.fullmatch(r"([^:]+):(\d+|all)/(\d+|all)", text)
    kind = match.group(1) if match else ""
    if not match or "0" in match.groups() or kind not in HEADS.kinds() or not HEADS.fact(kind, "predicts_grid"):
        raise ValueError(
            f"models: {text} given, must be own, next_token, or a head with prefixes/targets such as global:4/all, "
            "local:8/all or cross:all/3"
        )
    prefixes, targets = (part if part == "all" else int(part) for part in match.groups()[1:])
    return TrainingVariant(match.group(1), prefixes, targets)  # type: ignore[arg-type]


@settings
class SamplingBench:
    """Settings of the sampling benchmark."""

    sizes: tuple[str, ...] = ("B",)
    """Named sizes: tiny, B, L, H. All models of one size are in memory at once (B: 0.7 GB each, L: 1.6 GB)."""
    models: tuple[str, ...] = tuple(MODELS)
    """cross, global, global_approximate (Heptapod's heads), next_token and masked (the baselines)."""
    grids: tuple[Annotated[int, Field(ge=1, le=256)], ...] = (8, 16, 32)
    """Cells per side: 8, 16 and 32 are N = 64, 256 and 1,024."""
    batches: tuple[BatchSize, ...] = (1, 8)
    """Images at a time."""
    steps: tuple[str, ...] = ("16", "64", ALL)
    """Numbers of sampling steps; all is one cell per step. next_token always has one cell per step."""
    precisions: tuple[Literal["float32", "bfloat16"], ...] = ("float32",)
    """Precisions of the weights. Rows in bfloat16 are compared with those in float32, where both are given."""
    repeats: Annotated[int, Field(ge=1, le=1000)] = 2
    """Runs of each row, fewer if they would take longer than max_seconds; the fastest counts."""
    max_seconds: Annotated[float, Field(gt=0, le=1e7)] = 40.0
    """Skip, and list, a row if one run is predicted to take longer."""
    vocabulary: Annotated[int, Field(ge=1, le=MAX_CODES)] = 16384
    """Codes per cell."""
    threads: Annotated[int, Field(ge=1, le=4096)] | None = None
    """CPU threads; torch's default if unset."""
    device: str = "auto"
    """auto, cpu, cuda, ..."""

    def check(self) -> None:
        """Validates the settings.

        Raises:
            ValueError: for an invalid setting; names it, its value and the valid ones.
        """
        for name, known in (("sizes", SIZES), ("models", MODELS)):
            for value in getattr(self, name):
                if value not in known:
                    raise ValueError(f"{name}: {value} given, must be among {', '.join(known)}")
        for value in self.steps:
            if value != ALL and not (value.isascii() and value.isdigit() and int(value) > 0):
                raise ValueError(f"steps: {value} given, must be numbers of at least 1, or {ALL}")
        for name in ("sizes", "models", "grids", "batches", "steps", "precisions"):
            if not getattr(self, name):
                raise ValueError(f"{name}: none given, must be at least one")


@settings
class TrainingBench:
    """Settings of the training benchmark."""

    models: tuple[str, ...] = (OWN, "next_token", "cross:all/3", "global:1/all", "global:4/4", "global:4/all")
    """Heads and supervision densities: own (the recipe's), next_token, or HEAD:PREFIXES/TARGETS such as global:4/all.
    All models are in memory at once."""
    rounds: Annotated[int, Field(ge=1, le=100_000)] = 10
    """Training steps of each model, in turns; the fastest counts. One more warms up."""
    max_seconds: Annotated[float, Field(gt=0, le=1e7)] = 60.0
    """Stop after the round in which this time is over. Skip, and list, a model whose first two steps would surely take
    longer."""
    threads: Annotated[int, Field(ge=1, le=4096)] | None = None
    """CPU threads; torch's default if unset. With one thread the CPU time of the process counts, not wall time."""
    memory: bool = True
    """Also measure peak memory (on a CPU in a separate process)."""

    def check(self, recipe: Recipe) -> list[TrainingVariant]:
        """The variants without duplicates.

        Raises:
            ValueError: for an invalid setting; names it, its value and the valid ones.
        """
        if not self.models:
            raise ValueError("models: none given, must be at least one")
        return list(dict.fromkeys(parse_variant(text, recipe) for text in self.models))
