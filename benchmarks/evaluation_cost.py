"""What an evaluation of kept samples costs beside the feature extractor alone.

    OMP_NUM_THREADS=1 python benchmarks/evaluation_cost.py --data cifar10/test.parquet --reference cifar10/train.parquet

Images stand in for samples: they are written to an .npz file, as ``heptapod evaluate --npz`` keeps samples, and
evaluated from it with every metric. The time inside the extractor is taken in the same run. The reference keeps 10,000
features, as a real one does; to save time they are those of fewer images, repeated with a little noise, which changes
no cost. Writes JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path

import torch
from heptapod.tools.bench.hardware import hardware
from torch import Tensor

from heptapod.evaluation.features import EfficientNetLite0Features
from heptapod.evaluation.generation import evaluate_images
from heptapod.evaluation.reference import FEATURES_KEPT, make_reference
from heptapod.evaluation.streams import open_images, write_npz
from heptapod.utils.files import write_json


class TimedFeatures(EfficientNetLite0Features):
    """The extractor, with the seconds spent in it."""

    seconds = 0.0

    def extract_with_logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """As in the extractor."""
        started = time.perf_counter()
        found = super().extract_with_logits(images)
        self.seconds += time.perf_counter() - started
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="images that stand in for samples")
    parser.add_argument("--reference", required=True, help="real images")
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--reference_images", type=int, default=1500)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/evaluation_cost.json"))
    args = parser.parse_args()
    extractor = TimedFeatures()
    reference = make_reference(args.reference, extractor, count=args.reference_images)
    generator = torch.Generator().manual_seed(0)
    rows = torch.arange(FEATURES_KEPT) % len(reference.features)
    noise = torch.randn(FEATURES_KEPT, extractor.num_features, generator=generator) * 1e-3
    reference = dataclasses.replace(reference, features=reference.features[rows] + noise)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "samples.npz"
        images = open_images(args.data, "data", count=args.count)
        assert reference.image_size is not None
        height, width = reference.image_size
        write_npz(file, args.count, (height, width), images.batches(args.batch_size), {})
        extractor.seconds = 0.0
        started = time.perf_counter()
        samples = open_images(str(file), "samples")
        found = evaluate_images(
            samples.batches(args.batch_size),
            reference,
            extractor,
            args.count,
            batch_size=args.batch_size,
            progress=True,
        )
        total = time.perf_counter() - started
    results = {
        "samples": args.count,
        "features_of_the_reference": FEATURES_KEPT,
        "batch_size": args.batch_size,
        "seconds": total,
        "seconds_of_the_extractor": extractor.seconds,
        "ratio": total / extractor.seconds,
        "metrics": sorted(found["metrics"]),
        **hardware(torch.device("cpu")),
    }
    write_json(args.out, results)
    print(f"{total:.1f} s, {extractor.seconds:.1f} s of it in the extractor: {results['ratio']:.3f}")


if __name__ == "__main__":
    main()
