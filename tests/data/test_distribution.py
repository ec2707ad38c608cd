"""Who reads what: every image once an epoch by its id, however many processes share the batches, whatever holds it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from heptapod.data import DataConfig, ImageSet, TokenSet, load_images
from heptapod.data.cache import CacheConfig
from heptapod.data.cache_writer import CacheWriter
from heptapod.data.cached_tokens import load_tokens
from heptapod.data.images import flipped
from heptapod.data.loader import Batch, BatchStream
from heptapod.data.sources import open_source
from heptapod.tokenizers import PixelConfig, build_tokenizer
from tests.data.shards import write_shards

COUNT = 45  # of training images: no multiple of the batch size, so that a batch spans the end of an epoch
BATCH = 8
STEPS = 12  # more than two epochs
PLANS = [
    [(1, STEPS)],
    [(2, STEPS)],
    [(4, STEPS)],
    [(1, 2), (4, 2), (2, 3), (1, 5)],  # (processes, steps) after each restart: in the middle of epochs
    [(4, 5), (1, 1), (8, 6)],
]
HOLDERS = ["images in memory", "tar shards in memory", "tar shards on demand", "cached tokens"]
Holder = ImageSet | TokenSet


class Read(NamedTuple):
    """What processes read together, in the order of their ranks."""

    names: list[str]
    keys: list[tuple[int, int, int]]
    items: torch.Tensor
    labels: torch.Tensor


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Holder]:
    """The same images from everywhere; the first pixel of an image is its number."""
    place = tmp_path_factory.mktemp("distribution")
    for number in range(COUNT + 5):
        pixels = np.full((4, 4, 3), 100 * (number % 2), np.uint8)
        pixels[0, 0] = number
        file = place / "images" / ("odd" if number % 2 else "even") / f"{number:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
    shards = write_shards(place / "images", place / "shards", 7)
    tokenizer = build_tokenizer(PixelConfig(levels=256))
    CacheWriter(place / "cache", open_source(str(shards)), tokenizer, CacheConfig(shard_size=6, flip=True)).run()
    settings = {"image_size": 4, "flip": True, "validation_fraction": 0.1}
    in_memory, tar = (DataConfig(str(place / name), **settings) for name in ("images", "shards"))  # type: ignore[arg-type]
    on_demand = DataConfig(str(place / "shards"), memory_gib=1e-6, **settings)  # type: ignore[arg-type]
    cached = DataConfig(str(place / "cache"), **settings)  # type: ignore[arg-type]
    loaded = [*(load_images(config)[0] for config in (in_memory, tar, on_demand)), load_tokens(cached)[0]]
    return dict(zip(HOLDERS, loaded, strict=True))


def read(items: Holder, plan: list[tuple[int, int]], ahead: bool = False) -> Read:
    """Everything that a run reads whose processes are started anew, in other numbers, as a plan says."""
    batches: list[Batch] = []
    step = 0
    for processes, steps in plan:
        streams = [BatchStream(items, BATCH, 3, (rank, processes), ahead) for rank in range(processes)]
        for _ in range(steps):
            parts = [micro for stream in streams for micro in stream.at(step)]
            assert {len(part.keys) for part in parts} == {BATCH // processes}, "all have the same to do"
            batches += parts
            step += 1
    return Read(
        [name for batch in batches for name in batch.names],
        [key for batch in batches for key in batch.keys],
        torch.cat([batch.items for batch in batches]),
        torch.cat([batch.labels for batch in batches]),
    )


def ids(names: list[str]) -> list[int]:
    return [int(Path(name).stem) for name in names]


@pytest.mark.parametrize("holder", HOLDERS)
def test_every_image_once_an_epoch(sets: dict[str, Holder], holder: str) -> None:
    items = sets[holder]
    wanted = sorted(ids(list(items.names)))
    assert len(set(wanted)) == len(items) == COUNT
    alone = read(items, PLANS[0])
    for plan in PLANS:
        seen = read(items, plan)
        for epoch in range(2):
            assert sorted(ids(seen.names[epoch * COUNT : (epoch + 1) * COUNT])) == wanted, (plan, epoch)
        rest = ids(seen.names[2 * COUNT :])
        assert len(set(rest)) == len(rest) == STEPS * BATCH - 2 * COUNT
        assert (seen.names, seen.keys) == (alone.names, alone.keys), plan
        assert torch.equal(seen.items, alone.items)
        assert torch.equal(seen.labels, alone.labels)


@pytest.mark.parametrize("holder", HOLDERS)
def test_what_is_read_is_the_image_of_that_name(sets: dict[str, Holder], holder: str) -> None:
    """The id in its name, the label and the pixels belong together; mirrored where its stream says so."""
    seen = read(sets[holder], PLANS[3])
    mirrored = flipped(seen.keys) if holder != "cached tokens" else ~flipped(seen.keys)  # the coin's other side
    assert 0 < int(mirrored.sum()) < len(mirrored)
    for name, item, label, turned in zip(seen.names, seen.items, seen.labels.tolist(), mirrored, strict=True):
        number = ids([name])[0]
        assert label == number % 2
        pixels = item[0] if item.ndim == 3 else item.view(4, 4)
        expected = torch.full((4, 4), 100 * label)
        expected[0, 0] = number
        assert torch.equal(pixels.long(), expected.flip(-1) if turned else expected)


def test_all_holders_give_the_same(sets: dict[str, Holder]) -> None:
    first, *others = (read(items, PLANS[4]) for items in sets.values())
    for other in others:
        assert (ids(other.names), other.keys) == (ids(first.names), first.keys)
        assert torch.equal(other.labels, first.labels)


@pytest.mark.parametrize("holder", HOLDERS)
def test_reading_ahead_changes_nothing(sets: dict[str, Holder], holder: str) -> None:
    for plan in PLANS[2:]:
        plain, ahead = read(sets[holder], plan), read(sets[holder], plan, ahead=True)
        assert (ahead.names, ahead.keys) == (plain.names, plain.keys)
        assert torch.equal(ahead.items, plain.items)
        assert torch.equal(ahead.labels, plain.labels)
