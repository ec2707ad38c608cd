"""Optimizer, learning rate schedule and moving average of the weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from heptapod.training.config import TrainConfig
from heptapod.utils.weights import plain_name


def build_optimizer(module: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW with weight decay on the weights of linear and convolutional layers only."""
    decayed = {id(child.weight) for child in module.modules() if isinstance(child, nn.Linear | nn.Conv2d)}
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for parameter in module.parameters():
        groups[id(parameter) in decayed].append(parameter)
    return torch.optim.AdamW(
        [
            {"params": groups[True], "weight_decay": config.weight_decay},
            {"params": groups[False], "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        fused=True,
    )


def learning_rate(config: TrainConfig, step: int, progress: float | None = None) -> float:
    """Learning rate of a step (counted from 0): linear warm-up, then a cosine to the final ratio.

    Args:
        config: the loop's settings.
        step: the step.
        progress: the place on the cosine, 0 to 1, also during the warm-up; by default by the steps after it.
    """
    if progress is not None:
        return min(1.0, (step + 1) / max(1, config.warmup_steps)) * _cosine(config, progress)
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    return _cosine(config, (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps))


def _cosine(config: TrainConfig, progress: float) -> float:
    cosine = (1 + math.cos(math.pi * min(1.0, progress))) / 2
    return config.learning_rate * (config.final_lr_ratio + (1 - config.final_lr_ratio) * cosine)


def optimizer_tensors(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as flat tensors, named ``<parameter>/<entry>``."""
    tensors = {}
    for name, parameter in module.named_parameters():
        for entry, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{plain_name(name)}/{entry}"] = torch.as_tensor(value)
    return tensors


def empty_optimizer_tensors(
    module: nn.Module, optimizer: torch.optim.Optimizer, shapes: Mapping[str, torch.Size]
) -> dict[str, Tensor]:
    """Allocates the state that :func:`optimizer_tensors` describes, to load a checkpoint into it.

    Args:
        module: the trained module.
        optimizer: an optimizer without state.
        shapes: name and shape of every entry.

    Raises:
        ValueError: for a parameter the module does not have.
    """
    parameters = {plain_name(name): parameter for name, parameter in module.named_parameters()}
    for key, shape in shapes.items():
        name, _, entry = key.rpartition("/")
        if name not in parameters:
            raise ValueError(f"weights of another architecture: the optimizer's state has unknown {name}")
        parameter = parameters[name].detach()
        # Same memory layout (and sharding) as the parameter, which the fused optimizer requires.
        like = torch.zeros_like(parameter) if shape == parameter.shape else torch.zeros(shape, device=parameter.device)
        optimizer.state[parameters[name]][entry] = like
    return optimizer_tensors(module, optimizer)


class EMA:
    """Exponential moving average of weights and buffers.

    Args:
        module: the unsharded module to average.
        decay: decay of the average, warmed up as (1 + n) / (10 + n) after n updates; 0 disables the average.
        sharded: the module will be sharded; call :meth:`shard` afterwards.
    """

    def __init__(self, module: nn.Module, decay: float, sharded: bool = False) -> None:
        self.decay = decay
        self._whole = copy.deepcopy(module).eval().requires_grad_(False) if decay or sharded else module
        self._is_sharded = sharded
        self.tensors: dict[str, Tensor] = self._whole.state_dict()

    def shard(self, module: nn.Module) -> None:
        """Shards the average like the weights of the module."""
        self._whole.to("meta")
        state = module.state_dict()
        self.tensors = {name: tensor.clone() for name, tensor in state.items()} if self.decay else state

    @contextmanager
    def whole(self) -> Iterator[nn.Module]:
        """The averaged module, gathered while the context is open; a collective, which all ranks must enter."""
        if not self._is_sharded:
            yield self._whole
            return
        gathered = {name: t.full_tensor() if isinstance(t, DTensor) else t for name, t in self.tensors.items()}
        self._whole.load_state_dict(gathered, assign=True)
        try:
            yield self._whole
        finally:
            self._whole.to("meta")

    @torch.no_grad()
    def update(self, module: nn.Module, num_updates: int) -> None:
        """Moves the average towards the module; ``num_updates`` counts the updates before this one."""
        if not self.decay:
            return
        decay = min(self.decay, (1 + num_updates) / (10 + num_updates))
        weights, averages = module.state_dict(), self.tensors
        floating = [name for name, tensor in averages.items() if tensor.is_floating_point()]
        lerp_all_([averages[n] for n in floating], [weights[n] for n in floating], 1 - decay)
        for name in averages.keys() - set(floating):
            averages[name].copy_(weights[name])


def lerp_all_(tensors: list[Tensor], ends: list[Tensor], weight: float) -> None:
    """Interpolates tensors in place; in one call if torch has its (private) operator for lists."""
    if hasattr(torch, "_foreach_lerp_"):
        torch._foreach_lerp_(tensors, ends, weight)
        return
    for tensor, end in zip(tensors, ends, strict=True):
        tensor.lerp_(end, weight)
