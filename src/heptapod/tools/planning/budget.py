"""Memory per GPU: what a way of training needs, whether it fits, and what would make it fit."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import torch

from heptapod.nn.layers import Block
from heptapod.tools.planning.fake import Kernels, meta_model
from heptapod.tools.planning.gpus import GIB
from heptapod.tools.planning.memory import MemoryModel, StepMemory, Variant, gathered_dtype
from heptapod.tools.planning.training_setup import TrainingSetup

FLOAT32 = 4
MOMENTS = 2
"""Numbers per parameter that AdamW keeps."""
USABLE = 0.9
"""Share of a GPU's memory that may be planned with. The rest is for the driver's context, the libraries' work space,
messages between GPUs and the gaps that an allocator leaves."""


@dataclass(frozen=True)
class MemoryOption:
    """A way of training the same model with the same batch."""

    strategy: Literal["ddp", "fsdp"]
    checkpointing: bool
    accumulation: int

    def settings(self) -> str:
        """As overrides of a recipe."""
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
    """The weights' moving average."""
    gradients: int
    """Those that are there at the peak; with accumulation 1 they are made as activations are freed."""
    shared: int
    """What several GPUs need to work together. ddp: the buckets in which gradients are averaged, as large as these.
    fsdp: the parameters outside of blocks, whole, and the blocks that are at work."""
    activations: int
    """Of one micro-batch, with the temporary tensors of the peak."""
    evaluation: int
    """The peak of an evaluation instead, which under fsdp gathers the averaged weights."""

    @property
    def training(self) -> int:
        """The peak of a training step."""
        held = self.weights + self.optimizer + self.average + self.gradients
        return held + self.shared + self.activations

    @property
    def peak(self) -> int:
        """The peak of a run."""
        return max(self.training, self.evaluation)


class Budget:
    """Memory of a recipe on so many GPUs.

    Args:
        training_setup: the recipe.
        gpus: how many share a batch.
        kernels: whose attention decides what is kept.

    Raises:
        ValueError: if the batch cannot be shared among the GPUs.
    """

    def __init__(self, training_setup: TrainingSetup, gpus: int, kernels: Kernels = "gpu") -> None:
        check_share(training_setup, gpus)
        self.training_setup = training_setup
        self.gpus = gpus
        self.kernels = kernels
        self._model = MemoryModel(training_setup)
        model = meta_model(training_setup)
        self.parameters = sum(p.numel() for p in model.parameters())
        blocks = [sum(p.numel() for p in block.parameters()) for block in model.modules() if isinstance(block, Block)]
        self.outside_blocks = self.parameters - sum(blocks)
        self.largest_block = max(blocks)
        self.has_average = training_setup.recipe.train.ema_decay > 0

    @property
    def configured_option(self) -> MemoryOption:
        """The way that the recipe names."""
        train = self.training_setup.recipe.train
        return MemoryOption(train.strategy, train.activation_checkpointing, train.accumulation)

    @property
    def accumulations(self) -> list[int]:
        """All numbers of micro-batches that a GPU's share of the batch can be split into."""
        share = self.training_setup.recipe.train.batch_size // self.gpus
        return [number for number in range(1, share + 1) if share % number == 0]

    def micro_batch(self, way: MemoryOption) -> int:
        """Images of a micro-batch on one GPU."""
        return self.training_setup.recipe.train.batch_size // (self.gpus * way.accumulation)

    def step(self, way: MemoryOption) -> StepMemory:
        """What a micro-batch takes besides weights, optimizer and average."""
        variant = Variant(
            self.micro_batch(way), way.checkpointing, way.accumulation > 1, self._shards(way), self.kernels
        )
        return self._model.step(variant)

    def memory(self, way: MemoryOption) -> GPUMemory:
        """Bytes on one GPU."""
        step = self.step(way)
        shards = self.gpus if self._shards(way) else 1
        weights = FLOAT32 * -(-self.parameters // shards)
        average = weights if self.has_average else 0
        gradients, whole_average = step.gradients_at_peak, 0
        shared = weights if self.gpus > 1 else 0
        if self._shards(way):
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

    def _shards(self, way: MemoryOption) -> bool:
        return way.strategy == "fsdp" and self.gpus > 1

    def _gathered(self) -> int:
        """The root group in float32; of blocks the one at work, the next one, and the gradients of one in float32."""
        block = 2 * _size(gathered_dtype(self.training_setup)) + FLOAT32
        return FLOAT32 * self.outside_blocks + block * self.largest_block

    def fits(self, way: MemoryOption, memory_gib: float) -> bool:
        """Whether a way stays within what is usable of a GPU's memory."""
        return self.memory(way).peak <= USABLE * memory_gib * GIB

    def smallest_accumulation(self, way: MemoryOption, memory_gib: float) -> MemoryOption | None:
        """The same way with the largest micro-batches that fit; None if even single images do not."""
        ways = [dataclasses.replace(way, accumulation=number) for number in self.accumulations]
        if self.fits(ways[0], memory_gib):
            return ways[0]
        if not self.fits(ways[-1], memory_gib):
            return None
        low, high = 1, len(ways) - 1  # memory falls with the accumulation: the first that fits lies in between
        while low < high:
            middle = (low + high) // 2
            if self.fits(ways[middle], memory_gib):
                high = middle
            else:
                low = middle + 1
        return ways[high]

    def remedies(self, memory_gib: float) -> list[MemoryOption]:
        """What would fit where the recipe's own way does not: cheapest first."""
        own = self.configured_option
        ways = [own, dataclasses.replace(own, checkpointing=True)]
        if self.gpus > 1:
            ways += [dataclasses.replace(way, strategy="fsdp") for way in ways]
        found = [self.smallest_accumulation(way, memory_gib) for way in dict.fromkeys(ways)]
        return [way for way in found if way is not None]


def check_share(training_setup: TrainingSetup, gpus: int) -> None:
    """Refuses a batch that GPUs and micro-batches cannot share.

    Raises:
        ValueError: naming the nearest that they can.
    """
    train = training_setup.recipe.train
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
