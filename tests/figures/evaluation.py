from __future__ import annotations

from collections.abc import Iterator

from tests.figures import results

SETTINGS = ["400 MB of Inception features and 200 MB of logits"]  # their sizes, counted


def figures() -> Iterator[str]:
    found = results("evaluation_cost")
    yield (
        f"{found['samples']:,} samples of 32×32 from a file, every metric, a reference of "
        f"{found['features_of_the_reference']:,} features: {found['ratio']:.2f} times the time spent in "
        f"EfficientNet-Lite0 ({found['seconds']:,.0f} and {found['seconds_of_the_extractor']:,.0f} s on one thread "
        "of a busy machine;"
    )
