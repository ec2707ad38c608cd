"""Optimizer, learning rate schedule and moving average of the weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from heptapod.training.config import TrainConfig


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


def learning_rate(config: TrainConfig, step: int) -> float:
    """Learning rate of a step (counted from 0): linear warm-up, then a cosine to the final ratio."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    cosine = (1 + math.cos(math.pi * min(1.0, progress))) / 2
    return config.learning_rate * (config.final_lr_ratio + (1 - config.final_lr_ratio) * cosine)


def optimizer_tensors(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as flat tensors, named ``<parameter>/<entry>``."""
    tensors = {}
    for name, parameter in module.named_parameters():
        for entry, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{name}/{entry}"] = torch.as_tensor(value)
    return tensors


def load_optimizer_tensors(module: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Restores what :func:`optimizer_tensors` gave."""
    parameters = dict(module.named_parameters())
    for key, value in tensors.items():
        name, _, entry = key.rpartition("/")
        parameter = parameters[name]
        if value.shape == parameter.shape:  # laid out in memory like the parameter, as the fused optimizer needs it
            optimizer.state[parameter][entry] = torch.empty_like(parameter, dtype=value.dtype).copy_(value).detach()
        else:
            optimizer.state[parameter][entry] = value.to(parameter.device).clone()


class EMA:
    """Exponential moving average of weights and buffers, kept as a second module.

    Args:
        module: what is averaged.
        decay: of the average, warmed up as (1 + n) / (10 + n) after n updates; 0 means no average at all.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.module = copy.deepcopy(module).eval().requires_grad_(False) if decay else module

    @torch.no_grad()
    def update(self, module: nn.Module, num_updates: int) -> None:
        """Moves the average towards the module; ``num_updates`` counts the updates before this one."""
        if not self.decay:
            return
        decay = min(self.decay, (1 + num_updates) / (10 + num_updates))
        theirs, own = module.state_dict(), self.module.state_dict()
        floating = [name for name, tensor in own.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([own[n] for n in floating], [theirs[n] for n in floating], 1 - decay)
        for name in own.keys() - set(floating):
            own[name].copy_(theirs[name])
