from __future__ import annotations

import re
from collections.abc import Iterator

from tests.figures import results
from tests.figures import row as row_of

SETTINGS = [
    r"within 0\.5% with a global head|within 3% at size B|within 1% of the count by autograd's",  # bounds of tests
    r"The default of 40%",
    r"may be 1\.4 times the stored one|or three times on a processor that is not stored",
    r"one run of less than nine minutes|a training of two minutes",  # time limits
]
MIB = 1 << 20
EXAMPLES = {
    "plan imagenet256_b_vae_cross --gpus 8 --gpu h100": (
        *("parameters", "FLOPs per image", "memory of a GPU", "speed", "training", "sampling", "token cache"),
        *("checkpoint", "It fits", "--train."),
    ),
    "plan imagenet256_h_vae --gpus 8 --train.strategy ddp --train.activation_checkpointing false": (
        *("It does not fit", "Options that fit", "--train."),
    ),
}


def figures() -> Iterator[str]:
    yield from printed_plans()
    yield from bench_training()


def printed_plans() -> Iterator[str]:
    """The lines of the printed plans that the page shows, word for word."""
    for command, starts in EXAMPLES.items():
        for line in results("plans")["plans"][command]["printed"]:
            text = re.sub(r"[\s│]+", " ", line).strip()
            if text.startswith(starts):
                yield text


def bench_training() -> Iterator[str]:
    found = results("training_demo")
    for row in found["rows"]:
        name = "cross:all/1 (the recipe)" if row["model"] == "cross:all/1" else row["model"]
        relative = "1" if row["model"] == "next_token" else f"{row['time_of_next_token']:.2f}"
        yield (
            f"|{name}|{row['images_per_second']:.0f}|{row['supervised_cells_per_second']:,.0f}|{row['utilization']:.1%}|"
            f"{relative}|{row['peak_bytes'] / MIB:.0f} MiB|{row['planned_bytes'] / MIB:.0f} MiB|"
        )
        small = sum(row["phases"][name] for name in ("data", "optimizer", "EMA"))
        assert small / sum(row["phases"].values()) < 0.03
        assert (small + row["phases"]["supervision"]) / sum(row["phases"].values()) < 0.04
    large = row_of(results("training_size_b")["rows"], model="cross:all/1")["time_of_next_token"]
    yield f"with its default objective takes {large:.2f} times that of next_token"
    yield "data, supervision, optimizer and moving average are below 4% together"
    speed = results("training_speed")
    codes, vectors = speed["imagenet256_b_vq_cross"], speed["imagenet256_b_vae_cross"]
    yield f"is {codes['bfloat16']:.2f} times as fast as in float32 for codes"
    yield f"{vectors['bfloat16']:.2f} times as fast for vectors"
    yield f"it takes {1 / vectors['of masked']:.2f} times as long as a step of a masked model"
    yield f"The measured peak of this processor was {found['peak']['flops_per_second'] / 1e9:.0f} GFLOP/s."
