from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.figures import results, row

SETTINGS = [
    r"of the 941M model|1,400 steps \(2 targets per prefix",
    r"\|(?:model|tokenizer): (?:parameters|training)\|.*",
    r"from its map \(1e-3\)",  # a bound of a test
    r"temperature 0\.95 to 1,",
    r"at most 1\.5 times as far|at most 0\.03 standard deviations of the field|variances 3%|at most 0\.01 nats",
]


def figures() -> Iterator[str]:
    yield from models()
    yield from steps_per_cell()
    yield from settings()
    yield from cost()


def distance(found: dict[str, Any]) -> str:
    kernel = found["kernel_distance"]
    return f"{kernel['mean']:.3f} ± {kernel['standard_error']:.3f}"


def models() -> Iterator[str]:
    found = results("cell_quality")
    codes, flow = (found["models"][name] for name in ("vq", "flow"))
    own = [distance(found["reconstructions"][model["tokenizer_sha256"]]) for model in (codes, flow)]
    yield f"|kernel distance of the tokenizer's reconstructions|{own[0]}|{own[1]}|"
    sampled = row(found["rows"], model="vq"), row(found["rows"], model="flow", solver="euler", evaluations=25)
    yield f"|kernel distance of 500 samples, temperature 1|{distance(sampled[0])}|{distance(sampled[1])}|"
    yield f"Two halves of the real images are {found['halves']['kernel_distance']['mean']:.3f} apart."


def steps_per_cell() -> Iterator[str]:
    rows = results("cell_quality")["rows"]
    columns = [("flow", "euler"), ("flow", "heun"), ("diffusion", "ancestral"), ("diffusion", "ddim")]
    for name, count in (("4", 4), ("8", 8), ("12", 12), ("25 (Heun 26)", 25), ("50", 50), ("100", 100)):
        cells = []
        for model, solver in columns:
            evaluations = 26 if (solver, count) == ("heun", 25) else count
            found = row(rows, model=model, solver=solver, evaluations=evaluations)
            cells.append(f"{distance(found)} ({found['seconds_per_image_in_cells'] * 1000:.0f} ms)")
        yield f"|{name}|{'|'.join(cells)}|"
    fast, default = (row(rows, model="flow", solver="euler", evaluations=n)["kernel_distance"]["mean"] for n in (8, 25))
    yield f"DDIM loses nothing measurable, Euler {fast - default:.2f}."


def settings() -> Iterator[str]:
    rows = results("cell_settings")["rows"]
    usual = row(rows, model="flow", temperature=0.95, token_steps=0)
    default = row(results("cell_quality")["rows"], model="flow", solver="euler", evaluations=25)
    warm = [
        default if temperature == 1.0 else row(rows, model="flow", temperature=temperature, token_steps=0)
        for temperature in (0.85, 0.9, 0.95, 1.0, 1.05)
    ]
    yield "|temperature (64 steps)|0.85|0.9|0.95|1.0|1.05|"
    yield f"|kernel distance|{'|'.join(map(distance, warm))}|"
    grid = [row(rows, model="flow", token_steps=steps) for steps in (8, 16, 32)]
    yield f"|kernel distance|{'|'.join(map(distance, [*grid, usual]))}|"
    yield (
        f"Weights averaged with 0.999 (the default) give {distance(usual)}, the last weights "
        f"{distance(row(rows, model='flow_raw'))}"
    )


def cost() -> Iterator[str]:
    rows = results("cell_cost")["rows"]
    times = [one["transformer_milliseconds"] for one in rows]
    yield f"The Transformer takes {min(times):.0f} to {max(times):.0f} ms per step"
    for kind, modulation, name in (
        ("flow", "joint", "flow, joint ({:.1f}M parameters)"),
        ("flow", "separable", "flow, separable ({:.1f}M)"),
        ("diffusion", "joint", "diffusion, joint"),
        ("diffusion", "separable", "diffusion, separable"),
    ):
        found = [
            row(rows, kind=kind, modulation=modulation, evaluations=count) for count in (4, 5, 6, 8, 12, 25, 50, 100)
        ]
        cells = [f"{one['ratio']:.2f}" if one["ratio"] < 9.995 else f"{one['ratio']:.1f}" for one in found]
        yield f"|{name.format(found[0]['mlp_parameters'] / 1e6)}|{'|'.join(cells)}|"
