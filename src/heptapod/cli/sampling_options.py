"""The settings of sampling as arguments of a command."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import tyro

from heptapod.distributions.base import Solver
from heptapod.sampling.order import SamplingOrder
from heptapod.utils.config import settings

ModelFolder = Annotated[str, tyro.conf.arg(metavar="MODEL")]
"""The folder of a model, or of a run."""
OptionalModelFolder = Annotated[str | None, tyro.conf.arg(metavar="[MODEL]")]


@settings
class SamplingOptions:
    """How cells are drawn; what is left out is as the model was saved with."""

    steps: int | None = None
    """Sampling steps; the model's default if left out (usually one cell per step)."""
    temperature: float | None = None
    """Below 1 sharpens the distribution of every cell; 0 takes the most likely code. Of a continuous model it scales
    the noise."""
    top_k: int | None = None
    """Keep only the k most likely codes of each cell."""
    top_p: float | None = None
    """Keep only the most likely codes that together have this probability."""
    token_order: SamplingOrder | None = None
    """Order in which cells are filled (spiral: from the center outwards, confidence: the most certain ones next); the
    trained one if left out."""
    schedule: str | None = None
    """Cells per step: few at first and many at the end (cosine), constant, or your own numbers (1,2,4,...) whose sum is
    the number of cells to fill."""
    preset: Literal["default", "fast"] | None = None
    """How a continuous model draws its vectors: default, or fast for some loss of quality."""
    cell_solver: Solver | None = None
    """Instead of the preset's: ancestral or ddim for diffusion, euler or heun for a flow."""
    cell_steps: int | None = None
    """Instead of the preset's: steps in which each vector is drawn."""
    approximate_head: bool | None = None
    """Only for a global head: keep the states of read cells between steps (True). Faster, not the exact prediction."""

    def given(self) -> dict[str, Any]:
        """The settings that were given."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        if self.schedule is not None and self.schedule not in ("cosine", "constant"):
            if not re.fullmatch(r"\s*[0-9]+\s*(,\s*[0-9]+\s*)*", self.schedule):
                raise ValueError(f"schedule: {self.schedule!r} given, must be cosine, constant or numbers like 1,2,4,8")
            given["schedule"] = [int(count) for count in self.schedule.split(",")]
        return given


def number_pair(name: str, text: str, separator: str, form: str) -> tuple[int, int]:
    """Two whole numbers given as one argument, for example HEIGHTxWIDTH.

    Raises:
        ValueError: naming the argument and its form.
    """
    match = re.fullmatch(rf"(-?[0-9]{{1,6}}){separator}(-?[0-9]{{1,6}})", text.strip())
    if match is None:
        raise ValueError(f"{name}: {text} given, must be {form} in pixels")
    return int(match[1]), int(match[2])
