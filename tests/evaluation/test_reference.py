from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from heptapod.configs.data import DataConfig
from heptapod.data.images import decode
from heptapod.data.sources import open_source
from heptapod.evaluation.features import CallableFeatures, FeatureExtractor
from heptapod.evaluation.reference import Reference, make_reference, open_reference
from heptapod.evaluation.streams import write_npz
from heptapod.utils.files import read_metadata, read_tensors, write_tensors


def colors(images: Tensor) -> Tensor:
    """Mean of each channel and of the first pixels: 6 numbers."""
    return torch.cat([images.double().mean((2, 3)), images[:, :, 0, 0].double()], 1)


EXTRACTOR = CallableFeatures("colors", 6, colors)


class Inception6(FeatureExtractor):
    """Takes the place of Inception: six features."""

    name = "inception-v3"
    num_features = 6
    preprocessing = "standard"
    model_sha256 = "a" * 64

    def extract(self, images: Tensor) -> Tensor:
        return colors(images).float()


def make(path: Path | str, extractor: FeatureExtractor = EXTRACTOR, **options: Any) -> Reference:
    return make_reference(str(path), extractor, progress=False, **options)


def test_statistics_of_a_folder(image_folder: Path) -> None:
    images = decode(open_source(str(image_folder)), DataConfig(str(image_folder)))
    expected = colors(images.in_memory())
    reference = make(image_folder, batch_size=7)
    assert reference.count == 24
    assert torch.allclose(reference.mean, expected.mean(0), rtol=1e-6)
    assert torch.allclose(reference.covariance, torch.from_numpy(np.cov(expected.numpy().T)), rtol=1e-6)
    assert torch.equal(reference.features, expected.float())
    assert (reference.class_names, reference.class_counts) == (["dark", "light"], [12, 12])
    assert reference.image_size == [16, 16]
    assert reference.source["sha256"] == images.sha256()
    assert reference.statistics.count == 24


@pytest.mark.parametrize("batch_size", [1, 5, 24])
def test_does_not_depend_on_the_batch_size(image_folder: Path, batch_size: int) -> None:
    assert make(image_folder, batch_size=batch_size).sha256() == make(image_folder).sha256()


def test_round_trip(image_folder: Path, tmp_path: Path) -> None:
    reference = make(image_folder, features_kept=7)
    path = tmp_path / "reference.safetensors"
    reference.save(path)
    loaded = Reference.load(path)
    assert loaded.sha256() == reference.sha256()
    assert loaded.record() == reference.record()
    assert torch.equal(loaded.statistics.covariance, reference.statistics.covariance)
    assert torch.equal(loaded.features, reference.features)
    loaded.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()
    assert open_reference(str(path), EXTRACTOR).sha256() == reference.sha256()


def test_the_hash_is_of_the_content_not_of_the_place(image_folder: Path, tmp_path: Path) -> None:
    reference = make(image_folder)
    shutil.copytree(image_folder, tmp_path / "elsewhere")
    assert make(tmp_path / "elsewhere").sha256() == reference.sha256()
    assert make(image_folder, features_kept=23).sha256() != reference.sha256()
    assert make(image_folder, count=23).sha256() != reference.sha256()
    assert make(image_folder, image_size=8).sha256() != reference.sha256()


def test_a_random_part_of_the_features_is_kept(image_folder: Path) -> None:
    whole, part = make(image_folder), make(image_folder, features_kept=7, batch_size=5)
    assert torch.equal(part.mean, whole.mean)
    rows = [int((whole.features == feature).all(1).nonzero()) for feature in part.features]
    assert len(rows) == 7
    assert rows != list(range(7))
    assert rows == sorted(rows)
    assert len(make(image_folder, features_kept=0).features) == 0


def test_another_extractor_is_refused(image_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "reference.safetensors"
    make(image_folder).save(path)
    other = CallableFeatures("edges", 6, colors)
    with pytest.raises(ValueError, match=r"made with the extractor colors .* this evaluation uses edges \(6 features"):
        open_reference(str(path), other)
    with pytest.raises(ValueError, match=r"\(6 features; unspecified\), but .* colors \(6 features; cropped\)"):
        open_reference(str(path), CallableFeatures("colors", 6, colors, preprocessing="cropped"))
    reference, inception = make(image_folder, Inception6()), Inception6()
    reference.check(inception)
    inception.model_sha256 = "b" * 64
    with pytest.raises(ValueError, match=r"other weights of inception-v3 \(sha256 aaaaaaaaaaaa…\) .*\(bbbbbbbbbbbb…\)"):
        reference.check(inception)


def test_damaged_files(image_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "reference.safetensors"
    make(image_folder).save(path)
    tensors, metadata = read_tensors(path), read_metadata(path)
    write_tensors(path, {**tensors, "mean": tensors["mean"] + 1}, metadata)
    with pytest.raises(ValueError, match="its content does not have the hash that it names"):
        Reference.load(path)
    facts = {**json.loads(metadata["facts"]), "count": 25}
    write_tensors(path, tensors, {**metadata, "facts": json.dumps(facts)})
    with pytest.raises(ValueError, match="its content does not have the hash that it names"):
        Reference.load(path)
    write_tensors(path, {"mean": tensors["mean"]}, metadata)
    with pytest.raises(ValueError, match="damaged reference"):
        Reference.load(path)
    write_tensors(path, tensors)
    with pytest.raises(ValueError, match="not a reference"):
        Reference.load(path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        Reference.load(tmp_path / "none.safetensors")


def moments() -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).normal(size=(40, 6))
    return x.mean(0), np.cov(x.T)


def test_npz_of_moments(tmp_path: Path) -> None:
    path, (mu, sigma) = tmp_path / "adm.npz", moments()
    np.savez(path, mu=mu, sigma=sigma)
    reference = make(path, Inception6())
    assert np.array_equal(reference.mean.numpy(), mu)
    assert torch.allclose(reference.statistics.covariance, torch.from_numpy(sigma), rtol=1e-12)
    assert (reference.count, len(reference.features), reference.image_size) == (None, 0, None)
    reference.save(tmp_path / "reference.safetensors")
    assert Reference.load(tmp_path / "reference.safetensors").sha256() == reference.sha256()
    with pytest.raises(ValueError, match="moments of inception-v3 features only, this evaluation uses colors"):
        make(path)
    with pytest.raises(ValueError, match="count: 5 given, but .*adm.npz has moments"):
        make_reference(str(path), Inception6(), count=5)
    np.savez(path, mu=mu[:4], sigma=sigma[:4, :4])
    with pytest.raises(ValueError, match=r"mu and sigma must be \(6,\) and \(6, 6\), they are \(4,\) and \(4, 4\)"):
        make(path, Inception6())
    np.savez(path, mu=mu.astype(int), sigma=sigma)
    with pytest.raises(ValueError, match="mu must hold floating point numbers"):
        make(path, Inception6())
    np.savez(path, mu=mu, sigma=sigma + np.triu(np.ones((6, 6))))
    with pytest.raises(ValueError, match=r"adm\.npz: the covariance is not symmetric"):
        make(path, Inception6())
    np.savez(path, mu=mu * np.nan, sigma=sigma)
    with pytest.raises(ValueError, match=r"adm\.npz: .* not finite"):
        make(path, Inception6())


def test_npz_of_images_and_moments(tmp_path: Path) -> None:
    """The moments of the whole set, as published, and the features of the images that the file holds."""
    path, (mu, sigma) = tmp_path / "adm.npz", moments()
    images = torch.randint(0, 256, (9, 3, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    np.savez(path, arr_0=images.permute(0, 2, 3, 1).numpy(), mu=mu, sigma=sigma)
    reference = make(path, Inception6())
    assert np.array_equal(reference.mean.numpy(), mu)
    assert torch.equal(reference.features, colors(images).float())
    assert (reference.count, reference.source["moments"]) == (None, "mu and sigma of the file")
    other = make(path)
    assert other.count == 9
    assert torch.allclose(other.mean, colors(images).mean(0), rtol=1e-6)
    labels = torch.tensor([0, 2, 2, -1, 0, 2, 2, 2, 2])
    write_npz(path, 9, (4, 4), iter([(images, labels)]), {})
    assert (make(path).class_names, make(path).class_counts) == (["0", "1", "2"], [2, 0, 6])


def test_errors(image_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"gives 1 image\(s\), at least 2 are needed"):
        make(image_folder, count=1)
    with pytest.raises(ValueError, match="features_kept: -1 given"):
        make(image_folder, features_kept=-1)
    with pytest.raises(ValueError, match="batch_size: 0 given"):
        make(image_folder, batch_size=0)
    with pytest.raises(FileNotFoundError, match="reference: none does not exist"):
        make("none")
