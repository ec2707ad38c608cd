"""Cost of evaluating stored samples, next to that of the feature extractor alone.

    OMP_NUM_THREADS=1 python benchmarks/evaluation_cost.py --data cifar10/test.parquet --reference cifar10/train.parquet

Real images stand in for samples: they are written to an .npz file, as by ``heptapod evaluate --npz``, and evaluated
from it with every metric, while the time inside the extractor is measured. The reference stores 10,000 features, as a
real one does; to save time they are those of fewer images, repeated with a little noise, which does not change the
cost. Writes JSON.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from pathlib import Path

import torch
import tyro
from torch import Tensor

from heptapod.configs.evaluation import FEATURES_KEPT
from heptapod.evaluation.features import EfficientNetLite0Features
from heptapod.evaluation.generation import evaluate_images
from heptapod.evaluation.reference import make_reference
from heptapod.evaluation.streams import open_images, write_npz
from heptapod.tools.bench.results import hardware
from heptapod.utils.files import write_json


class TimedFeatures(EfficientNetLite0Features):
    """The extractor, with the seconds spent in it."""

    seconds = 0.0

    def extract_with_logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """As in the extractor."""
        started = time.perf_counter()
        result = super().extract_with_logits(images)
        self.seconds += time.perf_counter() - started
        return result


def main(
    data: str,
    reference: str,
    count: int = 5000,
    reference_images: int = 1500,
    batch_size: int = 64,
    out: Path = Path("benchmarks/results/evaluation_cost.json"),
) -> None:
    """Measures the cost of an evaluation.

    Args:
        data: Images that stand in for samples.
        reference: Real images.
        count: Number of samples.
        reference_images: Real images whose features are computed.
        batch_size: Images at a time.
        out: JSON file.
    """
    extractor = TimedFeatures()
    real = make_reference(reference, extractor, count=reference_images)
    generator = torch.Generator().manual_seed(0)
    rows = torch.arange(FEATURES_KEPT) % len(real.features)
    noise = torch.randn(FEATURES_KEPT, extractor.num_features, generator=generator) * 1e-3
    real = dataclasses.replace(real, features=real.features[rows] + noise)
    assert real.image_size is not None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "samples.npz"
        images = open_images(data, "data", count=count)
        height, width = real.image_size
        write_npz(file, count, (height, width), images.batches(batch_size), {})
        extractor.seconds = 0.0
        started = time.perf_counter()
        samples = open_images(str(file), "samples").batches(batch_size)
        result = evaluate_images(samples, real, extractor, count, batch_size=batch_size, progress=True)
        total = time.perf_counter() - started
    results = {
        "samples": count,
        "features_of_the_reference": FEATURES_KEPT,
        "batch_size": batch_size,
        "seconds": total,
        "seconds_of_the_extractor": extractor.seconds,
        "ratio": total / extractor.seconds,
        "metrics": sorted(result["metrics"]),
        **hardware(),
    }
    write_json(out, results)
    print(f"{total:.1f} s, {extractor.seconds:.1f} s of it in the extractor: {results['ratio']:.3f}")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__, use_underscores=True)
