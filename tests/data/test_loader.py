from __future__ import annotations

from collections import Counter

import torch

from heptapod.data import ImageSet, TokenSet, batch_at
from heptapod.data.images import flipped
from heptapod.tokenizers import GridSpec


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


def test_token_views_follow_the_same_coin() -> None:
    tokens = TokenSet(
        [torch.zeros(40, 4, dtype=torch.int32), torch.ones(40, 4, dtype=torch.int32)],
        torch.arange(40), [str(i) for i in range(40)], GridSpec(2, 2, 2),
    )  # fmt: skip
    batch = batch_at(tokens, 0, 40, seed=0)
    assert torch.equal(batch.items[:, 0] == 1, flipped(batch.keys))


def test_micro_batches_are_the_batch() -> None:
    batch = batch_at(numbered(10), 0, 10, seed=0)
    parts = batch.split(3)
    assert Counter(len(part.keys) for part in parts) == {3: 2, 4: 1}
    assert torch.equal(torch.cat([part.items for part in parts]), batch.items)
    assert [key for part in parts for key in part.keys] == batch.keys
