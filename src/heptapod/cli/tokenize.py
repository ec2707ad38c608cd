"""``heptapod tokenize`` and ``heptapod import-tokenizer``."""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from pydantic import Field

from heptapod.configs.data import SplitName
from heptapod.configs.tokenizers import KINDS
from heptapod.utils.arguments import parse_function
from heptapod.utils.checks import BatchSize, Count, Seed, Side
from heptapod.utils.config import from_dict

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)
SIDE = 256
COUNT = 1024
"""Images on which latents are measured."""


def tokenize(arguments: list[str]) -> None:
    """Parses arguments and writes a cache, in one process or several (torchrun)."""
    from heptapod.cli.distributed_command import run_distributed

    run_distributed(write_cache, "tokenize", arguments)


def import_tokenizer(arguments: list[str]) -> None:
    """Parses arguments and imports a tokenizer."""
    kinds = "\n".join(f"  {kind}: {what}" for kind, what in KINDS.items())
    about = str(inspect.getdoc(import_published)).partition("Args:")[0]
    description = f"{about}Kinds, and the SOURCE of each:\n\n{kinds}"
    parse_function(import_published, "import-tokenizer", arguments, description=description)()


def write_cache(
    tokenizer: tyro.conf.Positional[str],
    data: str,
    out: str,
    split: SplitName | None = None,
    image_size: Side = 0,
    flip: bool = False,
    crops: Annotated[int, Field(ge=1, le=5)] = 1,
    crop_scale: Annotated[float, Field(ge=1, le=4)] = 1.1,
    dtype: Literal["float16", "float32"] = "float16",
    precision: Literal["float32", "bfloat16"] = "float32",
    batch_size: BatchSize = 64,
    shard_size: Annotated[int, Field(ge=1, le=1_000_000)] = 4096,
    device: str = "auto",
) -> None:
    """Encodes a whole set of images once, so that training reads tokens instead of images.

    The cache holds the tokens in shards, labels and class names, the tokenizer, an index with counts and checksums, and
    a contact sheet of decoded images. Run the same command again to resume. Several processes share the
    work: `torchrun --nproc_per_node 8 -m heptapod tokenize ...`. Train from the cache with
    `heptapod train RECIPE --data CACHE`.

    Args:
        tokenizer: Folder of a tokenizer, or of the run that trained it.
        data: A folder of images, parquet file(s), .tar shards or a built-in set.
        out: Folder of the cache.
        split: The split of the data, if it has several (folders or files named train, validation, test); train if left
            out. all: the whole set.
        image_size: Pixels per side after resizing the short side and cropping; 0 keeps the images as they are.
        flip: Also store every view mirrored (training then reads one of the two at random).
        crops: 1: the center. 5: also the corners of a larger copy.
        crop_scale: Short side of that larger copy, as a multiple of the image size.
        dtype: How continuous tokens are stored; codes are stored as small integers.
        precision: Precision of the encoder's matrix products. bfloat16 is faster on processors and GPUs that have it;
            a few codes then become others that are nearly as near.
        batch_size: Images encoded at a time.
        shard_size: Images per shard.
        device: auto, cpu, cuda, ...; each of several processes uses a separate GPU.
    """
    from heptapod.data.cache import CacheConfig, open_cache
    from heptapod.data.cache_picture import contact_sheet
    from heptapod.data.cache_writer import CacheWriter
    from heptapod.data.classes import class_lines
    from heptapod.data.sources import open_source
    from heptapod.data.splits import SplitChoice
    from heptapod.distributed.device import resolve_device
    from heptapod.tokenizers import load_tokenizer
    from heptapod.training.folder import find_tokenizer
    from heptapod.utils.files import check_folder
    from heptapod.utils.images import save_png

    values = {
        "image_size": image_size,
        "flip": flip,
        "crops": crops,
        "crop_scale": crop_scale,
        "dtype": dtype,
        "precision": precision,
        "batch_size": batch_size,
        "shard_size": shard_size,
    }
    config = from_dict(CacheConfig, values, "tokenize")
    encoder = load_tokenizer(find_tokenizer(Path(tokenizer), "tokenizer")).to(resolve_device(device))
    source = open_source(data, "data", SplitChoice(split))
    check_folder(Path(out))
    folder = Path(out)
    started = time.perf_counter()
    index = CacheWriter(folder, source, encoder, config).run()
    if index is None:
        return
    seconds = time.perf_counter() - started
    save_png(contact_sheet(folder), folder / "contact_sheet.png")
    for line in index.unreadable[:5]:
        logger.warning(f"missing: {line}")
    for line in class_lines(open_cache(folder).classes()):
        print(line)
    print(
        f"{index.images:,} images, {index.views} view(s) each, {index.missing} missing, in {seconds:.1f} s\n"
        f"cache:         {folder}\ncontact sheet: {folder / 'contact_sheet.png'}"
    )


def import_published(
    kind: tyro.conf.Positional[str],
    source: tyro.conf.Positional[str],
    out: str,
    data: str | None = None,
    image_size: Side = SIDE,
    count: Count = COUNT,
    patch: Annotated[int, Field(ge=1, le=16)] = 1,
    seed: Seed = 0,
    device: str = "auto",
) -> None:
    """Converts a published tokenizer into a tokenizer folder for every command.

    Its weights must fit to the last tensor. A continuous tokenizer is measured on images (mean and standard deviation
    of every latent channel), so that its tokens are normalized.

    Args:
        kind: What it is.
        source: File or folder its authors published.
        out: Folder to write.
        data: Images to measure the latents of a continuous tokenizer on: a folder, parquet file(s), .tar shards or
            a built-in set.
        image_size: Pixels per side of these images.
        count: How many of them, chosen at random.
        patch: Latent positions per side that make one token (continuous tokenizers; 2 halves the grid).
        seed: Seed of the choice of images.
        device: auto, cpu, cuda, ...
    """
    from heptapod.distributed.device import resolve_device
    from heptapod.tokenizers import ContinuousTokenizer, save_tokenizer, tokenizer_hash
    from heptapod.tokenizers.pretrained import import_pretrained
    from heptapod.utils.files import atomic_folder, check_folder

    check_folder(Path(out))
    if Path(out).exists():
        raise ValueError(f"out: {out} exists; choose another --out, or remove it")
    tokenizer = import_pretrained(kind, Path(source), patch).to(resolve_device(device))
    if isinstance(tokenizer, ContinuousTokenizer):
        if data is None:
            raise ValueError(f"data: none given, but the latents of {kind} must be measured on images; give --data")
        tokenizer.measure(_sample_images(data, image_size, count, seed))
    elif given := [
        name
        for name, value in (
            ("data", data),
            ("count", count != COUNT),
            ("seed", seed),
            ("image_size", image_size != SIDE),
        )
        if value
    ]:
        raise ValueError(f"{given[0]}: given, but {kind} has codes; there is nothing to measure")
    with atomic_folder(Path(out)) as folder:
        save_tokenizer(tokenizer, folder, {"imported_from": Path(source).name})
    what = f"{tokenizer.vocabulary_size:,} codes" if tokenizer.is_discrete else f"{tokenizer.channels} channels"
    print(f"{out}: {kind}, {tokenizer.factor} pixels per cell side, {what} per cell, hash {tokenizer_hash(tokenizer)}")


def _sample_images(data: str, image_size: int, count: int, seed: int, batch_size: int = 8) -> Iterator[Tensor]:
    """Batches (B, 3, h, w) in [-1, 1] of random images of a set."""
    import torch

    from heptapod.data.selection import random_images
    from heptapod.tokenizers.base import to_float
    from heptapod.utils.logging import Progress
    from heptapod.utils.random import Stream

    found = random_images("import-tokenizer", "data", data, image_size, count, (Stream.SPLIT, seed))
    images = found.in_memory()
    with torch.inference_mode(), Progress(f"measuring latents of {len(images):,} images", len(images)) as progress:
        for start in range(0, len(images), batch_size):
            batch = to_float(images[start : start + batch_size])
            yield batch
            progress.advance(len(batch))
