"""A recipe's training step on tensors without contents: shapes, types and storages are those of a real one.

Shape legend: B images, N cells, S prefixes, L targets, D width, K attention heads, E width of one head.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from heptapod.models.heptapod import HeptapodModel
from heptapod.nn.layers import Attention, Block
from heptapod.nn.rotary import forget_tables
from heptapod.objective import Supervision, draw_supervision
from heptapod.tools.planning.training_setup import TrainingSetup
from heptapod.utils.random import KeyedGenerator, Stream

Kernels = Literal["gpu", "cpu"]
"""Whose attention and autocast decide what is kept for the backward pass."""


@contextmanager
def without_contents() -> Iterator[None]:
    """In this block new tensors have no contents, and what is computed with them costs no time and no memory."""
    forget_tables()  # those of real tensors; and those made in here are of no use outside
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            yield
    finally:
        forget_tables()


def meta_model(training_setup: TrainingSetup) -> HeptapodModel:
    """The recipe's model on the meta device."""
    with torch.device("meta"):
        return HeptapodModel(training_setup.recipe.model, training_setup.grid, training_setup.num_classes)


def fake_model(training_setup: TrainingSetup, block_dtype: torch.dtype = torch.float32) -> HeptapodModel:
    """The recipe's model with parameters without contents; called within :func:`without_contents`.

    Args:
        training_setup: the recipe.
        block_dtype: type of the parameters of blocks, as FSDP gathers them.
    """
    model = meta_model(training_setup)
    of_blocks = {id(p) for block in model.modules() if isinstance(block, Block) for p in block.parameters()}
    for module in list(model.modules()):
        for name, parameter in list(module.named_parameters(recurse=False)):
            dtype = block_dtype if id(parameter) in of_blocks else parameter.dtype
            setattr(module, name, nn.Parameter(torch.empty(parameter.shape, dtype=dtype)))
    return model.train()


@dataclass
class FakeBatch:
    """What a micro-batch brings to the device."""

    tokens: Tensor
    labels: Tensor
    supervision: Supervision
    generator: KeyedGenerator


class BatchShapes:
    """Shapes of the micro-batches of a recipe; drawn once, with contents, so made outside of fake mode."""

    def __init__(self, training_setup: TrainingSetup, window: int | None) -> None:
        self.grid = training_setup.grid
        keys = [(0, 0, 0), (0, 0, 1)]
        self._drawn = draw_supervision(training_setup.recipe.objective, self.grid.height, self.grid.width, keys, window)

    def batch(self, images: int) -> FakeBatch:
        """A micro-batch of so many images; within :func:`without_contents`."""

        def alike(drawn: Tensor) -> Tensor:  # a first side of 1 is shared by all images, whatever their number
            return torch.empty(1 if len(drawn) == 1 else images, *drawn.shape[1:], dtype=drawn.dtype)

        drawn = self._drawn
        supervision = Supervision(
            *map(alike, (drawn.token_order, drawn.prefix_lengths, drawn.targets, drawn.mask)),
        )
        labels = torch.empty(images, dtype=torch.int64)
        return FakeBatch(self.grid.empty_tokens(images), labels, supervision, NullGenerator(images))


class NullGenerator(KeyedGenerator):
    """Gives tensors of the right shape in place of random numbers."""

    def __init__(self, images: int) -> None:
        super().__init__(Stream.LOSS, [()] * images)

    def uniform(self, num: int) -> Tensor:
        """(B, num) float32."""
        return torch.empty(len(self), num)

    def normal(self, num: int) -> Tensor:
        """(B, num) float32."""
        return torch.empty(len(self), num)


def checkpoint_blocks(model: nn.Module) -> None:
    """Lets every block keep its inputs only and run again in the backward pass, as activation_checkpointing does."""
    for block in model.modules():
        if isinstance(block, Block):
            block.forward = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)


def use_gpu_kernels(model: nn.Module) -> None:
    """Lets attention of a fake model keep what the fused kernels of a GPU keep."""
    for attention in model.modules():
        if isinstance(attention, Attention):
            attention.attend = partial(_attend_on_gpu, attention)  # type: ignore[method-assign]


def _attend_on_gpu(
    attention: Attention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    causal: bool = False,
) -> Tensor:
    """As :meth:`Attention.attend`, by the kernels that torch takes on a GPU.

    Flash attention in bfloat16 without a mask, else the memory-efficient kernel, for which a mask becomes a bias of the
    queries' type.
    """
    if torch.is_autocast_enabled("cpu"):
        query, key, value = (x.to(torch.bfloat16) for x in (query, key, value))
    ops = torch.ops.aten
    x: Tensor
    if mask is None and query.dtype == torch.bfloat16:
        x = ops._scaled_dot_product_flash_attention(query, key, value, 0.0, causal)[0]
    else:
        bias = None if mask is None else _bias(mask, query, key.shape[2])
        x = ops._scaled_dot_product_efficient_attention(query, key, value, bias, True, 0.0, causal)[0]
    out: Tensor = attention.out(x.transpose(1, 2).flatten(2))
    return out


def _bias(mask: Tensor, query: Tensor, num_keys: int) -> Tensor:
    """(B, K, Tq, Tk) by broadcasting; rows are padded in memory to a multiple of 8 numbers, as the kernel wants."""
    bias = torch.where(mask, 0.0, -math.inf).to(query.dtype)
    if num_keys % 8:
        bias = nn.functional.pad(bias, (0, -num_keys % 8))[..., :num_keys]
    return bias.expand(*query.shape[:3], num_keys)


class GPUAutocast(TorchFunctionMode):
    """Norms under autocast as on a GPU: in float32 (on a CPU they keep the type of what comes in)."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in (torch.rms_norm, torch.layer_norm) and torch.is_autocast_enabled("cpu"):
            args = tuple(x.float() if isinstance(x, Tensor) else x for x in args)
            kwargs = {name: x.float() if isinstance(x, Tensor) else x for name, x in (kwargs or {}).items()}
        return func(*args, **(kwargs or {}))
