"""Memory of a training step: the storages of all live tensors, counted during a step on fake tensors."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from heptapod.nn.layers import Block
from heptapod.objective import objective_loss
from heptapod.tools.planning.fake import (
    BatchShapes,
    GPUAutocast,
    Kernels,
    checkpoint_blocks,
    fake_model,
    meta_model,
    use_gpu_kernels,
    without_contents,
)
from heptapod.tools.planning.training_setup import TrainingSetup
from heptapod.training.precision import arithmetic


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all live tensors, each storage once.

    Attributes:
        bytes: bytes of the live storages that were allocated since the mode was entered.
        gradients: bytes of those marked as gradients.
        peak: maximum of ``bytes``.
        gradients_at_peak: ``gradients`` at that time.
    """

    def __init__(self, existing: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = self.peak = self.gradients = self.gradients_at_peak = 0
        self._known: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self._sizes: dict[int, int] = {}
        self._is_gradient: set[int] = set()
        for tensor in existing:
            self._add(tensor, count=False)

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in tree_leaves(out):
            if isinstance(value, Tensor):
                self._add(value)
        return out

    def gradient(self, tensor: Tensor) -> None:
        """Marks a tensor as a gradient."""
        key = id(tensor.untyped_storage())
        if key in self._sizes and key not in self._is_gradient:
            self._is_gradient.add(key)
            self.gradients += self._sizes[key]

    def _add(self, tensor: Tensor, count: bool = True) -> None:
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._known or tensor.device.type == "meta":  # seeds of attention kernels, a few bytes
            return
        size = storage.nbytes() if count else 0
        self._sizes[key] = size
        self._known[key] = weakref.ref(storage, lambda _: self._drop(key))
        self.bytes += size
        if self.bytes > self.peak:
            self.peak, self.gradients_at_peak = self.bytes, self.gradients

    def _drop(self, key: int) -> None:
        del self._known[key]
        size = self._sizes.pop(key)
        self.bytes -= size
        if key in self._is_gradient:
            self._is_gradient.remove(key)
            self.gradients -= size


@dataclass(frozen=True)
class StepMemory:
    """Bytes of one micro-batch, besides weights, optimizer and average."""

    activations: int
    """Saved between forward and backward pass, with the micro-batch."""
    peak: int
    """The maximum, with gradients and temporary tensors."""
    gradients_at_peak: int
    """Gradients at the peak."""


@dataclass(frozen=True)
class Variant:
    """A micro-batch and the options that change its memory."""

    images: int
    """In the micro-batch of one process."""
    checkpointing: bool = False
    """Blocks save only their inputs."""
    accumulates: bool = False
    """Gradients of earlier micro-batches exist."""
    sharded: bool = False
    """FSDP: block parameters are gathered in the training dtype, their gradients are reduced when they are computed."""
    kernels: Kernels = "gpu"


class MemoryModel:
    """Measures variants of a recipe's training step, each once.

    Args:
        setup: the recipe.
    """

    def __init__(self, setup: TrainingSetup) -> None:
        self.setup = setup
        self.shapes = BatchShapes(setup, meta_model(setup).head.window)
        self._measured: dict[Variant, StepMemory] = {}

    def step(self, variant: Variant) -> StepMemory:
        """Memory of a micro-batch."""
        if variant not in self._measured:
            with without_contents():
                self._measured[variant] = self._run(variant)
        return self._measured[variant]

    def _run(self, variant: Variant) -> StepMemory:
        is_bfloat16 = training_dtype(self.setup, variant.kernels) == torch.bfloat16
        model = fake_model(self.setup, training_dtype(self.setup) if variant.sharded else torch.float32)
        if variant.kernels == "gpu":
            use_gpu_kernels(model)
        if variant.checkpointing:
            checkpoint_blocks(model)
        with LiveBytes(model.parameters()) as live, GPUAutocast() if variant.kernels == "gpu" else nullcontext():
            _watch_gradients(model, live, variant)
            batch = self.shapes.batch(variant.images)
            with torch.autocast("cpu", torch.bfloat16, enabled=is_bfloat16):
                losses = objective_loss(model, batch.tokens, batch.labels, batch.supervision, batch.generator)
            loss = losses.sum() / variant.images
            del losses
            activations = live.bytes - live.gradients
            loss.backward()
        return StepMemory(activations, live.peak, live.gradients_at_peak)


def _watch_gradients(model: nn.Module, live: LiveBytes, variant: Variant) -> None:
    of_blocks = _block_parameters(model) if variant.sharded else set()

    def on_gradient(parameter: Tensor) -> None:
        if id(parameter) in of_blocks:
            parameter.grad = None  # reduced into this process's shard
        elif parameter.grad is not None:
            live.gradient(parameter.grad)

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(on_gradient)
        if variant.accumulates and id(parameter) not in of_blocks:
            parameter.grad = torch.empty_like(parameter)
            live.gradient(parameter.grad)


def _block_parameters(model: nn.Module) -> set[int]:
    return {id(p) for block in model.modules() if isinstance(block, Block) for p in block.parameters()}


def training_dtype(setup: TrainingSetup, kernels: Kernels = "gpu") -> torch.dtype:
    """The dtype of a block's matrix products, in which FSDP gathers its parameters; for auto bfloat16 on a GPU."""
    precision = setup.recipe.train.precision
    if precision == "auto" and kernels == "cpu":
        precision = arithmetic(setup.recipe.train, torch.device("cpu"))
    return torch.float32 if precision == "float32" else torch.bfloat16
