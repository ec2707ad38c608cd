"""Memory per GPU: the need of an option, whether it fits, and the options that would fit."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import torch

from heptapod.nn.layers import Block
from heptapod.tools.planning.fake import Kernels, meta_model
from heptapod.tools.planning.gpus import GIB
from heptapod.tools.planning.memory import MemoryModel, StepMemory, Variant, training_dtype
from heptapod.tools.planning.training_setup import TrainingSetup

FLOAT32 = 4
MOMENTS = 2
"""Float32 values per parameter in the state of AdamW."""
USABLE = 0.9
"""Share of a GPU's memory available to training. The rest is for the driver's context, library workspaces,
communication between GPUs and fragmentation."""


@dataclass(frozen=True)
class MemoryOption:
    """Strategy, activation checkpointing and accumulation: they change the memory, not the result.

    The masks of model.dropout are an exception: they depend on the accumulation.
    """

    strategy: Literal["ddp", "fsdp"]
    checkpointing: bool
    accumulation: int

    def settings(self) -> str:
        """The option as overrides of a recipe."""
        parts = [f"--train.accumulation {self.accumulation}"]
        parts += ["--train.strategy fsdp"] if self.strategy == "fsdp" else []
        parts += ["--train.activation_checkpointing"] if self.checkpointing else []
        return " ".join(parts)


@dataclass(frozen=True)
class GPUMemory:
    """Bytes on one GPU at the peak of a training step."""

    weights: int
    optimizer: int
    average: int
    """Exponential moving average of the weights."""
    gradients: int
    """Gradients that exist at the peak. With accumulation 1 they are allocated while activations are freed."""
    shared: int
    """Communication buffers of several GPUs. ddp: the gradient buckets, as large as the gradients. fsdp: the gathered
    parameters outside of blocks, and those of the blocks in use."""
    activations: int
    """Activations of one micro-batch, with the temporary tensors at the peak."""
    evaluation: int
    """The peak of an evaluation, which under fsdp gathers the averaged weights."""

    @property
    def training(self) -> int:
        """The peak of a training step."""
        state = self.weights + self.optimizer + self.average + self.gradients
        return state + self.shared + self.activations

    @property
    def peak(self) -> int:
        """The peak of a run."""
        return max(self.training, self.evaluation)


class Budget:
    """Memory of training a recipe on a number of GPUs.

    Args:
        setup: the recipe and its data.
        gpus: number of GPUs that share a batch.
        kernels: the device whose attention kernels decide which tensors are saved for the backward pass.

    Raises:
        ValueError: if the batch cannot be split among the GPUs.
    """

    def __init__(self, setup: TrainingSetup, gpus: int, kernels: Kernels = "gpu") -> None:
        check_share(setup, gpus)
        self.setup = setup
        self.gpus = gpus
        self.kernels = kernels
        self._model = MemoryModel(setup)
        model = meta_model(setup)
        self.parameters = sum(p.numel() for p in model.parameters())
        blocks = [sum(p.numel() for p in block.parameters()) for block in model.modules() if isinstance(block, Block)]
        self.outside_blocks = self.parameters - sum(blocks)
        self.largest_block = max(blocks)
        self.has_average = setup.recipe.train.ema_decay > 0

    @property
    def configured_option(self) -> MemoryOption:
        """The option in the recipe."""
        train = self.setup.recipe.train
        return MemoryOption(train.strategy, train.activation_checkpointing, train.accumulation)

    @property
    def accumulations(self) -> list[int]:
        """Every number of micro-batches into which a GPU's share of the batch can be split."""
        share = self.setup.recipe.train.batch_size // self.gpus
        return [number for number in range(1, share + 1) if share % number == 0]

    def micro_batch(self, option: MemoryOption) -> int:
        """Images of a micro-batch on one GPU."""
        return self.setup.recipe.train.batch_size // (self.gpus * option.accumulation)

    def step(self, option: MemoryOption) -> StepMemory:
        """Memory of a micro-batch, without weights, optimizer and average."""
        variant = Variant(
            self.micro_batch(option), option.checkpointing, option.accumulation > 1, self._shards(option), self.kernels
        )
        return self._model.step(variant)

    def memory(self, option: MemoryOption) -> GPUMemory:
        """Bytes on one GPU."""
        step = self.step(option)
        shards = self.gpus if self._shards(option) else 1
        weights = FLOAT32 * -(-self.parameters // shards)
        average = weights if self.has_average else 0
        gradients, whole_average = step.gradients_at_peak, 0
        shared = weights if self.gpus > 1 else 0
        if self._shards(option):
            gradients += weights
            shared = self._gathered()
            whole_average = FLOAT32 * self.parameters
        return GPUMemory(
            weights=weights,
            optimizer=MOMENTS * weights,
            average=average,
            gradients=gradients,
            shared=shared,
            activations=step.peak - step.gradients_at_peak,
            evaluation=(2 + MOMENTS) * weights + average + (whole_average or shared),
        )

    def _shards(self, option: MemoryOption) -> bool:
        return option.strategy == "fsdp" and self.gpus > 1

    def _gathered(self) -> int:
        """The root group in float32, two blocks (the current and the next one), and one block's float32 gradients."""
        block = 2 * _size(training_dtype(self.setup)) + FLOAT32
        return FLOAT32 * self.outside_blocks + block * self.largest_block

    def fits(self, option: MemoryOption, memory_gib: float) -> bool:
        """Whether an option fits the usable memory of a GPU."""
        return self.memory(option).peak <= USABLE * memory_gib * GIB

    def smallest_accumulation(self, option: MemoryOption, memory_gib: float) -> MemoryOption | None:
        """The option with the largest micro-batches that fit; None if even single images do not fit."""
        options = [dataclasses.replace(option, accumulation=number) for number in self.accumulations]
        if self.fits(options[0], memory_gib):
            return options[0]
        if not self.fits(options[-1], memory_gib):
            return None
        low, high = 1, len(options) - 1  # memory falls with the accumulation: bisect for the first that fits
        while low < high:
            middle = (low + high) // 2
            if self.fits(options[middle], memory_gib):
                high = middle
            else:
                low = middle + 1
        return options[high]

    def remedies(self, memory_gib: float) -> list[MemoryOption]:
        """The options that fit where the recipe's does not, cheapest first."""
        own = self.configured_option
        options = [own, dataclasses.replace(own, checkpointing=True)]
        if self.gpus > 1:
            options += [dataclasses.replace(option, strategy="fsdp") for option in options]
        found = [self.smallest_accumulation(option, memory_gib) for option in dict.fromkeys(options)]
        return [option for option in found if option is not None]


def check_share(setup: TrainingSetup, gpus: int) -> None:
    """Checks that GPUs and micro-batches divide the batch.

    Raises:
        ValueError: if not; names the nearest batch size that they divide.
    """
    train = setup.recipe.train
    if gpus < 1:
        raise ValueError(f"gpus: {gpus} given, must be at least 1")
    parts = gpus * train.accumulation
    if train.batch_size % parts == 0:
        return
    batches = [size for size in (train.batch_size // parts * parts, (train.batch_size // parts + 1) * parts) if size]
    nearest = f"the nearest batch_size is {min(batches, key=lambda size: abs(size - train.batch_size)):,}"
    if train.batch_size % gpus == 0:
        share = train.batch_size // gpus
        divisors = [number for number in range(1, share + 1) if share % number == 0]
        near = min(divisors, key=lambda number: abs(number - train.accumulation))
        nearest += f", the nearest accumulation {near} (--train.accumulation {near})"
    raise ValueError(
        f"train.batch_size: {train.batch_size} given, must be divisible by {gpus} GPUs times {train.accumulation} "
        f"micro-batches (train.accumulation); {nearest}"
    )


def _size(dtype: torch.dtype) -> int:
    return torch.empty(0, dtype=dtype).element_size()
