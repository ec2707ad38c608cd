"""Figures of docs/concepts.md."""

from __future__ import annotations

from collections.abc import Iterator

from tests.figures import results, row

SETTINGS = [
    r"0\.3 million parameters",
    r"float32: 1e-4 on logits|within 1% of the true entropy|within 0\.02 nats of the exact marginals",  # of tests
]
VARIANTS = {
    ("masked", None, None): "masked, as MAR",
    ("next_token", "all", 1): "next_token",
    ("cross", "all", 1): "cross, default",
    ("group", 16, 8): "group",
    ("group", 2, "all"): "group",
    ("global", 1, "all"): "global, default",
    ("global", 2, "all"): "global",
    ("global", 4, "all"): "global",
}


def figures() -> Iterator[str]:
    heads = results("potts")["heads"]
    for name, text in (
        ("excess", "{:.1%} above the entropy with a cross head and {:.1%} with a global head"),
        ("marginal_kl", "the marginals are {:.3f} and {:.3f} nats from the exact ones"),
        ("pair_error", "more than {:.3f} and {:.3f} off"),
    ):
        yield text.format(*(heads[kind][name] for kind in ("cross", "global")))
    for (head, prefixes, targets), name in VARIANTS.items():
        times = [
            row(
                results(f"group_cost_{tokens}")["rows"],
                head=head,
                prefixes_per_image=prefixes,
                targets_per_prefix=targets,
            )["relative_to_masked"]
            for tokens in ("vectors", "codes")
        ]
        density = "|".join("–" if value is None else str(value) for value in (prefixes, targets))
        yield f"|{name}|{density}|{times[0]:.2f}|{times[1]:.2f}|"
