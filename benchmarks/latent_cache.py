"""The latent cache on a real set of images: exact, byte-equal after kills, and how much faster it is than images.

    python benchmarks/latent_cache.py --tokenizer runs/… --data imagenet64-100/train.parquet --image_size 64

Writes a cache without a stop and another one that is killed at random five times, compares them byte for byte, reads
all codes back and compares them with those the tokenizer gives, and measures images per second: decoding and
tokenizing on the fly, and reading from the cache as training does (shuffled, batches of 64).
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from heptapod.data import DataConfig, batch_at
from heptapod.data.cache import open_cache
from heptapod.data.images import decode
from heptapod.data.sources import open_source
from heptapod.tokenizers import load_tokenizer
from heptapod.tokenizers.base import to_float
from heptapod.utils.files import sha256

KILLS = 5
BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--image_size", type=int, default=0)
    parser.add_argument("--folder", default="cache-benchmark")
    parser.add_argument("--out", default="benchmarks/results/latent_cache.json")
    options = parser.parse_args()
    folder = Path(options.folder)
    shutil.rmtree(folder, ignore_errors=True)
    started = time.perf_counter()
    subprocess.run(command(options, folder / "whole"), check=True)
    whole_seconds = time.perf_counter() - started
    kill_and_resume(options, folder / "broken")
    results: dict[str, Any] = {
        "machine": {"processor": platform.processor() or platform.machine(), "torch": torch.__version__},
        "threads": torch.get_num_threads(),
        "kills": KILLS,
        "byte_equal_after_kills": contents(folder / "whole") == contents(folder / "broken"),
        "seconds_to_tokenize": whole_seconds,
        **compare_codes(options, folder / "whole"),
        **measure(options, folder / "whole"),
    }
    Path(options.out).parent.mkdir(parents=True, exist_ok=True)
    Path(options.out).write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


def command(options: argparse.Namespace, out: Path) -> list[str]:
    return [
        sys.executable, "-m", "heptapod", "tokenize", options.tokenizer, "--data", options.data,
        "--image_size", str(options.image_size), "--out", str(out),
    ]  # fmt: skip


def kill_and_resume(options: argparse.Namespace, out: Path) -> None:
    """Kills at a random moment after at least one shard more, five times; then lets it end."""
    dice = random.Random(0)
    for kill in range(KILLS):
        before = len(list(out.glob("shards/*.safetensors")))
        process = subprocess.Popen(command(options, out))
        while len(list(out.glob("shards/*.safetensors"))) == before and process.poll() is None:
            time.sleep(0.01)
        time.sleep(dice.uniform(0, 5))
        assert process.poll() is None, f"over after {kill} kills"
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command(options, out), check=True)


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


@torch.inference_mode()
def compare_codes(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All codes read back, against those of the images decoded anew; batches as the cache was written with."""
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
def measure(options: argparse.Namespace, folder: Path, on_the_fly: int = 4096) -> dict[str, float]:
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
    main()
