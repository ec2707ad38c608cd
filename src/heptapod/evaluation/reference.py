"""Reference statistics of real images, to compare generated images with: computed once, saved with a hash."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from heptapod.configs.data import SplitName
from heptapod.configs.evaluation import FEATURES_KEPT, SUFFIX
from heptapod.distributed.collectives import broadcast_tensors
from heptapod.evaluation.collect import Collected, collect_features
from heptapod.evaluation.distances import FeatureStatistics
from heptapod.evaluation.features import INCEPTION, FeatureExtractor
from heptapod.evaluation.streams import ImageStream, npz_entries, open_images, read_npz_entry
from heptapod.utils.checks import check_at_least
from heptapod.utils.config import from_dict, settings
from heptapod.utils.files import read_metadata, read_tensors, sha256, write_tensors
from heptapod.utils.random import Stream, numpy_generator

FORMAT = "heptapod-reference-1"
MANY_CLASSES = 100_000
"""Label numbers from it on are ids: only the ones that occur are classes."""


@settings
class _Facts:
    """What the metadata of a file holds of a reference."""

    extractor: dict[str, Any]
    """As in Reference."""
    count: int | None
    """As in Reference."""
    source: dict[str, Any]
    """As in Reference."""
    class_names: list[str]
    """As in Reference."""
    class_counts: list[int]
    """As in Reference."""
    image_size: list[int] | None
    """As in Reference."""


@dataclass
class Reference:
    """Statistics of a set of images in the features of one extractor."""

    extractor: dict[str, Any]
    """Description of the extractor."""
    count: int | None
    """Number of images of the moments; None if a file of moments does not say."""
    mean: Tensor
    """(F,) float64."""
    covariance: Tensor
    """(F, F) float64, unbiased."""
    features: Tensor
    """(M, F) float32: the kept features, all or a random part, perhaps none."""
    source: dict[str, Any]
    """Its source, with a hash."""
    class_names: list[str]
    """Name of each class; empty where there are no labels."""
    class_counts: list[int]
    """Images of each class; empty where there are no labels."""
    image_size: list[int] | None
    """Height and width of the images in pixels; None where there are only moments."""

    @property
    def statistics(self) -> FeatureStatistics:
        """The moments, for the Fréchet distance."""
        return FeatureStatistics.from_moments(self.mean, self.covariance, self.count or 2)

    def sha256(self) -> str:
        """Hash of everything in it except the path of its source."""
        facts = self._facts()
        facts["source"] = {key: value for key, value in self.source.items() if key != "path"}
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
        for tensor in self._tensors().values():
            digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()

    def check(self, extractor: FeatureExtractor) -> None:
        """Checks that an extractor is the one of the reference.

        Raises:
            ValueError: naming both.
        """
        saved, other = self.extractor, extractor.description()
        if any(saved[key] != other[key] for key in ("name", "preprocessing", "num_features")):
            raise ValueError(
                f"reference: made with the extractor {_shown(saved)}, but this evaluation uses {_shown(other)}; their "
                "features do not compare: make the reference again, or evaluate with its extractor"
            )
        hashes = saved["model_sha256"], other["model_sha256"]
        if None not in hashes and hashes[0] != hashes[1]:
            raise ValueError(
                f"reference: made with other weights of {saved['name']} (sha256 {hashes[0][:12]}…) than those of this "
                f"evaluation ({hashes[1][:12]}…)"
            )

    def record(self) -> dict[str, Any]:
        """The facts about the reference that results contain."""
        return {
            "sha256": self.sha256(),
            "count": self.count,
            "features_kept": len(self.features),
            "image_size": self.image_size,
            "source": self.source,
        }

    def save(self, path: Path) -> None:
        """Writes one safetensors file, whole or not at all; equal references give equal bytes."""
        facts = json.dumps(self._facts(), sort_keys=True)
        write_tensors(path, self._tensors(), {"format": FORMAT, "sha256": self.sha256(), "facts": facts})

    @classmethod
    def load(cls, path: Path) -> Reference:
        """Reads a file that :meth:`save` wrote.

        Raises:
            FileNotFoundError: if there is no file.
            ValueError: if it is no reference, or damaged.
        """
        metadata = read_metadata(path)
        if metadata.get("format") != FORMAT:
            raise ValueError(f"{path}: not a reference (heptapod reference makes one)")
        tensors: dict[str, Any] = dict(read_tensors(path))
        try:
            facts = from_dict(_Facts, json.loads(metadata["facts"]), "")
            features, mean = tensors["features"], tensors["mean"]
            shapes = {"mean": (features.shape[-1],), "covariance": 2 * mean.shape, "features": features.shape[-2:]}
            if any(tensors[name].shape != shape for name, shape in shapes.items()) or len(tensors) != len(shapes):
                raise ValueError("the shapes of its tensors")
            if [tensors[name].dtype for name in shapes] != [torch.float64, torch.float64, torch.float32]:
                raise ValueError("the types of its tensors")
        except (KeyError, IndexError, ValueError, RecursionError) as error:
            raise ValueError(f"{path}: damaged reference ({error})") from None
        fields: dict[str, Any] = {**tensors, **vars(facts)}
        reference = cls(**fields)
        if reference.sha256() != metadata.get("sha256"):
            raise ValueError(f"{path}: damaged reference, its content does not have the hash that it names")
        return reference

    def _facts(self) -> dict[str, Any]:
        tensors = self._tensors()
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in tensors}

    def _tensors(self) -> dict[str, Tensor]:
        return {"mean": self.mean, "covariance": self.covariance, "features": self.features}


def open_reference(
    path: str,
    extractor: FeatureExtractor,
    image_size: int = 0,
    batch_size: int = 64,
    progress: bool = True,
    shared: bool = False,
    split: SplitName | None = None,
) -> Reference:
    """The reference of a file that was saved, or one made now from images (see :func:`make_reference`).

    Raises:
        FileNotFoundError: if nothing is there.
        ValueError: if it was made with another extractor, is damaged, or cannot be made.
    """
    if Path(path).suffix != SUFFIX:
        return make_reference(
            path, extractor, image_size, batch_size=batch_size, progress=progress, shared=shared, split=split
        )
    reference = Reference.load(Path(path))
    reference.check(extractor)
    return reference


def make_reference(
    path: str,
    extractor: FeatureExtractor,
    image_size: int = 0,
    count: int | None = None,
    features_kept: int = FEATURES_KEPT,
    seed: int = 0,
    batch_size: int = 64,
    progress: bool = True,
    shared: bool = False,
    split: SplitName | None = None,
) -> Reference:
    """Statistics of the images of a folder, parquet file(s), .tar shards, a built-in set, a token cache or an npz file.

    For a token cache the reconstructions of its tokenizer are used, and the source says so. An npz file in the layout
    of ADM's reference batches has images (``arr_0``), Inception's moments (``mu``, ``sigma``), or both: then the
    moments come from the file and the features from its images.

    Args:
        path: their location.
        extractor: the network.
        image_size: side after resizing and cropping the images of files; 0 keeps their size.
        count: number of images, chosen at random; None for all.
        features_kept: largest number of kept features, chosen at random.
        seed: keys both choices.
        batch_size: images at a time.
        progress: show a progress bar.
        shared: all ranks call this and share the work; each gets the reference that one process would compute.
        split: the split of the images, if they have several; None for train.

    Raises:
        FileNotFoundError: if nothing is there.
        ValueError: if there are fewer than two images, or moments that are not the extractor's, or of more images.
    """
    check_at_least(0, features_kept=features_kept)
    check_at_least(1, batch_size=batch_size)
    moments = _read_moments(Path(path), extractor)
    if moments is not None and count is not None:
        raise ValueError(f"count: {count} given, but {path} has moments (mu, sigma) of all its images")
    if moments is not None and "arr_0" not in npz_entries(Path(path)):
        none = torch.empty(0, extractor.num_features)
        only = {"kind": "npz: moments only (mu, sigma)", "path": path, "sha256": sha256(Path(path))}
        return Reference(extractor.description(), None, *moments, none, only, [], [], None)
    stream = open_images(path, "reference", image_size, count, seed, extractor.device, split)
    _check_count(path, stream.count)
    kept = numpy_generator(Stream.EVALUATION, seed, 0, 4).permutation(stream.count) < features_kept
    collected = collect_features(
        stream.batches(batch_size, shared),
        extractor,
        stream.count,
        kept=kept,
        progress=progress,
        title="reference: features of {} images",
        shared=shared,
    )
    reference = None if collected is None else _of_images(path, stream, collected, moments, extractor)
    return _broadcast(reference) if shared or reference is None else reference


def _of_images(
    path: str,
    stream: ImageStream,
    found: Collected,
    moments: tuple[Tensor, Tensor] | None,
    extractor: FeatureExtractor,
) -> Reference:
    """The reference of collected features; moments of a file replace the computed ones."""
    _check_count(path, len(found))
    source: dict[str, Any] = {**stream.record, "sha256": found.sha256, "images": len(found)}
    total: int | None = len(found)
    if moments is not None:
        source["moments"], total = "mu and sigma of the file", None
    names, counts = _classes(found.labels, stream.class_names)
    mean, covariance = moments or (found.statistics.mean, found.statistics.covariance)
    size = list(found.image_size)
    return Reference(extractor.description(), total, mean, covariance, found.features, source, names, counts, size)


def _broadcast(reference: Reference | None) -> Reference:
    """The reference of rank 0, on all ranks."""
    tensors = None
    if reference is not None:
        facts = np.frombuffer(json.dumps(reference._facts()).encode(), np.uint8)
        tensors = {**reference._tensors(), "facts": torch.from_numpy(facts.copy())}
    content: dict[str, Any] = dict(broadcast_tensors(tensors))
    return reference or Reference(**json.loads(content.pop("facts").numpy().tobytes()), **content)


def _check_count(path: str, count: int) -> None:
    if count < 2:
        raise ValueError(f"reference: {path} gives {count} image(s), at least 2 are needed")


def _classes(labels: Tensor, names: list[str]) -> tuple[list[str], list[int]]:
    """Names of the classes and how many images each has; both empty without labels."""
    labels = labels[labels >= 0]
    if not len(labels):
        return [], []
    if names or int(labels.max()) < MANY_CLASSES:
        per_class = labels.bincount(minlength=len(names)).tolist()
        return names or [str(i) for i in range(len(per_class))], per_class
    numbers, counts = labels.unique(return_counts=True)
    return [str(number) for number in numbers.tolist()], counts.tolist()


def _read_moments(path: Path, extractor: FeatureExtractor) -> tuple[Tensor, Tensor] | None:
    """``mu`` and ``sigma`` of an npz file, if it has them and they are of use.

    Raises:
        ValueError: if they are of another extractor.
    """
    if path.suffix != ".npz":
        return None
    names = npz_entries(path)
    if not {"mu", "sigma"} <= names:
        return None
    if extractor.name != INCEPTION:
        if "arr_0" in names:
            return None  # the images serve any extractor
        raise ValueError(
            f"reference: {path} holds moments of {INCEPTION} features only, this evaluation uses {extractor.name}; "
            "give --inception with its weights, or a reference of images"
        )
    mean, covariance = (torch.from_numpy(_read(path, name)).double() for name in ("mu", "sigma"))
    length = extractor.num_features
    if mean.shape != (length,) or covariance.shape != (length, length):
        raise ValueError(
            f"reference: {path}: mu and sigma must be ({length},) and ({length}, {length}), they are "
            f"{tuple(mean.shape)} and {tuple(covariance.shape)}"
        )
    try:
        FeatureStatistics.from_moments(mean, covariance, 2)
    except ValueError as error:
        raise ValueError(f"reference: {path}: {error}") from None
    return mean, covariance


def _read(path: Path, name: str) -> np.ndarray:
    array = read_npz_entry(path, name)
    if array is None or array.dtype.kind != "f":
        raise ValueError(f"reference: {path}: {name} must hold floating point numbers")
    return array


def _shown(description: dict[str, Any]) -> str:
    return f"{description['name']} ({description['num_features']} features; {description['preprocessing']})"
