"""Does half precision change what a model is worth? The same samples and likelihoods in float32 and in bfloat16.

    python benchmarks/precision.py RUN --reference cifar10/test.parquet --test caches/cifar10_256_test

Samples have the same seeds in both precisions, so that the kernel distances are compared on the same noise. The
likelihood is that of the same images, and its difference is paired.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import torch
from record import ROOT, provenance

from heptapod.data.cache import open_cache
from heptapod.evaluation.features import open_extractor
from heptapod.evaluation.generation_report import evaluate_samples
from heptapod.evaluation.samples import ModelSamples
from heptapod.inference.pipeline import Heptapod
from heptapod.inference.precision import dtype_name
from heptapod.likelihood import negative_log_likelihood
from heptapod.utils.files import write_json

PRECISIONS = (torch.float32, torch.bfloat16)


def main() -> None:
    """Measures both precisions and writes ``benchmarks/results/precision.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a model or run")
    parser.add_argument("--reference", required=True, help="real images, or a file that heptapod reference wrote")
    parser.add_argument("--test", type=Path, required=True, help="cache of images whose likelihood is measured")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--images", type=int, default=2000, help="images of the cache")
    parser.add_argument("--steps", type=int, default=64)
    options = parser.parse_args()
    tokens = open_cache(options.test).tokens
    extractor = open_extractor(None, torch.device("cpu"))
    rows: list[dict[str, Any]] = []
    nats: list[torch.Tensor] = []
    for dtype in PRECISIONS:
        heptapod = Heptapod.from_pretrained(options.run, dtype=dtype)
        started = time.perf_counter()
        samples = ModelSamples(heptapod, options.run, options.samples, None, (), 0, 50, {"steps": options.steps})
        report = evaluate_samples(samples, options.reference, extractor, metrics=("kernel",), batch_size=50, seed=0)
        assert report is not None
        count = min(options.images, len(tokens))
        one = negative_log_likelihood(
            heptapod.model, tokens.head(count), tokens.labels[:count], heptapod.token_order, batch_size=50
        )
        nats.append(one)
        kernel = next(iter(value for name, value in report.figures["metrics"].items() if "kernel" in name))
        rows.append(
            {
                "precision": dtype_name(dtype),
                "kernel_distance": kernel,
                "nll": float(one.mean()),
                "nll_standard_error": float(one.std() / math.sqrt(len(one))),
                "seconds": time.perf_counter() - started,
            }
        )
    difference = nats[1] - nats[0]
    results = {
        "provenance": provenance(f"python benchmarks/precision.py {options.run} --reference {options.reference}"),
        "samples": options.samples,
        "steps": options.steps,
        "images": len(difference),
        "rows": rows,
        "nll_difference": float(difference.mean()),
        "nll_difference_standard_error": float(difference.std() / math.sqrt(len(difference))),
    }
    write_json(ROOT / "benchmarks" / "results" / "precision.json", results)
    for row in rows:
        print(row)
    print(f"difference of the likelihoods {results['nll_difference']:+.5f} nats per token")


if __name__ == "__main__":
    main()
