"""Sampling with the key-value cache against reading the whole prefix again at every step, on this machine.

Size of the bar: N = 256 cells, one per step, 6 + 2 layers, width 256, batch 4, float32, random weights. Also checks
that the logits agree. Writes JSON and prints a table.
"""

from __future__ import annotations

import argparse
import platform
import time
from pathlib import Path

import torch

from heptapod.grid import GridSpec
from heptapod.models import HeadConfig, HeptapodModel, ModelConfig
from heptapod.models.heptapod import build_model
from heptapod.sampling import SamplingConfig, sample_stream, sample_tokens
from heptapod.utils.files import write_json
from heptapod.utils.logging import say


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=16, help="cells per side of the grid")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--head_depth", type=int, default=2)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3, help="runs of each; the fastest counts")
    parser.add_argument("--heads", nargs="+", default=["cross", "next_token", "local", "global"])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/cached_sampling.json"))
    args = parser.parse_args()

    rows = []
    for head in args.heads:
        say(f"{head}: cached, then uncached (a minute or so each)")
        rows.append(measure(head, args))
    print(f"{'head':<12}{'cached s':>10}{'uncached s':>12}{'ratio':>8}{'largest logit difference':>26}")
    for row in rows:
        print(
            f"{row['head']:<12}{row['cached_seconds']:>10.2f}{row['uncached_seconds']:>12.2f}{row['ratio']:>8.1f}"
            f"{row['largest_logit_difference']:>26.1e}"
        )
    settings = {name: value for name, value in vars(args).items() if name not in ("out", "heads")}
    hardware = {"machine": platform.machine(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    write_json(
        args.out, {"settings": {**settings, "dtype": "float32", "steps": args.side**2}, **hardware, "rows": rows}
    )


def measure(head: str, args: argparse.Namespace) -> dict[str, float | str]:
    """Times one batch of images both ways and compares every step's logits."""
    grid = GridSpec(args.side, args.side, 1024)
    config = ModelConfig(
        width=args.width,
        depth=args.depth,
        num_heads=args.width // 64,
        head=HeadConfig(head, args.head_depth),  # type: ignore[arg-type]
    )
    model = build_model(config, grid, 10, seed=0).eval()
    labels, seeds = torch.arange(args.batch) % 10, list(range(args.batch))
    sampling = SamplingConfig(token_order="raster")
    seconds = {}
    next(sample_stream(model, labels, seeds, sampling))  # warm up
    for use_cache in (True, False):
        times = []
        for _ in range(args.repeats):
            started = time.perf_counter()
            tokens = sample_tokens(model, labels, seeds, sampling, use_cache=use_cache)
            times.append(time.perf_counter() - started)
        seconds[use_cache] = min(times)
    return {
        "head": head,
        "cached_seconds": seconds[True],
        "uncached_seconds": seconds[False],
        "ratio": seconds[False] / seconds[True],
        "cached_images_per_second": args.batch / seconds[True],
        "largest_logit_difference": largest_difference(model, tokens, labels),
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
    main()
