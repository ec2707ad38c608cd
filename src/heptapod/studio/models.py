"""The models that a studio serves, on every device, and their descriptions for clients."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from heptapod import __version__
from heptapod.configs.sampling import Precision
from heptapod.inference.pipeline import Heptapod
from heptapod.inference.precision import dtype_name
from heptapod.inference.pretrained import find_pretrained, model_sha256
from heptapod.sampling import TRAINED_FOR
from heptapod.studio.runs import find_run
from heptapod.studio.schemas import Limits, ModelInfo, Served


@dataclass(frozen=True)
class ServedModel:
    """A model, on the first device, and where it comes from."""

    heptapod: Heptapod
    facts: dict[str, Any]
    """The model in the records of its images."""
    run: Path | None
    """Its run folder."""

    def info(self, name: str, has_evaluations: bool) -> ModelInfo:
        """The description of the model for clients."""
        heptapod, grid = self.heptapod, self.heptapod.model.grid
        return ModelInfo(
            name=name,
            class_names=heptapod.class_names,
            needs_label=bool(heptapod.class_names) and heptapod.label_dropout == 0,
            size=heptapod.image_size,
            grid=(grid.height, grid.width),
            factor=heptapod.tokenizer.factor,
            vocabulary_size=grid.vocabulary_size,
            channels=grid.channels,
            head=heptapod.model.config.head.kind,
            believes=heptapod.model.head.reaches_grid,
            token_order=heptapod.token_order,
            token_orders=list(TRAINED_FOR[heptapod.token_order]),
            sampling=heptapod.sampling_config(),
            uncertainty_name=heptapod.model.distribution.uncertainty_name,
            parameters=sum(parameter.numel() for parameter in heptapod.model.parameters()),
            about=heptapod.metadata,
            has_run=self.run is not None or has_evaluations,
        )


@dataclass(frozen=True)
class Collection:
    """All models of a studio."""

    models: dict[str, ServedModel]
    devices: list[dict[str, Heptapod]]
    """By name, once for every device."""
    device_names: list[str]
    evaluations: list[Path]
    """Folders with results of ``heptapod evaluate``."""

    def served(self, limits: Limits) -> Served:
        """The description of the server for clients."""
        infos = [model.info(name, bool(self.evaluations)) for name, model in self.models.items()]
        return Served(version=__version__, devices=self.device_names, models=infos, limits=limits)


def load_models(
    paths: Sequence[str],
    devices: Sequence[torch.device],
    evaluations: Sequence[str] = (),
    precision: Precision = "float32",
) -> Collection:
    """Loads models, named by their folders, onto every device.

    Raises:
        FileNotFoundError: if there is no such model or folder.
        ValueError: if one is damaged.
    """
    for folder in evaluations:
        if not Path(folder).is_dir():
            raise FileNotFoundError(f"evaluations: {folder} is no folder")
    models, copies = {}, [dict[str, Heptapod]() for _ in devices]
    for path, name in zip(paths, _names([Path(path) for path in paths]), strict=True):
        decided = precision  # once for all devices of a kind, so that a seed gives the same image on each
        for copy, device in zip(copies, devices, strict=True):
            copy[name] = Heptapod.from_pretrained(path, device, decided)
            if device.type == devices[0].type:
                decided = dtype_name(copies[0][name].model.dtype)
        facts = {"model": str(find_pretrained(Path(path))), "model_sha256": model_sha256(Path(path))}
        models[name] = ServedModel(copies[0][name], facts, find_run(find_pretrained(Path(path))))
    return Collection(models, copies, [str(device) for device in devices], [Path(folder) for folder in evaluations])


def _names(paths: Sequence[Path]) -> list[str]:
    """The last distinctive part of every path, numbered where two are equal."""
    names: list[str] = []
    for path in paths:
        full = path.resolve()
        name = full.parent.name if full.name in ("best", "last") else full.name
        numbered = (f"{name}-{number}" for number in itertools.count(2))
        names.append(name if name not in names else next(entry for entry in numbered if entry not in names))
    return names
