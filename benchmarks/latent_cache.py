"""The latent cache of a real data set: exact, byte-equal after kills, and faster to read than images.

    python benchmarks/latent_cache.py --tokenizer runs/… --data imagenet64-100/train.parquet --image_size 64

Writes a cache without interruption and another one that is killed at five random moments, and compares their bytes.
Reads all codes back and compares them with those of the tokenizer. Measures images per second: decoded and tokenized,
and read from the cache as in training (shuffled, batches of 64).
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

from heptapod.data import DataConfig, batch_at
from heptapod.data.cache import open_cache
from heptapod.data.images import decode
from heptapod.data.sources import open_source
from heptapod.tokenizers import load_tokenizer
from heptapod.tokenizers.base import to_float
from heptapod.tools.bench.results import hardware
from heptapod.utils.files import sha256, write_json

KILLS = 5
BATCH = 64


@dataclass
class Options:
    """Options of the benchmark."""

    tokenizer: str
    """Folder of a tokenizer, or of its run."""
    data: str
    """Images."""
    image_size: int = 0
    """Pixels per side; 0 keeps the images as they are."""
    folder: Path = Path("cache-benchmark")
    """Folder of the caches, which is emptied first."""
    out: Path = Path("benchmarks/results/latent_cache.json")
    """JSON file."""


def main(options: Options) -> None:
    whole, interrupted = options.folder / "whole", options.folder / "interrupted"
    shutil.rmtree(options.folder, ignore_errors=True)
    started = time.perf_counter()
    subprocess.run(command(options, whole), check=True)
    whole_seconds = time.perf_counter() - started
    kill_and_resume(options, interrupted)
    machine = hardware()
    results: dict[str, Any] = {
        "machine": {name: machine[name] for name in ("processor", "torch")},
        "threads": machine["threads"],
        "kills": KILLS,
        "byte_equal_after_kills": contents(whole) == contents(interrupted),
        "seconds_to_tokenize": whole_seconds,
        **compare_codes(options, whole),
        **measure(options, whole),
    }
    write_json(options.out, results)
    print(json.dumps(results, indent=2))


def command(options: Options, out: Path) -> list[str]:
    return [
        sys.executable, "-m", "heptapod", "tokenize", options.tokenizer, "--data", options.data,
        "--image_size", str(options.image_size), "--out", str(out),
    ]  # fmt: skip


def kill_and_resume(options: Options, out: Path) -> None:
    """Kills the command five times at a random moment after a further shard, then lets it finish."""
    dice = random.Random(0)
    for kill in range(KILLS):
        before = len(list(out.glob("shards/*.safetensors")))
        process = subprocess.Popen(command(options, out))
        while len(list(out.glob("shards/*.safetensors"))) == before and process.poll() is None:
            time.sleep(0.01)
        time.sleep(dice.uniform(0, 5))
        assert process.poll() is None, f"finished after {kill} kills"
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command(options, out), check=True)


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


@torch.inference_mode()
def compare_codes(options: Options, folder: Path) -> dict[str, Any]:
    """Compares the codes of the cache with those of freshly decoded images, in the batches of the cache."""
    cache, tokenizer = open_cache(folder), load_tokenizer(folder / "tokenizer")
    images = decode(open_source(options.data), DataConfig(options.data, options.image_size)).in_memory()
    size, step = cache.description.settings.shard_size, cache.description.settings.batch_size
    different = 0
    for shard in range(0, len(images), size):
        for start in range(shard, min(shard + size, len(images)), step):
            rows = torch.arange(start, min(start + step, shard + size, len(images)))
            codes = tokenizer.encode(to_float(images[rows]))
            different += int((codes != cache.tokens.items(rows, [(0, 0, int(row)) for row in rows])).sum())
    return {"images": len(images), "codes": len(images) * cache.tokens.grid.num_cells, "different_codes": different}


@torch.inference_mode()
def measure(options: Options, folder: Path, on_the_fly: int = 4096) -> dict[str, float]:
    """Images per second: decoded and tokenized, and read from the cache."""
    cache, tokenizer = open_cache(folder), load_tokenizer(folder / "tokenizer")
    source = open_source(options.data)
    started = time.perf_counter()
    rows = torch.arange(min(on_the_fly, len(source.names))).numpy()
    images = decode(source, DataConfig(options.data, options.image_size), rows).in_memory()
    for part in images.split(BATCH):
        tokenizer.encode(to_float(part))
    slow = len(images) / (time.perf_counter() - started)
    batches = len(cache.tokens) // BATCH
    batch_at(cache.tokens, 0, BATCH, 0)
    started = time.perf_counter()
    for number in range(batches):
        batch_at(cache.tokens, number * BATCH, BATCH, seed=0)
    fast = batches * BATCH / (time.perf_counter() - started)
    return {"images_per_second_on_the_fly": slow, "images_per_second_from_the_cache": fast, "ratio": fast / slow}


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__, use_underscores=True))
