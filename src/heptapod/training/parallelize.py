"""Distributes a task over ranks and devices. The models do not depend on it.

Every rank computes the losses of its part of a batch; PyTorch averages the gradients. With ``ddp``
(DistributedDataParallel) each rank holds all weights. With ``fsdp`` (FSDP2) weights, gradients, optimizer state and
moving average are sharded, and a block is gathered when it is computed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from heptapod.data.loader import Batch
from heptapod.distributed import process_group
from heptapod.distributions.cell_mlp import CellMLP
from heptapod.models.heads.cross import CrossHead
from heptapod.nn.layers import Block
from heptapod.training.config import TrainConfig
from heptapod.training.task import LossOutput, TrainTask
from heptapod.utils.machine import check_compiler, compiles_by_default

logger = logging.getLogger(__name__)

LONG_STEPS, LONG_MINUTES = 2000, 20.0
"""A training of this length is compiled by default on a GPU; compilation takes a minute."""


def shards(config: TrainConfig) -> bool:
    """Whether weights are sharded over several ranks."""
    return process_group.is_distributed() and config.strategy == "fsdp"


class Losses(nn.Module):
    """A task's losses as the forward pass of a module, which is what DistributedDataParallel wraps."""

    def __init__(self, task: TrainTask) -> None:
        super().__init__()
        self.module = task.module
        self._losses = task.losses

    def forward(self, batch: Batch, step: int) -> LossOutput:
        """See :meth:`TrainTask.losses`."""
        return self._losses(batch, step)


class Parallel:
    """A task whose losses are computed by one or several ranks.

    Args:
        task: its module is changed in place: parameters may become shards, and blocks are compiled or recomputed in
            the backward pass as the config says.
        config: strategy, activation checkpointing, compilation.
        device: the device of the module.

    Raises:
        ValueError: for a task that cannot be sharded.
    """

    def __init__(self, task: TrainTask, config: TrainConfig, device: torch.device) -> None:
        module = task.module
        if config.activation_checkpointing:
            for block in _blocks(module, "activation_checkpointing"):
                _recompute(block)
        parts = parts_to_compile(module, config, device)
        if config.flex_attention:
            _use_flex_attention(module, device, compiled=bool(parts))
        if parts:
            check_compiler("compile", device.type)
            logger.info("compiling: the first steps take a minute or more")
            for part in parts:
                part.compile()
        self.losses: Callable[[Batch, int], LossOutput] = Losses(task)
        if shards(config):
            shard(module, config, init_device_mesh(device.type, (process_group.world_size(),)))
        elif process_group.is_distributed():
            # With a discriminator, one of the two modules may be unused in a step.
            unused = len(task.parts) > 1
            self.losses = DistributedDataParallel(self.losses, find_unused_parameters=unused)

    def close(self) -> None:
        """Releases DistributedDataParallel, while others still hold the process group.

        Its reducer destroys the group with the GIL held if it is the last owner. The destructor of a gloo group joins
        threads that may wait for the GIL: a deadlock. The references of Python release the GIL before.
        """
        if isinstance(self.losses, DistributedDataParallel):
            self.losses = self.losses.module

    def gradients(self, last: bool) -> AbstractContextManager[Any]:
        """The context of a micro-batch: ddp averages gradients at the last micro-batch of a step only.

        fsdp averages them at each, because unaveraged gradients would need the size of the whole model on every rank.
        """
        if isinstance(self.losses, DistributedDataParallel) and not last:
            return self.losses.no_sync()
        return nullcontext()


def parts_to_compile(module: nn.Module, config: TrainConfig, device: torch.device) -> list[nn.Module]:
    """The parts that are compiled: the blocks of a model; a tokenizer whole, if the setting is true and not auto."""
    blocks: list[nn.Module] = [part for part in module.modules() if isinstance(part, Block | CellMLP)]
    if config.compile != "auto":
        return (blocks or [module]) if config.compile else []
    is_long = config.steps >= LONG_STEPS if config.minutes is None else config.minutes >= LONG_MINUTES
    return blocks if is_long and compiles_by_default(device) else []


def _use_flex_attention(module: nn.Module, device: torch.device, compiled: bool) -> None:
    heads = [part for part in module.modules() if isinstance(part, CrossHead)]
    if not heads:
        raise ValueError("flex_attention: true given, but it applies to models with a cross or group head only")
    if device.type != "cuda" or not compiled:
        raise ValueError(
            f"flex_attention: true given, but it needs a GPU and compile; the device is {device.type}, and the blocks "
            f"are {'' if compiled else 'not '}compiled"
        )
    for head in heads:
        head.flex_attention = True


def _blocks(module: nn.Module, setting: str) -> list[Block]:
    blocks = [part for part in module.modules() if isinstance(part, Block)]
    if not blocks:
        raise ValueError(f"{setting}: given for a tokenizer, but it applies to the blocks of a model only")
    return blocks


def _recompute(block: Block) -> None:
    """Keeps only the input of a block for the backward pass, and computes the block again there."""
    forward = block.forward

    def recomputed(*inputs: Any, **options: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*inputs, **options)
        return checkpoint(forward, *inputs, use_reentrant=False, preserve_rng_state=block.dropout > 0, **options)

    block.forward = recomputed


def shard(module: nn.Module, config: TrainConfig, mesh: DeviceMesh) -> None:
    """Shards the parameters over the ranks: each block separately, all other parameters together.

    Under bfloat16 autocast the matrix products of a block are computed in bfloat16, so its parameters are gathered in
    bfloat16 (also the gains of its norms, which rounds them): half the traffic and memory. Gradients are averaged in
    float32.
    """
    half = config.precision == "bfloat16"
    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
    whole = MixedPrecisionPolicy(cast_forward_inputs=False)
    for block in _blocks(module, "strategy: fsdp"):
        fully_shard(block, mesh=mesh, mp_policy=policy if half else whole)
    fully_shard(module, mesh=mesh, mp_policy=whole)
