from __future__ import annotations

from collections import Counter

import numpy as np
import torch

from heptapod.data import ImageSet, TokenSet, batch_at
from heptapod.data.images import flipped
from heptapod.grid import GridSpec


def numbered(count: int, flip: bool = False) -> ImageSet:
    images = torch.arange(count).view(-1, 1, 1, 1).expand(-1, 3, 2, 2).clone().to(torch.uint8)
    images[..., 0] = 255
    return ImageSet(images, torch.arange(count), [str(i) for i in range(count)], [], flip)


def test_every_item_once_per_epoch_whatever_the_batch_size() -> None:
    items = numbered(10)
    for batch_size in (1, 3, 7, 10, 23):
        stream: list[int] = []
        for step in range(60 // batch_size):
            stream += batch_at(items, step * batch_size, batch_size, seed=4).labels.tolist()
        for epoch in range(len(stream) // 10):
            assert sorted(stream[epoch * 10 : epoch * 10 + 10]) == list(range(10))
        assert stream[:10] != stream[10:20], "every epoch has its own order"


def test_resumes_mid_epoch_exactly() -> None:
    items = numbered(10)
    whole = batch_at(items, 0, 35, seed=1)
    parts = [batch_at(items, start, 7, seed=1) for start in (0, 7, 14, 21, 28)]
    assert torch.equal(whole.labels, torch.cat([part.labels for part in parts]))
    assert whole.keys == [key for part in parts for key in part.keys]
    assert whole.names == [str(label) for label in whole.labels.tolist()]


def test_seed_decides_the_order() -> None:
    items = numbered(50)
    assert not torch.equal(batch_at(items, 0, 50, 0).labels, batch_at(items, 0, 50, 1).labels)


def test_flip_belongs_to_the_image_and_epoch() -> None:
    items = numbered(40, flip=True)
    one = batch_at(items, 0, 40, seed=0)
    mirrored = one.items[:, 0, 0, 1] == 255
    assert torch.equal(mirrored, flipped(one.keys))
    assert 8 < int(mirrored.sum()) < 32
    two = batch_at(items, 40, 40, seed=0)
    by_image = {key[2]: bool(m) for key, m in zip(one.keys, mirrored, strict=True)}
    again = {key[2]: bool(m) for key, m in zip(two.keys, two.items[:, 0, 0, 1] == 255, strict=True)}
    assert by_image != again


def numbered_tokens(shards: list[int], views: int = 2) -> TokenSet:
    """Image i has the token 10 · i + view in every cell."""
    total = sum(shards)
    tokens = (10 * torch.arange(total).view(-1, 1, 1) + torch.arange(views).view(1, -1, 1)).expand(-1, -1, 4).int()
    names = [str(i) for i in range(total)]
    grid = GridSpec(2, 2, 10 * total)
    return TokenSet(list(tokens.split(shards)), torch.arange(total), names, [], grid, list(range(views)))


def test_a_view_belongs_to_the_image_and_epoch() -> None:
    batch = batch_at(numbered_tokens([40]), 0, 40, seed=0)
    views = batch.items[:, 0] % 10
    assert torch.equal(views == 0, flipped(batch.keys)), "the same coin, whichever side is called heads"
    assert torch.equal(batch.items[:, 0] // 10, batch.labels)
    by_image = {key[2]: int(view) for key, view in zip(batch.keys, views, strict=True)}
    other = batch_at(numbered_tokens([40]), 40, 40, seed=0)
    assert by_image != {key[2]: int(v) for key, v in zip(other.keys, other.items[:, 0] % 10, strict=True)}


def test_all_views_are_read_alike() -> None:
    tokens = numbered_tokens([40], views=10)
    views = torch.cat([batch_at(tokens, 40 * epoch, 40, seed=0).items[:, 0] % 10 for epoch in range(50)])
    counts = torch.bincount(views, minlength=10)
    assert counts.min() > 150
    assert counts.max() < 250


def test_shards_do_not_show() -> None:
    whole, parts = numbered_tokens([40]), numbered_tokens([1, 20, 3, 16])
    for position in (0, 13, 40):
        one, other = batch_at(whole, position, 25, seed=3), batch_at(parts, position, 25, seed=3)
        assert torch.equal(one.items, other.items)
    assert torch.equal(whole.head(30), parts.head(30))
    assert whole.sha256() == parts.sha256()
    subset = parts.subset(np.array([39, 0, 22]))
    assert subset.head(3)[:, 0].tolist() == [390, 0, 220]
    assert list(subset.names) == ["39", "0", "22"]
    assert subset.subset(np.array([2])).head(1)[0, 0] == 220


def test_micro_batches_are_the_batch() -> None:
    batch = batch_at(numbered(10), 0, 10, seed=0)
    parts = batch.split(3)
    assert Counter(len(part.keys) for part in parts) == {3: 2, 4: 1}
    assert torch.equal(torch.cat([part.items for part in parts]), batch.items)
    assert [key for part in parts for key in part.keys] == batch.keys
