"""How a task is spread over processes and devices. The models know nothing of it.

Every process computes the losses of its share of a batch; PyTorch's engines average the gradients. With ``ddp``
(DistributedDataParallel) each holds all weights. With ``fsdp`` (FSDP2) each holds a share of them, and of gradients,
optimizer and moving average; a block is gathered when it is computed.
"""

from __future__ import annotations

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
from heptapod.nn.layers import Block
from heptapod.training.config import TrainConfig
from heptapod.training.task import LossOutput, TrainTask


def shards(config: TrainConfig) -> bool:
    """Whether weights are spread over several processes."""
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
    """A task whose losses are computed by several processes, or by one.

    Args:
        task: its module is changed in place: parameters may become shares of themselves, blocks are compiled or
            computed twice as the configuration says.
        config: strategy, activation checkpointing, compiling.
        device: where the module is.

    Raises:
        ValueError: for a task that cannot be sharded.
    """

    def __init__(self, task: TrainTask, config: TrainConfig, device: torch.device) -> None:
        module = task.module
        if config.activation_checkpointing:
            for block in _blocks(module, "activation_checkpointing"):
                _recompute(block)
        if config.compile:
            compiled: list[nn.Module] = [part for part in module.modules() if isinstance(part, Block | CellMLP)]
            for part in compiled or [module]:
                part.compile()
        self.losses: Callable[[Batch, int], LossOutput] = Losses(task)
        if shards(config):
            shard(module, config, init_device_mesh(device.type, (process_group.world_size(),)))
        elif process_group.is_distributed():
            # Of two adversaries one may have no part in a step.
            unused = len(task.parts) > 1
            self.losses = DistributedDataParallel(self.losses, find_unused_parameters=unused)

    def gradients(self, last: bool) -> AbstractContextManager[Any]:
        """The context of a micro-batch: with ddp the gradients of several are averaged at the last one.

        With fsdp at each: to keep them apart would take a gradient of the whole model in every process.
        """
        if isinstance(self.losses, DistributedDataParallel) and not last:
            return self.losses.no_sync()
        return nullcontext()


def _blocks(module: nn.Module, setting: str) -> list[Block]:
    blocks = [part for part in module.modules() if isinstance(part, Block)]
    if not blocks:
        raise ValueError(f"{setting} is for models, which are made of blocks; a tokenizer is small and does without")
    return blocks


def _recompute(block: Block) -> None:
    """Keeps only the input of a block for the backward pass, and computes the block again there."""
    forward = block.forward

    def twice(*inputs: Any, **options: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*inputs, **options)
        return checkpoint(forward, *inputs, use_reentrant=False, preserve_rng_state=False, **options)

    block.forward = twice


def shard(module: nn.Module, config: TrainConfig, mesh: DeviceMesh) -> None:
    """Spreads the parameters over the processes, block by block and the rest together.

    Under bfloat16 autocast the products of a block are computed in bfloat16 whatever its weights, so they are gathered
    as such (the gains of its norms too, which rounds them): half the traffic and memory. Gradients are averaged in
    float32.
    """
    half = config.precision == "bfloat16"
    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
    whole = MixedPrecisionPolicy(cast_forward_inputs=False)
    for block in _blocks(module, "strategy: fsdp"):
        fully_shard(block, mesh=mesh, mp_policy=policy if half else whole)
    fully_shard(module, mesh=mesh, mp_policy=whole)
