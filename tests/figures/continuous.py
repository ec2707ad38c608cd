from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.figures import results, row

SETTINGS = [
    r"of the 941M model|1,400 steps \(2 targets per prefix",
    r"\|(?:model|tokenizer): (?:parameters|training)\|.*",
    r"from its map \(1e-3\)",  # bounds of tests
    r"deviations from 0\.15 to 1\.5|within 2% \(default\) and 5% \(fast\)|within 0\.02(?: and 0\.05| of 20,000)",
    r"the defaults? of 0\.1\.0|s of 0\.1 and less",
    r"\|solver\|evaluations\|s = .*",
    r"from its map \(1e-3\)|Normals with standard deviations from .* Mixtures: weights within 0\.02 of",  # of tests
    r"temperature 0\.95 to 1,",
    r"at most 1\.5 times as far|at most 0\.03 standard|conditional variances 3%|log-likelihood 0\.01 nats",  # of tests
    r"at most 1\.5 times as far|at most 0\.03 standard deviations of the field|variances 3%|at most 0\.01 nats",
]
SOLVERS = {
    "diffusion": {"multistep": (8, 12), "ddim": (8, 12)},
    "flow": {"multistep": (8, 12), "euler": (8, 25), "heun": (24,)},
}
SCHEDULERS = {
    "DPMSolverMultistepScheduler": "DPM-Solver++ of diffusers",
    "UniPCMultistepScheduler": "UniPC of diffusers",
}
TEST_ROWS = (("multistep, 12 evaluations (default)", "multistep", 12, 0.9), ("the same", "multistep", 12, 1.0))
TEMPERATURES = (0.85, 0.9, 0.95, 1.0, 1.05)


def figures() -> Iterator[str]:
    yield from exact()
    yield from models()
    yield from temperature()
    yield from test()
    yield from other_solvers()
    yield from settings()
    yield from default_cost()
    yield from cost()


def distance(found: dict[str, Any]) -> str:
    kernel = found["kernel_distance"]
    return f"{kernel['mean']:.3f} ± {kernel['standard_error']:.3f}"


def exact() -> Iterator[str]:
    rows = results("cell_exact")["rows"]
    for kind, solvers in SOLVERS.items():
        for solver, counts in {**solvers, **dict.fromkeys(SCHEDULERS, (12,))}.items():
            for count in counts:
                found = row(rows, kind=kind, solver=solver, evaluations=count)
                spread = "|".join(f"{found['spread'][s]:.3f}" for s in ("0.05", "0.1", "0.3", "0.7", "1.0", "1.5"))
                name = f"{kind}, {SCHEDULERS.get(solver, solver)}"
                yield f"|{name}|{count}|{spread}|{found['mixture_distance']:.4f}|"


def models() -> Iterator[str]:
    old, new = results("cell_quality"), results("cell_test")
    codes, flow = (old["models"][name] for name in ("vq", "flow"))
    own = [distance(old["reconstructions"][model["tokenizer_sha256"]]) for model in (codes, flow)]
    yield f"|kernel distance of the tokenizer's reconstructions|{own[0]}|{own[1]}|"
    sampled = row(old["rows"], model="vq"), row(new["rows"], solver="multistep", evaluations=12, temperature=1.0)
    yield f"|kernel distance of 500 samples, temperature 1|{distance(sampled[0])}|{distance(sampled[1])}|"
    yield f"Two halves of the real images are {old['halves']['kernel_distance']['mean']:.3f} apart."


def temperature() -> Iterator[str]:
    held_out = results("cell_temperature")["rows"]
    cells = [distance(row(held_out, temperature=one, solver="multistep", evaluations=12)) for one in TEMPERATURES]
    yield f"|temperature|{'|'.join(map(str, TEMPERATURES))}|"
    yield f"|kernel distance|{'|'.join(cells)}|"


def test() -> Iterator[str]:
    rows = results("cell_test")["rows"]
    yield "|solver|temperature|kernel distance|"
    for name, solver, evaluations, warmth in TEST_ROWS:
        yield f"|{name}|{warmth}|{distance(row(rows, solver=solver, evaluations=evaluations, temperature=warmth))}|"


def other_solvers() -> Iterator[str]:
    rows = results("cell_quality")["rows"]
    columns = [("flow", "euler"), ("flow", "heun"), ("diffusion", "ancestral"), ("diffusion", "ddim")]
    for name, count in (("4", 4), ("8", 8), ("12", 12), ("25 (Heun 26)", 25), ("50", 50), ("100", 100)):
        counts = [26 if (solver, count) == ("heun", 25) else count for _, solver in columns]
        found = [row(rows, model=m, solver=s, evaluations=n) for (m, s), n in zip(columns, counts, strict=True)]
        yield f"|{name}|{'|'.join(map(distance, found))}|"


def settings() -> Iterator[str]:
    rows = results("cell_settings")["rows"]
    usual = row(rows, model="flow", temperature=0.95, token_steps=0)
    grid = [row(rows, model="flow", token_steps=steps) for steps in (8, 16, 32)]
    yield f"|kernel distance|{'|'.join(map(distance, [*grid, usual]))}|"
    yield (
        f"Weights averaged with 0.999 (the default) give {distance(usual)}, the last weights "
        f"{distance(row(rows, model='flow_raw'))}"
    )


def default_cost() -> Iterator[str]:
    rows = results("cell_default_cost")["rows"]

    def milliseconds(kind: str, solver: str, evaluations: int) -> str:
        found = row(rows, kind=kind, modulation="separable", solver=solver, evaluations=evaluations)
        return f"{found['cells_milliseconds']:.0f}"

    yield (
        f"diffusion {milliseconds('diffusion', 'multistep', 12)} ms (DDIM with 12 evaluations: "
        f"{milliseconds('diffusion', 'ddim', 12)} ms), flow {milliseconds('flow', 'multistep', 12)} ms (Euler with 25 "
        f"evaluations: {milliseconds('flow', 'euler', 25)} ms)."
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
