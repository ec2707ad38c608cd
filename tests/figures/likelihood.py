from __future__ import annotations

from collections.abc import Iterator

from tests.figures import results

SETTINGS = [r"within 1% of the truth, and its zero-shot posterior within 0\.02 nats"]  # bounds of a test


def figures() -> Iterator[str]:
    for name, file in (
        ("raster order", "likelihood_digits"),
        ("one random order", "likelihood_digits_random"),
        ("four random orders", "likelihood_digits_four"),
    ):
        found = results(file)
        nats, zero_shot = found["nats_per_token"], found["zero_shot"]
        yield (
            f"|{name}|{nats['mean']:.3f} ± {nats['standard_error']:.3f}|{zero_shot['accuracy'] * 100:.1f} ± "
            f"{zero_shot['standard_error']:.1%}|{zero_shot['negative_log_posterior']:.3f}|"
            f"{zero_shot['calibration_error']:.3f}|"
        )
    yield f"(guess: {2.302585:.3f})"
