"""The sampling benchmark: what it measures and what it makes of it. Nothing here depends on how fast a machine is."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from heptapod.configs.models import HeadConfig, ModelConfig
from heptapod.grid import GridSpec
from heptapod.models.heptapod import build_model
from heptapod.tools.bench.baselines import MaskedBaseline, sample_masked
from heptapod.tools.bench.cases import Case, Speed, build, cache_bytes, predict_seconds
from heptapod.tools.bench.config import MODELS, SamplingBench
from heptapod.tools.bench.memory import cpu_peaks
from heptapod.tools.bench.report import exponents, growth_exponent, ratios, to_json, to_markdown
from heptapod.tools.bench.sampling import Row, measure, plan

CPU = torch.device("cpu")
CODES = 12
ROW = Row("B", "cross", 256, 8, 16, "float32", 1000, 2, 16, 4.0, 0.5, 2.0, 250.0, 1 << 20, 1 << 19)


def row(model: str, cells: int, steps: int, seconds: float, batch: int = 8, peak: int | None = None) -> Row:
    """A synthetic row of size B."""
    return dataclasses.replace(
        ROW, model=model, cells=cells, steps=steps, batch=batch, seconds=seconds, seconds_per_image=seconds / batch,
        images_per_second=batch / seconds, peak_bytes=peak,
    )  # fmt: skip


@pytest.fixture(scope="module")
def masked() -> MaskedBaseline:
    model = build("tiny", "masked", CODES, CPU)
    assert isinstance(model, MaskedBaseline)
    return model.on_grid(4, 4)


def test_every_model_has_its_rows() -> None:
    bench = SamplingBench(
        ("tiny",), grids=(3, 4), batches=(2,), steps=("4", "all"), repeats=1, vocabulary=CODES, threads=1, device="cpu"
    )
    rows, skipped = measure(bench)
    assert not skipped
    found = {(r.model, r.cells, r.steps) for r in rows}
    expected = {(m, n, s) for m in MODELS for n in (9, 16) for s in (4, n) if m != "next_token" or s == n}
    assert found == expected
    assert len(rows) == len(expected), "next_token is measured once, whatever steps are asked for"
    for r in rows:
        assert r.batch == 2
        assert r.images_per_second == pytest.approx(2 / r.seconds)
        assert r.milliseconds_per_step == pytest.approx(1000 * r.seconds / r.steps)
        assert r.timed_steps == (2 if r.model == "masked" else r.steps)
        assert (r.cache_bytes == 0) == (r.model == "masked")
    assert {e.steps for e in exponents(rows)} == {4, "all"}
    report = json.loads(json.dumps(to_json({"processor": "x", "cores": 1, "threads": 1, "device": "cpu", "torch": "0"},
                                           bench, rows, skipped)))  # fmt: skip
    assert len(report["rows"]) == len(rows)
    text = to_markdown(report)
    assert text.count("| tiny | global_approximate |") == 4 + 2 * ("peak memory" in text) + 2
    assert "4 (2 run)" in text


def test_the_peak_grows_with_the_batch() -> None:
    """Memory of 64 images' caches and activations stands out of what a process needs anyway."""
    cases = [Case("tiny", "cross", 8, batch, 2) for batch in (1, 64)]
    small, large = cpu_peaks(cases, CODES, 1)
    if small is None or large is None:
        pytest.skip("this system does not tell the peak of a resident set")
    held = cache_bytes(build("tiny", "cross", CODES, CPU), cases[1])
    assert held == 64 * (6 * 2 * 65 * 64 * 4 + 65 * 64 * 4 + 65 * 8), "keys and values, hidden states, cells"
    assert held * 0.9 < large - small < held * 12


def test_masked_sampling_fills_the_grid(masked: MaskedBaseline) -> None:
    first = sample_masked(masked, [0, 1, 2], [1, 5, 10])
    assert first.shape == (3, 16)
    assert 0 <= int(first.min()) <= int(first.max()) < CODES
    assert torch.equal(first, sample_masked(masked, [0, 1, 2], [1, 5, 10]))
    assert torch.equal(first[1:], sample_masked(masked, [1, 2], [1, 5, 10])), "an image depends on its seed only"
    assert len(first.unique(dim=0)) == 3


def test_masked_sampling_runs_everything_again(masked: MaskedBaseline, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []
    for block in masked.blocks:
        block.register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape)))
    sample_masked(masked, [0, 1], [4, 4, 8])
    assert shapes == 3 * len(masked.blocks) * [(2, 1 + 16, 64)], "condition and all cells, in every block and step"
    shapes.clear()
    sample_masked(masked, [0, 1], [4, 4, 8], only=[0, 2])
    assert len(shapes) == 2 * len(masked.blocks)


def test_masked_features_depend_on_read_cells_only(masked: MaskedBaseline) -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(CODES, (1, 16), generator=generator)
    is_read = torch.arange(16).unsqueeze(0) < 6
    wanted = torch.tensor([[9, 15]])
    features = masked(tokens, is_read, wanted)
    for cell, matters in ((3, True), (12, False)):
        other = tokens.clone()
        other[0, cell] = (other[0, cell] + 1) % CODES
        assert torch.equal(features, masked(other, is_read, wanted)) != matters


def test_baselines_have_as_many_parameters() -> None:
    count = {
        kind: sum(p.numel() for p in build("tiny", kind, 1024, CPU).parameters())
        for kind in ("cross", "next_token", "global", "masked")
    }
    assert count["next_token"] == count["cross"]
    assert count["masked"] == pytest.approx(count["cross"], rel=0.01)
    trained = build_model(ModelConfig("tiny", head=HeadConfig("cross")), GridSpec(8, 8, 1024), 1000, seed=0)
    assert sum(p.numel() for p in trained.parameters()) == count["cross"]


def test_weights_are_those_of_a_fresh_model() -> None:
    """Scales of ones, biases of zeros, matrices of standard deviation 0.02; the same every time."""
    model, again = build("tiny", "global", CODES, CPU), build("tiny", "global", CODES, CPU)
    values = dict(model.named_parameters())
    assert all(torch.equal(value, dict(again.named_parameters())[name]) for name, value in values.items())
    assert (values["backbone.norm.weight"] == 1).all()
    assert (values["head.blocks.0.attention.qk_scale"] == 1).all()
    assert not values["head.mask_token"].any()
    assert not values["distribution.logits.bias"].any()
    assert float(values["backbone.blocks.0.mlp.gate_up.weight"].detach().std()) == pytest.approx(0.02, rel=0.05)


def test_a_known_exponent_is_found() -> None:
    assert growth_exponent([64, 256, 1024], [3 * n**1.7 for n in (64, 256, 1024)]) == pytest.approx(1.7)
    rows = [row("cross", n, 16, 0.01 * n**1.1, peak=100 * n) for n in (64, 256, 1024)]
    rows += [row("cross", n, n, 0.01 * n**2) for n in (64, 256)] + [row("masked", 64, 16, 1.0)]
    found = {(e.quantity, e.model, e.steps): e for e in exponents(rows)}
    assert set(found) == {
        ("seconds_per_image", "cross", 16), ("peak_bytes", "cross", 16), ("seconds_per_image", "cross", "all")
    }  # fmt: skip
    assert found["seconds_per_image", "cross", 16].exponent == pytest.approx(1.1)
    assert found["seconds_per_image", "cross", 16].aim == "at most 1.2"
    assert found["peak_bytes", "cross", 16].exponent == pytest.approx(1)
    assert found["seconds_per_image", "cross", "all"].exponent == pytest.approx(2)


def test_ratios_compare_equal_grids_and_batches() -> None:
    rows = [
        row("cross", 256, 16, 1.0), row("cross", 256, 64, 2.0), row("cross", 256, 256, 6.0),
        row("next_token", 256, 256, 5.0), row("masked", 256, 64, 60.0), row("masked", 256, 64, 9.0, batch=1),
        row("next_token", 64, 64, 1.0),
    ]  # fmt: skip
    found = {ratio.what: ratio for ratio in ratios(rows)}
    assert {what: ratio.value for what, ratio in found.items()} == {
        "images/s of cross, 16 steps / next_token": pytest.approx(5),
        "images/s of cross, 64 steps / next_token": pytest.approx(2.5),
        "images/s of cross, 64 steps / masked at equal steps": pytest.approx(30),
        "time of cross, one cell per step / next_token": pytest.approx(1.2),
    }
    assert [found[what].aim for what in sorted(found)] == ["at least 1.8", "at least 20", None, "at most 1.3"]


def test_what_is_left_out_is_listed() -> None:
    bench = SamplingBench(("tiny",), grids=(2, 8), batches=(1,), steps=("16", "all"), max_seconds=0.5, threads=1)
    speed = Speed(1e-3, 1e-4, 1e-3, 1e-4)
    planned, skipped = plan(bench, "tiny", {"float32": speed})
    assert {(s.case.cells, s.case.model) for s in skipped if "more steps" in s.reason} == {
        (4, model) for model in MODELS if model != "next_token"
    }
    late = [s for s in skipped if "longer than 0.5 s" in s.reason]
    assert late
    assert all(s.predicted_seconds is not None and s.predicted_seconds > 0.5 for s in late)
    assert all(seconds <= 0.5 for seconds in planned.values())
    assert not set(planned) & {s.case for s in skipped}
    rows, nothing = measure(dataclasses.replace(bench, grids=(2,), steps=("5",), models=("cross",)))
    assert not rows
    text = to_markdown(
        to_json({"processor": "x", "cores": 1, "threads": 1, "device": "cpu", "torch": "0"}, bench, [], nothing)
    )
    assert "more steps than its 4 cells" in text


def test_prediction_counts_tokens_and_passes() -> None:
    """With a cost per token of a block only, the seconds are the tokens that go through blocks."""
    per_token = Speed(0.0, 1.0, 0.0, 0.0)
    steps = 4
    read = 1 + 16 - Case("tiny", "cross", 4, 2, steps).counts[-1]
    predicted = {kind: predict_seconds(Case("tiny", kind, 4, 2, steps), per_token) for kind in MODELS}
    assert predicted["cross"] == 2 * (4 * read + 2 * 16)
    assert predicted["global"] == 2 * (4 * read + 2 * steps * 16)
    assert predicted["cross"] < predicted["global_approximate"] < predicted["global"]
    assert predicted["masked"] == 2 * 6 * 2 * 17, "two steps are run"
    assert predict_seconds(Case("tiny", "cross", 4, 2, steps), Speed(1.0, 0.0, 0.0, 0.0)) == 6 * steps


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sizes": ("C",)}, "sizes: C given, must be among tiny, B, L, H"),
        ({"models": ("cross", "mar")}, "models: mar given, must be among cross, global"),
        ({"steps": ("few",)}, "steps: few given, must be numbers of at least 1, or all"),
        ({"steps": ("0",)}, "steps: 0 given"),
        ({"grids": (0,)}, "grids: 0 given, must be at least 1"),
        ({"batches": ()}, "batches: none given"),
        ({"threads": 0}, "threads: 0 given, must be at least 1"),
        ({"max_seconds": 0.0}, "max_seconds: 0.0 given, must be above 0"),
    ],
)
def test_mistakes(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure(dataclasses.replace(SamplingBench(), **change))  # type: ignore[arg-type]
