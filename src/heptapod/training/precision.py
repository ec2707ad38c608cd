"""The arithmetic of a training: what ``precision: auto`` is on a device, and in a run that has begun."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch

from heptapod.distributed import process_group
from heptapod.training.config import TrainConfig
from heptapod.training.recipe import Recipe
from heptapod.utils.yaml_text import read_yaml

logger = logging.getLogger(__name__)

Arithmetic = Literal["float32", "bfloat16"]


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16. A processor without them is many times slower in it."""
    if device.type == "cpu":
        return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    if device.type == "cuda" and torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return True


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
    return resolve_tokenizer_precision(dataclasses.replace(recipe, train=train), device, logs=False)


def resolve_tokenizer_precision(recipe: Recipe, device: torch.device, logs: bool = True) -> Recipe:
    """As :func:`resolve_precision`, of the tokenizer's training only.

    Args:
        recipe: the recipe of a run.
        device: the device that trains.
        logs: say which precision it is, where that is not the usual.
    """
    files = [Path(recipe.out) / "tokenizer" / "config.yaml", Path(recipe.out) / "config.yaml"]
    train = _resolved(recipe.tokenizer.train, device, files, "tokenizer.train.precision", logs)
    return dataclasses.replace(recipe, tokenizer=dataclasses.replace(recipe.tokenizer, train=train))


def warn_if_slow(config: TrainConfig, device: torch.device, setting: str) -> None:
    """Warns about bfloat16 on a device that lacks it.

    Args:
        config: the settings, without auto.
        device: the device that trains.
        setting: the name of the precision's setting.
    """
    if config.precision == "bfloat16" and not has_bfloat16(device):
        logger.warning(
            f"{setting}: bfloat16, but this {_name(device)} has no instructions for it and takes many times as long as "
            "in float32; a new run with auto or float32 is faster"
        )


def _resolved(
    config: TrainConfig, device: torch.device, files: Sequence[Path], setting: str, logs: bool = True
) -> TrainConfig:
    if config.precision != "auto":
        return config

    def decide() -> Arithmetic:
        suits, began = arithmetic(config, device), _recorded(files, setting)
        if logs and began and began != suits:
            logger.info(f"{setting}: {began}, in which the run began")
        elif logs and suits == "float32" and not began:
            logger.info(f"{setting}: float32, because this {_name(device)} has no instructions for bfloat16")
        return began or suits

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
