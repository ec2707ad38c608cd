from __future__ import annotations

from collections.abc import Iterator

from tests.figures import results, row
from tests.figures.claim import BUDGETS, differences
from tests.figures.studies import CIFAR10, arm, cifar10_seconds, figure, training_minutes

SETTINGS = [
    r"LlamaGen-B, L, 3B: 26\.3, 13\.5, 9\.38|MAR-B, L, H: 3\.48, 2\.60, 2\.35|Heptapod-H: 2\.70",  # FID of the papers
    "Apache-2.0",
    r"the CPU build instead \(200 MB\)",  # a download of PyTorch
    "killed ten times",  # by a test
    r"Python 3\.11 or newer, PyTorch 2\.11 or newer",
]


def figures() -> Iterator[str]:
    demo, likelihood = results("demo"), results("likelihood_digits")
    minutes = f"{demo['seconds']['this_command'] / 60:.0f} minutes"
    yield f"The demo model: 0.3M parameters, {minutes} on one CPU core."
    yield f"installs into .venv, trains on real digits, samples and evaluates: {minutes} after the installation"
    yield f"{minutes}, one CPU core: digits"
    yield f"zero-shot classification ({likelihood['zero_shot']['accuracy']:.1%} of held-out digits)"
    yield from quality_table()
    yield from claim()


def quality_table() -> Iterator[str]:
    budget, (baseline, cross) = "time-1130", CIFAR10["raster"]
    rows = results("sampling_baselines")["rows"]

    def speed(model: str, steps: int) -> str:
        rates = (row(rows, model=model, batch=batch, steps=steps)["images_per_second"] for batch in (1, 8))
        return "|".join(f"{rate:.2f}" for rate in rates)

    def distance(head: str, steps: int) -> str:
        return figure(budget, head, "raster", f"kernel_distance_at_{steps}")

    yield f"|next_token, the baseline here|64, one per token|{distance(baseline, 64)}|"
    yield f"|cross, the default here|64, one per token|{distance(cross, 64)}|"
    yield f"|cross|8|{distance(cross, 8)}|"
    one = "256, one per token"
    yield f"|next_token with a key-value cache (the architecture of LlamaGen)|{one}|{speed('next_token', 256)}|"
    yield f"|cross|{one}|{speed('cross', 256)}|"
    yield f"|cross|16|{speed('cross', 16)}|"
    yield f"|a masked model (the architecture of MAR)|16|{speed('masked', 16)}|"
    trained = arm("cifar10", budget, cross)
    sampled = trained[0]["samples_at_64"]
    yield (
        f"{sampled['settings']['samples']} samples against {sampled['settings']['reference_images']:,} test images, "
        f"temperature {sampled['sampling']['temperature']}; each head has {trained[0]['parameters'] / 1e6:.2f}M "
        f"parameters and trains for {cifar10_seconds(budget):.0f} s on one CPU core; raster order, three seeds, ± "
        "standard error over seeds"
    )


def claim() -> Iterator[str]:
    yield f"{training_minutes()} of one CPU core"
    yield from differences()
    *times, last = (f"{cifar10_seconds(budget):.0f} s" for budget in BUDGETS)
    yield f"after {', '.join(times)} and {last}"
    apart = figure("epochs-24", "cross-all-1", "raster", "nll", baseline="next_token-all-1", study="repeat")
    mixed = figure("epochs-64", "cross-all-1", "mixed", "nll", baseline="next_token-all-1", study="repeat_mixed")
    yield f"the cross head is better by {mixed} nats per token in mixed order"
    yield f"and by {apart} nats per token in raster order"
