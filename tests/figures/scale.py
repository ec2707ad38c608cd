from __future__ import annotations

from collections.abc import Iterator

from tests.figures import results

SETTINGS = [
    r"at least 2,000 steps or 20 minutes",
    "not done after 30 s|at 40% of the peak in bfloat16",
    r"Their schedule is after MAR .*four noise levels per cell",
    r"\|(?:dropout|moving average|epochs|precision|latents)\|.*",  # of the recipes and of MAR
    r"decays 0\.9 and 0\.95|rate of 8e-4|weight decay 0\.02|moving average of 0\.9999|probability 0\.1\b",
    r"\|0\.1, on attention|\|0\.9999 from the first step|multiplied by 0\.2325",
]


def figures() -> Iterator[str]:
    for name, plan in results("plans")["plans"].items():
        if name.startswith("plan "):
            continue
        gpus, hours = plan["hardware"]["gpus"], plan["time"]["gpu_hours"]
        yield (
            f"|{name}|{plan['parameters']['total'] / 1e6:,.0f}M|{plan['flops']['per_image']['total'] / 1e12:.2f} T|"
            f"{gpus}|"
            f"{plan['memory']['at_peak']['peak'] / (1 << 30):.0f} GiB|{plan['time']['days']:.1f}|{hours:,.0f}|"
            f"{plan['sampling']['flops']['total'] / 1e12:.2f} T|"
        )
