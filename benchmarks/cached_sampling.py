"""Sampling with the KV cache against reading the whole prefix again at every step.

By default: N = 256 cells, one per step, 6 + 2 layers, width 256, batch 4, float32, random weights. Also checks that the
logits agree. Writes JSON and prints a table.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import tyro

from heptapod.grid import GridSpec
from heptapod.models import HeadConfig, HeptapodModel, ModelConfig
from heptapod.models.heptapod import build_model
from heptapod.sampling import SamplingConfig, sample_stream, sample_tokens
from heptapod.tools.bench.results import CPU, Column, markdown_table, write_rows
from heptapod.tools.bench.timing import in_turns, wall_seconds


@dataclass
class Options:
    """Options of the benchmark."""

    side: int = 16
    """Cells per side of the grid."""
    width: int = 256
    """Width of the model."""
    depth: int = 6
    """Blocks of the backbone."""
    head_depth: int = 2
    """Blocks of the head."""
    batch: int = 4
    """Images at a time."""
    repeats: int = 3
    """Runs of each, in turns; the fastest counts."""
    heads: tuple[str, ...] = ("cross", "next_token", "local", "global")
    """Heads."""
    out: Path = Path("benchmarks/results/cached_sampling.json")
    """JSON file."""


COLUMNS: dict[str, Column] = {
    "head": "head",
    "cached s": lambda row: f"{row['cached_seconds']:.2f}",
    "uncached s": lambda row: f"{row['uncached_seconds']:.2f}",
    "ratio": lambda row: f"{row['ratio']:.1f}",
    "largest logit difference": lambda row: f"{row['largest_logit_difference']:.1e}",
}


def main(options: Options) -> None:
    rows = []
    for head in options.heads:
        print(f"{head}: cached and uncached (a minute or so each)")
        rows.append(measure(head, options))
    print(markdown_table(COLUMNS, rows))
    settings = {name: value for name, value in asdict(options).items() if name not in ("out", "heads")}
    write_rows(options.out, {**settings, "dtype": "float32", "steps": options.side**2}, rows)


def measure(head: str, options: Options) -> dict[str, Any]:
    """Times one batch of images both ways and compares the logits of every step."""
    config = ModelConfig(
        width=options.width,
        depth=options.depth,
        num_heads=options.width // 64,
        head=HeadConfig(head, options.head_depth),  # type: ignore[arg-type]
    )
    model = build_model(config, GridSpec(options.side, options.side, 1024), 10, seed=0).eval()
    labels, seeds = torch.arange(options.batch) % 10, list(range(options.batch))
    sampling = SamplingConfig(token_order="raster")
    next(sample_stream(model, labels, seeds, sampling))  # warm up
    sample = partial(sample_tokens, model, labels, seeds, sampling)
    runs = {use_cache: partial(wall_seconds, partial(sample, use_cache=use_cache), CPU) for use_cache in (True, False)}
    seconds = {use_cache: min(times) for use_cache, times in in_turns(runs, options.repeats).items()}
    return {
        "head": head,
        "cached_seconds": seconds[True],
        "uncached_seconds": seconds[False],
        "ratio": seconds[False] / seconds[True],
        "cached_images_per_second": options.batch / seconds[True],
        "largest_logit_difference": largest_difference(model, sample(use_cache=False), labels),
    }


@torch.inference_mode()
def largest_difference(model: HeptapodModel, tokens: torch.Tensor, labels: torch.Tensor) -> float:
    """Largest absolute difference of next-cell logits over all steps, cached against uncached."""
    cells = torch.arange(tokens.shape[1]).expand(len(tokens), -1)
    cache = model.new_cache(len(tokens))
    states = model.read_condition(cache, labels)
    worst = 0.0
    for t in range(tokens.shape[1]):
        cached = model.distribution.logits(model.predict(states, cells[:, t : t + 1], cache))
        if t % 16 in (0, 15):  # the uncached side is slow: compare two of sixteen steps
            plain = model.read(tokens[:, :t], cells[:, :t], labels)
            expected = model.distribution.logits(model.predict(plain, cells[:, t : t + 1]))
            worst = max(worst, float((cached - expected).abs().max()))
        if t + 1 < tokens.shape[1]:
            states = model.read_more(cache, tokens[:, t : t + 1], cells[:, t : t + 1])
    return worst


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__, use_underscores=True))
