"""A recipe's training step on fake tensors, which have shapes, dtypes and storages but no data.

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
from heptapod.nn.fused import rms_norm
from heptapod.nn.layers import Attention, Block, RMSNorm
from heptapod.nn.rotary import forget_tables
from heptapod.objective import Supervision, supervision_from
from heptapod.tools.planning.training_setup import TrainingSetup
from heptapod.utils.random import KeyedGenerator, Stream

Kernels = Literal["gpu", "cpu"]
"""The device whose attention kernels and autocast rules decide which tensors are saved for the backward pass."""


@contextmanager
def without_contents() -> Iterator[None]:
    """Makes every new tensor in this block a fake tensor, whose operations cost no time and no memory."""
    forget_tables()  # cached tables must not mix real and fake tensors
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            yield
    finally:
        forget_tables()


def meta_model(setup: TrainingSetup) -> HeptapodModel:
    """The recipe's model on the meta device."""
    with torch.device("meta"):
        return HeptapodModel(setup.recipe.model, setup.grid, setup.num_classes)


def fake_model(setup: TrainingSetup, block_dtype: torch.dtype = torch.float32) -> HeptapodModel:
    """The recipe's model with fake parameters; call it within :func:`without_contents`.

    Args:
        setup: the recipe.
        block_dtype: dtype of the block parameters, as FSDP gathers them.
    """
    model = meta_model(setup)
    of_blocks = {id(p) for block in model.modules() if isinstance(block, Block) for p in block.parameters()}
    for module in list(model.modules()):
        for name, parameter in list(module.named_parameters(recurse=False)):
            dtype = block_dtype if id(parameter) in of_blocks else parameter.dtype
            setattr(module, name, nn.Parameter(torch.empty(parameter.shape, dtype=dtype)))
    return model.train()


@dataclass
class FakeBatch:
    """A micro-batch on the device."""

    tokens: Tensor
    labels: Tensor
    supervision: Supervision
    generator: KeyedGenerator


class BatchShapes:
    """Shapes of a recipe's micro-batches; create it outside of fake mode, because it draws supervision once."""

    def __init__(self, setup: TrainingSetup, window: int | None) -> None:
        self.grid = setup.grid
        objective = setup.recipe.objective.for_head(setup.recipe.model.head.kind)
        generator = NullGenerator(2)
        self._supervision = supervision_from(generator, objective, self.grid.height, self.grid.width, window)

    def batch(self, images: int) -> FakeBatch:
        """A micro-batch of the given number of images; call it within :func:`without_contents`."""

        def resized(tensor: Tensor) -> Tensor:  # a first dimension of 1 is broadcast over the images
            return torch.empty(1 if len(tensor) == 1 else images, *tensor.shape[1:], dtype=tensor.dtype)

        real = self._supervision
        tensors = (real.token_order, real.prefix_lengths, real.targets, real.weights)
        supervision = Supervision(*map(resized, tensors))
        labels = torch.empty(images, dtype=torch.int64)
        return FakeBatch(self.grid.empty_tokens(images), labels, supervision, NullGenerator(images))


class NullGenerator(KeyedGenerator):
    """Zeros in place of random numbers and 0..n-1 in place of random orders: only shapes count, and drawing costs."""

    def __init__(self, images: int) -> None:
        super().__init__(Stream.LOSS, [()] * images)

    def uniform(self, num: int) -> Tensor:
        """(B, num) float32."""
        return torch.zeros(len(self), num)

    def normal(self, num: int) -> Tensor:
        """(B, num) float32."""
        return torch.zeros(len(self), num)

    def permutation(self, num: int) -> Tensor:
        """(B, num) int64."""
        return torch.arange(num).repeat(len(self), 1)


def checkpoint_blocks(model: nn.Module) -> None:
    """Makes every block save only its inputs and run again in the backward pass, as activation_checkpointing does."""
    for block in model.modules():
        if isinstance(block, Block):
            block.forward = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)


def use_gpu_kernels(model: nn.Module) -> None:
    """Makes attention and norms of a fake model save the tensors that the fused kernels of a GPU save."""
    for module in model.modules():
        if isinstance(module, RMSNorm):
            module.forward = partial(_norm_on_gpu, scale=module.weight, eps=module.eps)  # type: ignore[method-assign]
        if isinstance(module, Attention):
            module.norm = _norm_on_gpu
            module.attend = partial(_attend_on_gpu, module)  # type: ignore[method-assign]
        if isinstance(module, Block) and module.dropout:
            module._drop = partial(_drop_on_gpu, module.dropout)  # type: ignore[method-assign]


def _norm_on_gpu(x: Tensor, scale: Tensor, eps: float = 1e-6) -> Tensor:
    """The kernel of a GPU saves what :func:`rms_norm` does, its input; under autocast it computes in float32."""
    return rms_norm(x.float() if torch.is_autocast_enabled("cpu") else x, scale, eps)


def _drop_on_gpu(probability: float, branch: Tensor) -> Tensor:
    """Dropout as on a GPU, which saves a mask of one byte per value; that of a CPU has the dtype of the values."""
    out: Tensor = torch.native_dropout(branch, probability, True)[0]
    return out


def _attend_on_gpu(
    attention: Attention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    causal: bool = False,
) -> Tensor:
    """:meth:`Attention.attend` with the kernels that torch selects on a GPU.

    Flash attention in bfloat16 without a mask, otherwise the memory-efficient kernel, for which a mask becomes a bias
    in the dtype of the queries.
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
    """(B, K, Tq, Tk) by broadcasting; rows are padded in memory to a multiple of 8 elements, as the kernel requires."""
    bias = torch.where(mask, 0.0, -math.inf).to(query.dtype)
    if num_keys % 8:
        bias = nn.functional.pad(bias, (0, -num_keys % 8))[..., :num_keys]
    return bias.expand(*query.shape[:3], num_keys)


class GPUAutocast(TorchFunctionMode):
    """Norms under autocast in float32, as on a GPU (on a CPU they keep the dtype of their input)."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.layer_norm and torch.is_autocast_enabled("cpu"):
            args = tuple(x.float() if isinstance(x, Tensor) else x for x in args)
            kwargs = {name: x.float() if isinstance(x, Tensor) else x for name, x in (kwargs or {}).items()}
        return func(*args, **(kwargs or {}))
