"""Models in half precision, wrapped models, other default precisions, and values that are not finite."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch.nn.parallel import DataParallel

from heptapod import Heptapod, edit
from heptapod.distributions import CellSampling
from heptapod.grid import GridSpec
from heptapod.inference.cell_query import ask_cell
from heptapod.models import HeptapodModel
from heptapod.tokenizers import load_tokenizer, save_tokenizer, tokenizer_hash
from heptapod.tokenizers.encode import decode_pixels, encode_pixels
from heptapod.utils.weights import NonFiniteError
from tests.conftest import HEADS
from tests.small import CODES, VECTORS, small_model

HALVES = [torch.bfloat16, torch.float16]
GRIDS = [pytest.param(CODES, id="codes"), pytest.param(VECTORS, id="vectors")]


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("grid", GRIDS)
def test_half_precision_is_the_same_model_rounded(grid: GridSpec, dtype: torch.dtype) -> None:
    heptapod = small_model(grid)
    tokens, images = heptapod.generate_tokens([0, 1, 2], seed=3), heptapod.generate([0, 1, 2], seed=3, output="tensor")
    nats = heptapod.negative_log_likelihood(images[:1], [0])
    assert heptapod.to(dtype) is heptapod
    assert (heptapod.model.dtype, heptapod.tokenizer.dtype) == (dtype, torch.float32)
    half = heptapod.generate_tokens([0, 1, 2], seed=3)
    assert half.dtype == tokens.dtype
    if grid.is_discrete:
        assert (half == tokens).float().mean() > 0.9
    else:
        torch.testing.assert_close(half, tokens, atol=0.1, rtol=0.05)
    torch.testing.assert_close(heptapod.negative_log_likelihood(images[:1], [0]), nats, atol=0.05, rtol=0.01)
    edited = edit(heptapod, images[0], torch.arange(16 * 20).view(16, 20) > 160, labels=1)
    assert edited.kept_cells_identical
    assert ask_cell(heptapod, 3, 1, [0], half[0, :1]).tokens.dtype == tokens.dtype


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(
    ("head", "distribution"), [*((head, "categorical") for head in HEADS), ("global", "diffusion"), ("local", "flow")]
)
def test_every_part_computes_in_half_precision(
    make_model: Callable[..., HeptapodModel], head: str, distribution: str, dtype: torch.dtype
) -> None:
    from heptapod.likelihood import next_cell_loss
    from heptapod.sampling import SamplingConfig, sample_tokens

    grid = GridSpec(2, 3, 7) if distribution == "categorical" else GridSpec(2, 3, channels=3)
    model = make_model(head, grid, distribution=distribution)
    labels = torch.tensor([0, 2])
    tokens = sample_tokens(model, labels, [1, 2], SamplingConfig())
    loss = next_cell_loss(model, tokens, labels)
    half = next_cell_loss(model.to(dtype), tokens, labels)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, loss, atol=0.05, rtol=0.05)
    assert sample_tokens(model, labels, [1, 2], SamplingConfig()).dtype == tokens.dtype


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("grid", GRIDS)
def test_a_tokenizer_in_half_precision(grid: GridSpec, dtype: torch.dtype, tmp_path: Path) -> None:
    heptapod = small_model(grid)
    images = torch.randint(256, (2, 3, 16, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    tokens, pixels = heptapod.encode(images), heptapod.decode(heptapod.encode(images))
    tokenizer = heptapod.tokenizer.to(dtype)
    half = encode_pixels(tokenizer, images)
    assert half.dtype == tokens.dtype
    assert (half == tokens).float().mean() > 0.8 if grid.is_discrete else torch.allclose(half, tokens, atol=0.05)
    assert (decode_pixels(tokenizer, tokens, grid).int() - pixels.int()).abs().max() <= 3
    save_tokenizer(tokenizer, tmp_path)
    assert tokenizer_hash(load_tokenizer(tmp_path)) == tokenizer_hash(tokenizer), "as it is loaded: in float32"


def test_precision_survives_saving_and_is_chosen_in_loading(tmp_path: Path) -> None:
    heptapod = small_model(VECTORS).to("cpu", torch.bfloat16)
    heptapod.save_pretrained(tmp_path / "m")
    assert Heptapod.from_pretrained(tmp_path / "m").model.dtype == torch.float32
    again = Heptapod.from_pretrained(tmp_path / "m", device="cpu", dtype=torch.bfloat16)
    assert again.model.dtype == torch.bfloat16
    assert torch.equal(again.generate_tokens([1], seed=4), heptapod.generate_tokens([1], seed=4))
    assert again.to(dtype=torch.float32).model.dtype == torch.float32
    assert again.to(torch.device("cpu")).model.device == torch.device("cpu")
    for wrong in (torch.int8, torch.float64):
        with pytest.raises(ValueError, match=rf"dtype: {wrong} given, must be torch\.float32, torch\.bfloat16 or"):
            again.to(wrong)


@pytest.fixture
def float64_default() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("grid", GRIDS)
def test_the_default_precision_of_torch_changes_nothing(
    grid: GridSpec, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    first = small_model(grid)
    first.save_pretrained(tmp_path / "m")
    images = first.generate([0, 1], seed=1, output="tensor")
    nats = first.negative_log_likelihood(images[:1], [0])
    asked = ask_cell(first, 3, 1)
    request.getfixturevalue("float64_default")
    second = Heptapod.from_pretrained(tmp_path / "m")
    assert torch.get_default_dtype() == torch.float64
    assert second.model.dtype == torch.float32
    assert torch.equal(second.generate([0, 1], seed=1, output="tensor"), images)
    torch.testing.assert_close(second.negative_log_likelihood(images[:1], [0]), nats, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ask_cell(second, 3, 1).values, asked.values, atol=1e-4, rtol=1e-4)
    assert second.belief(0, steps=2).width > 100
    second.save_pretrained(tmp_path / "again")
    for name in ("config.json", "model.safetensors", "tokenizer/model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "m" / name).read_bytes()


@pytest.mark.parametrize("grid", GRIDS)
def test_wrapped_models_are_saved_without_their_wrappers(grid: GridSpec, tmp_path: Path) -> None:
    plain = small_model(grid)
    plain.save_pretrained(tmp_path / "plain")
    wrapped = small_model(grid)
    model, tokenizer = wrapped.model, wrapped.tokenizer
    model.backbone = torch.compile(model.backbone, backend="eager")
    model.head = DataParallel(model.head)  # type: ignore[assignment]
    wrapped.model = DataParallel(torch.compile(model, backend="eager"))  # type: ignore[assignment]
    wrapped.tokenizer = torch.compile(tokenizer, backend="eager")  # type: ignore[assignment]
    wrapped.save_pretrained(tmp_path / "wrapped")
    for name in ("config.json", "model.safetensors", "tokenizer/model.safetensors", "tokenizer/config.json"):
        assert (tmp_path / "wrapped" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
    taken_off = Heptapod(DataParallel(model), torch.compile(tokenizer, backend="eager"))  # type: ignore[arg-type]
    assert (taken_off.model, taken_off.tokenizer) == (model, tokenizer)


# ---- Values that are not finite --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grid", "part", "temperature"),
    [
        pytest.param(CODES, "token_embedding.weight", 0.0, id="codes-coldest"),
        pytest.param(CODES, "distribution", 0.8, id="codes"),
        pytest.param(VECTORS, "head.blocks.0.mlp_norm.weight", 0.0, id="vectors-coldest"),
        pytest.param(VECTORS, "distribution", 0.8, id="vectors"),
    ],
)
def test_spoiled_weights_generate_nothing(grid: GridSpec, part: str, temperature: float) -> None:
    heptapod = small_model(grid)
    images = heptapod.generate([1], steps=4, output="tensor")
    name = next(name for name, _ in heptapod.model.named_parameters() if name.startswith(part))
    with torch.no_grad():
        heptapod.model.get_parameter(name).fill_(torch.nan)
    cause = f"not finite: {name} of its weights holds values that are infinite or not a number"
    for settings in ({}, {"steps": 4}, {"token_order": "confidence"}):
        with pytest.raises(NonFiniteError, match=f"sampling: the model's predictions are {cause}"):
            heptapod.generate([1], temperature=temperature, **settings)
    with pytest.raises(NonFiniteError, match=cause):
        list(heptapod.stream([1]))
    with pytest.raises(NonFiniteError, match=f"likelihood: the model's of image 0 is {cause}"):
        heptapod.negative_log_likelihood(images, [1])
    with pytest.raises(NonFiniteError, match=f"with them the model's prediction is {cause}"):
        ask_cell(heptapod, 3, 1, [0], heptapod.encode(images)[0, :1])


@pytest.mark.parametrize("grid", GRIDS)
def test_a_spoiled_tokenizer_neither_encodes_nor_decodes(grid: GridSpec) -> None:
    heptapod = small_model(grid)
    tokens = heptapod.generate_tokens([1])
    torch.nn.init.constant_(next(heptapod.tokenizer.encoder.parameters()), torch.nan)  # type: ignore[union-attr, operator]
    with pytest.raises(NonFiniteError, match=r"image 0: the latents of the tokenizer are not finite: encoder\."):
        heptapod.encode(torch.zeros(2, 3, 16, 20, dtype=torch.uint8))
    heptapod.decode(tokens)
    torch.nn.init.constant_(next(heptapod.tokenizer.decoder.parameters()), torch.nan)  # type: ignore[union-attr, operator]
    with pytest.raises(NonFiniteError, match="tokenizer: its decoded pixels are not finite"):
        heptapod.decode(tokens)


def test_a_number_too_large_for_float16_is_said() -> None:
    heptapod = small_model(VECTORS).to(torch.float16)
    with torch.no_grad():
        heptapod.model.token_embedding.weight.fill_(6e4)
    with pytest.raises(
        NonFiniteError, match=r"not finite: numbers are too large for torch\.float16, with .*temperature 1"
    ):
        heptapod.generate([1])


@pytest.mark.parametrize("temperature", [1e-40, 1e-5])
def test_a_temperature_that_would_overflow_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match=rf"temperature: {temperature} given; must be 0 .* or at least 0\.0001"):
        CellSampling(temperature=temperature)
    with pytest.raises(ValueError, match=rf"sampling: temperature: {temperature} given; must be 0"):
        small_model(CODES).generate([0], temperature=temperature)


def test_the_lowest_temperature_is_nearly_the_most_likely_code() -> None:
    heptapod = small_model(CODES)
    lowest, most_likely = (heptapod.generate_tokens([0, 1], temperature=t) for t in (1e-4, 0))
    assert torch.equal(lowest, most_likely)


def test_devices_that_are_not_there() -> None:
    model = small_model(CODES)
    for device in ("cuda:99", "foo", "bfloat16"):
        with pytest.raises(ValueError, match=f"^device: {device} given, but there is no such device; use auto or cpu$"):
            model.to(device)
    with pytest.raises(ValueError, match="^dtype: 'bfloat16' given, must be torch.float32, torch.bfloat16 or"):
        model.to(dtype="bfloat16")  # type: ignore[arg-type]
    assert model.to("auto") is model


def test_auto_is_float32_for_narrow_models_and_what_is_measured_for_wide_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    from heptapod.inference import precision

    model = small_model(CODES).model
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: True)
    monkeypatch.setattr(precision, "_seconds", lambda x, weight: 1.0 if x.dtype == torch.bfloat16 else 1.3)
    assert precision.inference_dtype("auto", model) == torch.float32
    monkeypatch.setattr(precision, "NARROW", 1)
    assert precision.inference_dtype("auto", model) == torch.bfloat16
    monkeypatch.setattr(precision, "_seconds", lambda x, weight: 1.0 if x.dtype == torch.bfloat16 else 1.1)
    assert precision.inference_dtype("auto", model) == torch.float32
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: False)
    monkeypatch.setattr(precision, "_seconds", lambda x, weight: 1.0 if x.dtype == torch.bfloat16 else 1.3)
    assert precision.inference_dtype("auto", model) == torch.float32, "without instructions"
    assert precision.inference_dtype("float16", model) == torch.float16
    with pytest.raises(ValueError, match="precision: 'int8' given, must be auto, float32, bfloat16, float16"):
        precision.inference_dtype("int8", model)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_seconds_are_measured(dtype: torch.dtype) -> None:
    from heptapod.inference.precision import _seconds

    assert 0 < _seconds(torch.ones(4, 8, dtype=dtype), torch.ones(16, 8, dtype=dtype)) < 10
