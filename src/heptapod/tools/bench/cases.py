"""Cases of the sampling benchmark: one model, size, grid, batch and number of steps; building, running, predicting.

Shape legend: B batch, N cells, D width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from heptapod.configs.models import HeadConfig, ModelConfig
from heptapod.distributions import CellSampling
from heptapod.grid import GridSpec
from heptapod.models.heptapod import HeptapodModel, ReadCache
from heptapod.nn.kv_cache import KVCache
from heptapod.nn.rotary import rotary_2d
from heptapod.sampling import SamplingConfig, cells_per_step, sample_tokens
from heptapod.tools.bench.baselines import MaskedBaseline, sample_masked
from heptapod.tools.bench.timing import median_seconds
from heptapod.utils.random import KeyedGenerator, Stream

NUM_CLASSES = 1000
Model = HeptapodModel | MaskedBaseline


@dataclass(frozen=True)
class Case:
    """One row of the benchmark."""

    size: str
    model: str
    side: int
    """Cells per side of the grid."""
    batch: int
    steps: int
    precision: Literal["float32", "bfloat16"] = "float32"

    @property
    def cells(self) -> int:
        """N."""
        return self.side**2

    @cached_property
    def counts(self) -> list[int]:
        """Cells that each step fills, on the cosine schedule."""
        return cells_per_step(SamplingConfig(self.steps), self.cells)

    @property
    def steps_run(self) -> list[int]:
        """The steps that run: all, or the first and the last of a masked model.

        The steps of a masked model cost the same up to the logits of the sampled cells. The first step samples the
        fewest cells and the last the most; their mean is below the mean of all steps, which favors the baseline a
        little. The last step has the memory peak.
        """
        return sorted({0, self.steps - 1}) if self.model == "masked" else list(range(self.steps))

    @property
    def sampling(self) -> SamplingConfig:
        """The sampling config."""
        return SamplingConfig(self.steps, "raster", approximate_head=self.model == "global_approximate")


def model_config(size: str, kind: str) -> ModelConfig:
    """Config of a model of the benchmark."""
    head = kind if kind in ("cross", "next_token") else "global"
    return ModelConfig(size, head=HeadConfig(head))  # type: ignore[arg-type]


@torch.no_grad()
def build(size: str, kind: str, vocabulary: int, device: torch.device, precision: str = "float32") -> Model:
    """A model with random weights, quickly initialized: their values do not change the time."""
    config, grid = model_config(size, kind), GridSpec(8, 8, vocabulary)
    with torch.device("meta"):
        model = (MaskedBaseline if kind == "masked" else HeptapodModel)(config, grid, NUM_CLASSES)
    model.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            parameter.uniform_(-0.035, 0.035, generator=generator)  # standard deviation 0.02, as in training
        else:  # as at the start of training: norm scales are ones, biases and the mask token zeros
            parameter.fill_(0.0 if name.endswith(("bias", "mask_token")) else 1.0)
    return model.to(getattr(torch, precision)).eval()


def run(model: Model, case: Case) -> Tensor:
    """Samples a batch of images: tokens (B, N)."""
    seeds = list(range(case.batch))
    model = model.on_grid(case.side, case.side)
    if isinstance(model, MaskedBaseline):
        return sample_masked(model, seeds, case.counts, case.steps_run)
    return sample_tokens(model, None, seeds, case.sampling)


def with_valid_steps(case: Case) -> Case:
    """The case with one cell per step for next_token, which supports no other number of steps."""
    return dataclasses.replace(case, steps=case.cells) if case.model == "next_token" else case


def warm_up(model: Model, case: Case) -> None:
    """Runs a model once on four cells, so that one-time loading and allocation count in no row."""
    run(model, with_valid_steps(dataclasses.replace(case, side=2, batch=1, steps=2)))


def cache_bytes(model: Model, case: Case) -> int:
    """Bytes of all buffers that stay allocated between steps."""
    if isinstance(model, MaskedBaseline):
        return 0
    on_grid = model.on_grid(case.side, case.side)
    one_image = on_grid.new_cache(1, approximate_head=case.sampling.approximate_head)
    return case.batch * _bytes(one_image)


def _bytes(cache: ReadCache | KVCache) -> int:
    values = vars(cache).values()
    return sum(v.nbytes if isinstance(v, Tensor) else _bytes(v) for v in values if isinstance(v, Tensor | KVCache))


# --- predicted time of a row: rows that take too long are skipped ---


class Speed(NamedTuple):
    """Speed of this machine for one block of a size, and for sampling cells."""

    seconds_per_pass: float
    """Fixed cost of a forward pass of a block: loading the weights, launching the kernels."""
    seconds_per_token: float
    seconds_per_draw: float
    """Fixed cost of the logits and the sampling of a step."""
    seconds_per_cell: float


@torch.inference_mode()
def measure_speed(model: Model, device: torch.device) -> Speed:
    """Times the blocks of a model and the sampling of cells, with 1 and with 64 tokens."""
    blocks: nn.ModuleList = model.blocks if isinstance(model, MaskedBaseline) else model.backbone.blocks
    config = model.config
    random = torch.Generator(device).manual_seed(0)

    def pass_blocks(x: Tensor) -> None:
        cells = torch.arange(x.shape[1], device=device).unsqueeze(0)
        rotary = rotary_2d(cells, 8, 8, config.width // config.num_heads, config.rotary_base)
        for block in blocks:
            x = block(x, rotary)

    def draw(x: Tensor) -> None:
        model.distribution.sample(x, KeyedGenerator(Stream.SAMPLE, [(0,)]), CellSampling())

    def cost(action: Callable[[Tensor], None]) -> tuple[float, float]:
        few, many = (torch.randn(1, tokens, config.width, device=device, generator=random) for tokens in (1, 64))
        few_seconds, many_seconds = (median_seconds(partial(action, tokens)) for tokens in (few, many))
        each = max(many_seconds - few_seconds, 0.0) / 63
        return max(few_seconds - each, 0.0), each

    per_pass, per_token = cost(pass_blocks)
    return Speed(per_pass / len(blocks), per_token / len(blocks), *cost(draw))


def predict_seconds(case: Case, speed: Speed) -> float:
    """Estimated seconds of one run of a row, without attention, which is a small part at these sizes."""
    config, B, N = model_config(case.size, case.model), case.batch, case.cells
    backbone, head = config.depth, config.head.depth
    steps, sampled = len(case.steps_run), sum(case.counts[step] for step in case.steps_run)
    read = [1, *case.counts[:-1]]  # tokens that the backbone reads before each step; the first is the condition
    if case.model == "masked":
        block_tokens = (backbone + head) * steps * (N + 1)
    elif case.model == "global":
        block_tokens = backbone * sum(read) + head * steps * N
    elif case.model == "global_approximate":
        unread = [N - sum(case.counts[:step]) for step in range(steps)]
        block_tokens = backbone * sum(read) + head * (sum(read) + sum(unread))
    else:
        block_tokens = backbone * sum(read) + head * N
    blocks = (backbone + head) * steps * speed.seconds_per_pass + B * block_tokens * speed.seconds_per_token
    return blocks + steps * speed.seconds_per_draw + B * sampled * speed.seconds_per_cell
