"""The arithmetic of a training: what ``precision: auto`` is on a device, and in a run that has begun."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch

from heptapod.distributed import process_group
from heptapod.distributed.device import has_bfloat16
from heptapod.training.config import TrainConfig
from heptapod.training.recipe import Recipe
from heptapod.utils.yaml_text import read_yaml

logger = logging.getLogger(__name__)

Arithmetic = Literal["float32", "bfloat16"]


def arithmetic(config: TrainConfig, device: torch.device) -> Arithmetic:
    """The precision of a training on a device: that of its settings, or for auto the one that suits the device."""
    if config.precision != "auto":
        return config.precision
    return "bfloat16" if has_bfloat16(device) else "float32"


def with_arithmetic(config: TrainConfig, device: torch.device) -> TrainConfig:
    """The settings of a training on a device, with auto replaced."""
    return dataclasses.replace(config, precision=arithmetic(config, device))


def resolve_precision(recipe: Recipe, device: torch.device) -> Recipe:
    """The recipe with the precision of both trainings in place of auto; all ranks get that of rank 0.

    A run keeps the precision that it began with, on whatever device it is resumed. A new one takes that of its device.

    Args:
        recipe: the recipe of a run.
        device: the device that trains.
    """
    train = _resolved(recipe.train, device, [Path(recipe.out) / "config.yaml"], "train.precision")
    return resolve_tokenizer_precision(dataclasses.replace(recipe, train=train), device)


def resolve_tokenizer_precision(recipe: Recipe, device: torch.device) -> Recipe:
    """As :func:`resolve_precision`, of the tokenizer's training only.

    Args:
        recipe: the recipe of a run.
        device: the device that trains.
    """
    files = [Path(recipe.out) / "tokenizer" / "config.yaml", Path(recipe.out) / "config.yaml"]
    train = _resolved(recipe.tokenizer.train, device, files, "tokenizer.train.precision")
    return dataclasses.replace(recipe, tokenizer=dataclasses.replace(recipe.tokenizer, train=train))


def log_precision(config: TrainConfig, device: torch.device, setting: str) -> None:
    """Says which precision it is on a device that lacks bfloat16; warns where it is bfloat16.

    Args:
        config: the settings, without auto.
        device: the device that trains.
        setting: the name of the precision's setting.
    """
    if has_bfloat16(device):
        return
    if config.precision == "float32":
        logger.info(f"{setting}: float32; this {_name(device)} has no instructions for bfloat16")
    else:
        logger.warning(
            f"{setting}: bfloat16, but this {_name(device)} has no instructions for it and takes many times as long as "
            "in float32; a new run with auto or float32 is faster"
        )


def _resolved(config: TrainConfig, device: torch.device, files: Sequence[Path], setting: str) -> TrainConfig:
    if config.precision != "auto":
        return config

    def decide() -> Arithmetic:
        return _recorded(files, setting) or arithmetic(config, device)

    return dataclasses.replace(config, precision=process_group.broadcast_result(decide))


def _recorded(files: Sequence[Path], setting: str) -> Arithmetic | None:
    """The precision in the first of a run's files that names one."""
    for file in files:
        value: Any = read_yaml(file) if file.is_file() else None
        for key in setting.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if value in ("float32", "bfloat16"):
            return cast("Arithmetic", value)
    return None


def _name(device: torch.device) -> str:
    return "CPU" if device.type == "cpu" else "GPU"
