from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import torch
from torch import Tensor

from heptapod.evaluation.collect import ROWS_AT_A_TIME, collect_features
from heptapod.evaluation.distances import FeatureStatistics, frechet_distance, kernel_distance
from heptapod.evaluation.features import INCEPTION, CallableFeatures, FeatureExtractor
from heptapod.evaluation.generation import METRICS, evaluate_images, plan_metrics
from heptapod.evaluation.manifold import manifold_metrics
from heptapod.evaluation.reference import Reference
from heptapod.evaluation.score import classifier_score


def pixels(images: Tensor) -> Tensor:
    """The first six numbers of each image, in [0, 1]."""
    return images.flatten(1)[:, :6].float() / 255


def logits(features: Tensor) -> Tensor:
    return features[:, :3] * 8


class Inception6(FeatureExtractor):
    """Takes the place of Inception: six features, three classes."""

    name = INCEPTION
    num_features = 6
    num_classes = 3
    frechet_name, kernel_name, score_name = "fid", "kid", "inception_score"

    def __init__(self) -> None:
        self.calls: list[int] = []

    def extract(self, images: Tensor) -> Tensor:
        return self.extract_with_logits(images)[0]

    def extract_with_logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        self.calls.append(len(images))
        return pixels(images), logits(pixels(images))


EXTRACTOR = CallableFeatures("pixels", 6, pixels, logits, 3)
PLAIN = CallableFeatures("pixels", 6, pixels)


def images(num: int, seed: int = 0, highest: int = 256) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, highest, (num, 3, 2, 3), generator=generator, dtype=torch.uint8)


def reference(
    extractor: FeatureExtractor = EXTRACTOR, num: int = 60, kept: int | None = None, count: int | None = 60
) -> Reference:
    features = pixels(images(num, seed=9))
    statistics = FeatureStatistics(6)
    statistics.add(features)
    moments = statistics.mean, statistics.covariance
    return Reference(extractor.description(), count, *moments, features[:kept], {"kind": "test"}, [], [], [2, 3])


def test_values_are_those_of_the_metrics() -> None:
    generated, real = images(40, highest=200), reference()
    found = evaluate_images(generated, real, EXTRACTOR, seed=5)
    metrics, features = found["metrics"], pixels(generated)
    statistics = FeatureStatistics(6)
    statistics.add(features)
    assert metrics["frechet_distance[pixels]"] == pytest.approx(frechet_distance(statistics, real.statistics))
    kernel = dataclasses.asdict(kernel_distance(real.features, features, seed=5))
    assert metrics["kernel_distance[pixels]"] == kernel
    score = classifier_score(logits(features), seed=5)
    assert metrics["classifier_score[pixels]"] == {**dataclasses.asdict(score), "splits": 10}
    for name, value in dataclasses.asdict(manifold_metrics(real.features, features)).items():
        assert metrics[f"{name}[pixels]"] == value
    assert len(metrics) == 7
    assert found["left_out"] == {}
    assert found["samples"] == {"count": 40, "image_size": [2, 3], "sha256": found["samples"]["sha256"]}
    assert found["reference"]["sha256"] == real.sha256()
    assert found["evaluator"] == EXTRACTOR.description()
    assert json.loads(json.dumps(found)) == found


def test_only_inception_has_the_known_names() -> None:
    inception = Inception6()
    found = evaluate_images(images(40), reference(inception), inception)["metrics"]
    others = [f"{name}[inception-v3]" for name in ("precision", "recall", "density", "coverage")]
    assert list(found) == ["fid", "kid", "inception_score", *others]


@pytest.mark.parametrize("batch_size", [1, 7, 40])
def test_does_not_depend_on_batches(batch_size: int) -> None:
    generated = images(40)
    whole = evaluate_images(generated, reference(), EXTRACTOR)
    parts = generated.split(batch_size)
    assert evaluate_images(generated, reference(), EXTRACTOR, batch_size=batch_size) == whole
    assert evaluate_images(iter(parts), reference(), EXTRACTOR) == whole
    labeled = ((part, torch.full((len(part),), -1)) for part in parts)
    assert evaluate_images(labeled, reference(), EXTRACTOR, count=40) == whole


def test_one_pass_gives_features_and_logits() -> None:
    inception = Inception6()
    evaluate_images(images(40), reference(inception), inception, batch_size=16)
    assert inception.calls == [16, 16, 8]


def test_many_images_are_counted_in_blocks() -> None:
    """Streaming statistics equal those of the whole, and to the bit those of other batches."""
    many = images(2 * ROWS_AT_A_TIME + 5)
    labels = torch.arange(len(many)) % 4

    def collect(size: int) -> Any:
        batches = zip(many.split(size), labels.split(size), strict=True)
        return collect_features(batches, EXTRACTOR, len(many), progress=False)

    found, other = collect(1000), collect(333)
    assert torch.equal(found.statistics.covariance, other.statistics.covariance)
    assert found.sha256 == other.sha256
    assert torch.equal(found.labels, labels)
    assert len(found) == len(many)
    features = pixels(many).double()
    assert torch.allclose(found.statistics.mean, features.mean(0), rtol=1e-6)
    assert torch.allclose(found.statistics.covariance, features.T.cov(), rtol=1e-6)


def test_what_the_numbers_do_not_allow_is_left_out() -> None:
    chosen, left_out = plan_metrics(EXTRACTOR, reference(), 6)
    assert chosen == ["kernel", "precision_recall", "density_coverage"]
    assert {name: each.needed for name, each in left_out.items()} == {
        "frechet_distance[pixels]": 7, "classifier_score[pixels]": 10
    }  # fmt: skip
    found = evaluate_images(images(6), reference(), EXTRACTOR)
    assert found["left_out"]["frechet_distance[pixels]"] == {"reason": "needs 7 samples, 6 given", "needed": 7}
    assert set(found["metrics"]) | set(found["left_out"]) == set(
        evaluate_images(images(20), reference(), EXTRACTOR)["metrics"]
    )
    chosen, left_out = plan_metrics(PLAIN, reference(kept=0, count=None), 100)
    assert chosen == ["frechet"]
    assert left_out["classifier_score[pixels]"].reason == "the extractor pixels has no classes"
    assert "needs 6 features kept in the reference" in left_out["coverage[pixels]"].reason


@pytest.mark.parametrize(
    ("metric", "needed"),
    [("frechet", 7), ("kernel", 4), ("score", 10), ("precision_recall", 6), ("density_coverage", 6)],
)
def test_every_metric_has_a_smallest_number_of_samples(metric: Any, needed: int) -> None:
    found = evaluate_images(images(needed), reference(), EXTRACTOR, metrics=[metric])
    assert set(found["metrics"]).isdisjoint(found["left_out"])
    assert found["left_out"]
    with pytest.raises(ValueError, match=f"metrics: {metric} needs {needed} samples, {needed - 1} given"):
        evaluate_images(images(needed - 1), reference(), EXTRACTOR, metrics=[metric])


@pytest.mark.parametrize(
    ("metric", "needed"), [("kernel", 4), ("precision_recall", 6), ("density_coverage", 6), ("frechet", 7)]
)
def test_every_metric_has_a_smallest_reference(metric: Any, needed: int) -> None:
    def small(num: int) -> Reference:
        return reference(kept=None if metric == "frechet" else num, count=num)

    evaluate_images(images(20), small(needed), EXTRACTOR, metrics=[metric])
    what = "images in the reference" if metric == "frechet" else "features kept in the reference"
    with pytest.raises(ValueError, match=f"metrics: {metric} needs {needed} {what}.*, {needed - 1} given"):
        evaluate_images(images(20), small(needed - 1), EXTRACTOR, metrics=[metric])


def test_what_no_reference_helps_is_refused_without_one() -> None:
    assert plan_metrics(EXTRACTOR, None, 6)[0] == plan_metrics(EXTRACTOR, reference(), 6)[0]
    with pytest.raises(ValueError, match="metrics: frechet needs 7 samples, 6 given"):
        plan_metrics(EXTRACTOR, None, 6, ["frechet"])


def test_what_was_asked_for_is_refused_before_images_are_made() -> None:
    def never() -> Any:
        raise AssertionError("an image was made")
        yield

    with pytest.raises(ValueError, match="metrics: frechet needs 7 samples, 5 given"):
        evaluate_images(never(), reference(), EXTRACTOR, count=5, metrics=["frechet"])
    with pytest.raises(ValueError, match="made with the extractor pixels .* uses other"):
        evaluate_images(never(), reference(), CallableFeatures("other", 6, pixels))


def bad_images() -> list[tuple[Any, str]]:
    good = images(8)
    return [
        (good.float() / 255, r"uint8 from 0 to 255 expected, torch.float32 from 0\.?.* to .* given"),
        (good.long(), "uint8 from 0 to 255 expected, torch.int64"),
        (good[:, :1], r"\(B, 3, h, w\) expected, \(8, 1, 2, 3\) given"),
        (good.permute(0, 2, 3, 1), r"\(B, 3, h, w\) expected, \(8, 2, 3, 3\) given"),
        ([good[0]], r"\(B, 3, h, w\) expected, \(3, 2, 3\) given"),
        (images(8, highest=2), "all given are 0 or 1; were they scaled to 1"),
        ([good, good[..., :2]], "2×2 pixels after others of 2×3; one size is needed"),
        ([], "images: none given"),
    ]


@pytest.mark.parametrize(("bad", "message"), bad_images())
def test_bad_images(bad: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate_images(bad, reference(), EXTRACTOR)


def test_other_errors() -> None:
    with pytest.raises(ValueError, match="metrics: 'fid' given, must be among frechet, kernel, score"):
        plan_metrics(EXTRACTOR, reference(), 100, ["fid"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="metrics: none given"):
        plan_metrics(EXTRACTOR, reference(), 100, [])
    with pytest.raises(ValueError, match="metrics: none can be measured: needs 7 samples, 3 given"):
        plan_metrics(EXTRACTOR, reference(kept=0), 3)
    with pytest.raises(ValueError, match="batch_size: 0 given"):
        evaluate_images(images(8), reference(), EXTRACTOR, batch_size=0)
    nan = CallableFeatures("pixels", 6, lambda x: pixels(x) * float("nan"))
    with pytest.raises(ValueError, match="pixels: the features of images 0 and on are not all finite"):
        evaluate_images(images(8), reference(), nan)
    assert set(METRICS) == {"frechet", "kernel", "score", "precision_recall", "density_coverage"}
