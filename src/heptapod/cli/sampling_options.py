"""The sampling config as options of a command."""

from __future__ import annotations

import dataclasses
import re
from typing import Annotated, Any

import tyro

from heptapod.configs.sampling import SamplingConfig
from heptapod.utils.optional import optional_fields

ModelFolder = Annotated[str, tyro.conf.arg(metavar="MODEL")]
"""The folder of a model, or of a run."""
OptionalModelFolder = Annotated[str | None, tyro.conf.arg(metavar="[MODEL]")]


def _option(name: str, kind: Any, doc: str) -> tuple[str, Any, Any]:
    if name == "schedule":
        kind, doc = str | None, f"{doc} Write a list as 1,2,4,8."
    return name, Annotated[kind, tyro.conf.arg(help=doc)], dataclasses.field(default=None)


_Options = dataclasses.make_dataclass(
    "_Options", [_option(name, *field) for name, field in optional_fields(SamplingConfig).items()], frozen=True
)


class SamplingOptions(_Options):  # type: ignore[misc, valid-type]
    """The sampling config; an option that is left out is as the model was saved."""

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
