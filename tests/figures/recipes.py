"""The descriptions of the recipes and of the studies."""

from __future__ import annotations

from collections.abc import Iterator

from tests.figures import results

SETTINGS = ["GPUs of 80 GB", r"--crop-scale 1\.15", r"with dropout 0\.\d", r"each seen 24 times", r"\(1\.7 per token\)"]


def figures() -> Iterator[str]:
    for name, plan in results("plans")["plans"].items():
        if not name.startswith("plan "):
            yield (
                f"The planner estimates, at 40% of {plan['hardware']['gpus']} H100s' peak: {plan['time']['days']:.1f} "
                f"days, {plan['time']['gpu_hours']:,.0f} GPU-hours."
            )
    demo = results("demo")
    shares = [f"{found['accuracy']:.0%}" for found in demo["results"]]
    yield f"in about {demo['seconds']['this_command'] / 60:.0f} minutes on one CPU core"
    few = "at 8." if shares[0] == shares[1] else f"{shares[1]} at 8."
    yield f"{shares[0]} of its digits are recognized at 49 steps and {few}"
