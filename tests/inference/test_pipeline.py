from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from heptapod import Heptapod, SamplingConfig
from heptapod.grid import GridSpec
from heptapod.inference.trace import read_so_far, save_gif, trace_frames, trace_picture
from heptapod.models import HeptapodModel
from heptapod.sampling import Known
from heptapod.tokenizers import PixelConfig, build_tokenizer, save_tokenizer
from tests.conftest import HEADS

Make = Callable[..., HeptapodModel]
GRID = GridSpec(4, 5, 7)


@pytest.fixture
def heptapod(make_model: Make) -> Heptapod:
    return bundle(make_model("cross"))


def bundle(model: HeptapodModel, order: str = "mixed") -> Heptapod:
    tokenizer = build_tokenizer(PixelConfig(levels=7))
    return Heptapod(model, tokenizer, ["cat", "dog", "owl"], order, SamplingConfig(temperature=0.9), {"step": "12"})


@pytest.mark.parametrize("head", HEADS)
def test_save_and_load(make_model: Make, tmp_path: Path, head: str) -> None:
    before = bundle(make_model(head))
    before.save_pretrained(tmp_path / "m")
    after = Heptapod.from_pretrained(tmp_path / "m")
    assert after.class_names == before.class_names
    assert after.sampling == before.sampling
    assert after.token_order == "mixed"
    assert after.metadata == {"step": "12"}
    pictures = [[image.tobytes() for image in h.generate([0, "owl"], seed=3)] for h in (before, after)]
    assert pictures[0] == pictures[1]


def test_files_are_reproducible(heptapod: Heptapod, tmp_path: Path) -> None:
    heptapod.metadata = dict.fromkeys("zyxwvu", "x")
    for name in ("a", "b"):
        heptapod.save_pretrained(tmp_path / name)
    for file in ("config.json", "model.safetensors", "tokenizer/model.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_tokenizer_by_reference(heptapod: Heptapod, tmp_path: Path) -> None:
    save_tokenizer(heptapod.tokenizer, tmp_path / "shared")
    heptapod.save_pretrained(tmp_path / "m", tokenizer="../shared")
    assert not (tmp_path / "m" / "tokenizer").exists()
    Heptapod.from_pretrained(tmp_path / "m")
    save_tokenizer(build_tokenizer(PixelConfig(levels=7, color=True)), tmp_path / "shared")
    with pytest.raises(ValueError, match="another tokenizer than the one the model was trained with"):
        Heptapod.from_pretrained(tmp_path / "m")


def test_generate(heptapod: Heptapod) -> None:
    images = heptapod.generate(labels=[0, 2, "dog"], steps=4, seed=0)
    assert [(image.size, image.mode) for image in images] == [((5, 4), "RGB")] * 3
    again = heptapod.generate(labels=[0, 2, "dog"], steps=4, seed=0)
    assert [a.tobytes() for a in images] == [b.tobytes() for b in again]
    assert images[1].tobytes() == heptapod.generate(labels=["owl"], steps=4, seed=1)[0].tobytes()
    assert images[1].tobytes() != heptapod.generate(labels=["owl"], steps=4, seed=2)[0].tobytes()
    assert len(heptapod.generate(count=3)) == 3


def test_padded_batches_are_bit_equal(heptapod: Heptapod) -> None:
    labels = [i % 3 for i in range(7)]
    tokens = heptapod.generate_tokens(labels, seed=5, batch_size=3)
    assert torch.equal(tokens, heptapod.generate_tokens(labels, seed=5, batch_size=7))
    assert torch.equal(tokens, heptapod.generate_tokens(labels, seed=range(5, 12), batch_size=2))


def test_a_fixed_batch_size_is_bit_equal_however_many_are_asked_for(heptapod: Heptapod) -> None:
    shapes = set()
    real = heptapod.tokenizer.decode

    def watched(tokens: torch.Tensor, grid: GridSpec) -> torch.Tensor:
        shapes.add(tokens.shape)
        return real(tokens, grid)

    heptapod.tokenizer.decode = watched  # type: ignore[method-assign]
    seven = heptapod.generate([0] * 7, batch_size=4)
    one = heptapod.generate([0], seed=6, batch_size=4)
    assert shapes == {(4, 20)}, "every batch is filled up, the decoder's too"
    assert one[0].tobytes() == seven[6].tobytes()


def test_labels_and_seeds_of_any_integer_type(heptapod: Heptapod) -> None:
    import numpy as np

    plain = heptapod.generate_tokens([1, 2], seed=3)
    assert torch.equal(plain, heptapod.generate_tokens(torch.tensor([1, 2]), seed=np.int64(3)))  # type: ignore[arg-type]
    assert torch.equal(plain, heptapod.generate_tokens(np.array([1, 2]), seed=np.array([3, 4])))  # type: ignore[arg-type]


def test_a_model_with_an_unregistered_head_is_not_saved(tmp_path: Path) -> None:
    from heptapod.models import ModelConfig
    from heptapod.models.heads import CrossHead

    head = CrossHead(32, 1, 2, 100.0)
    before = [parameter.clone() for parameter in head.parameters()]
    model = HeptapodModel(ModelConfig(width=32, depth=1, num_heads=2), GRID, 3, head=head)
    assert all(torch.equal(a, b) for a, b in zip(before, model.head.parameters(), strict=True)), "left as it is"
    with pytest.raises(ValueError, match="head: CrossHead is not the head that config.head describes"):
        bundle(model).save_pretrained(tmp_path)


def test_warns_of_cells_known_out_of_the_trained_order(make_model: Make) -> None:
    mask = torch.zeros(20, dtype=torch.bool)
    mask[10:] = True
    known = Known(torch.zeros(1, 20, dtype=torch.long), mask)
    with pytest.warns(UserWarning, match="not the first in raster order"):
        bundle(make_model("cross"), "raster").generate_tokens([0], known=known)
    with pytest.raises(ValueError, match="known: tokens"):
        Known(torch.zeros(1, 19, dtype=torch.long), mask)


def test_known_cells(heptapod: Heptapod) -> None:
    mask = torch.zeros(20, dtype=torch.bool)
    mask[:10] = True
    given = torch.randint(7, (5, 20), generator=torch.Generator().manual_seed(0))
    out = heptapod.generate_tokens([0] * 5, known=Known(given, mask), batch_size=2, steps=3)
    assert torch.equal(out[:, :10], given[:, :10])


def test_warns_of_an_order_not_trained(make_model: Make) -> None:
    raster = bundle(make_model("cross"), "raster")
    with pytest.warns(UserWarning, match="trained on raster order only"):
        raster.generate([0], token_order="random")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        raster.generate([0])
        bundle(make_model("cross"), "mixed").generate([0], token_order="random")


@pytest.mark.parametrize(("trained", "order"), [("random", "spiral"), ("random", "confidence"), ("mixed", "spiral")])
def test_any_order_goes_for_a_model_of_random_order(make_model: Make, trained: str, order: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bundle(make_model("cross"), trained).generate([0], token_order=order)
    with pytest.warns(UserWarning, match=f"sampling in {order} order, but the model was trained on raster order only"):
        bundle(make_model("cross"), "raster").generate([0], token_order=order)


def test_another_size_uses_the_same_weights(heptapod: Heptapod, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"size: 6×3 pixels \(6×3 cells\), but the model was trained on 4×5 \(4×5"):
        tall = heptapod.at_size(6, 3)
    assert tall.generate([0], seed=1)[0].size == (3, 6)
    assert all(a is b for a, b in zip(tall.model.parameters(), heptapod.model.parameters(), strict=True))
    assert heptapod.generate([0])[0].size == (5, 4), "the model itself is as it was"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same = heptapod.at_size(4, 5)
    assert torch.equal(same.generate_tokens([0, 1], seed=2), heptapod.generate_tokens([0, 1], seed=2))
    tall.save_pretrained(tmp_path / "m")
    assert Heptapod.from_pretrained(tmp_path / "m").model.grid == GRID, "saved as it was trained"
    pixel_factor_two = bundle(heptapod.model)
    pixel_factor_two.tokenizer.factor = 2
    with pytest.raises(ValueError, match="image size 5×4 is not divisible by the tokenizer's factor 2"):
        pixel_factor_two.at_size(5, 4)


def test_the_likelihood_on_another_size_is_a_distribution(make_model: Make) -> None:
    """Over all pictures of 1×3 cells with 7 codes."""
    model = bundle(make_model("cross"), "raster")
    with pytest.warns(UserWarning, match="trained on 4×5"):
        strip = model.at_size(1, 3)
    codes = torch.cartesian_prod(*[torch.arange(7)] * 3)
    images = model.tokenizer.decode(codes, strip.model.grid)
    images = ((images + 1) * 127.5).round().to(torch.uint8)
    nats = 3 * strip.negative_log_likelihood(images, [1] * len(images), batch_size=343)
    assert float((-nats.double()).exp().sum()) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("sampling", [SamplingConfig(steps=16), SamplingConfig(schedule=[5, 15])])
def test_saved_steps_are_for_the_trained_grid(make_model: Make, sampling: SamplingConfig) -> None:
    model = bundle(make_model("cross"))
    model.sampling = sampling
    with pytest.warns(UserWarning, match="trained on 4×5"):
        small = model.at_size(2, 4)
    assert len(list(small.stream([0]))) == 1 + min(8, 16 if sampling.steps else 2)
    mask = torch.arange(20) < 17
    kept = model.generate_tokens([0], known=Known(torch.zeros(1, 20, dtype=torch.long), mask))
    assert torch.equal(kept[:, :17], torch.zeros(1, 17, dtype=torch.long))
    with pytest.raises(ValueError, match="steps: 9 given, must be between 1 and 8"):
        small.generate([0], steps=9)
    assert len(list(model.stream([0], schedule=[8, 12]))) == 3
    assert len(list(model.stream([0], steps=7))) == 8


def test_warns_without_a_label_that_was_never_left_out(make_model: Make, tmp_path: Path) -> None:
    never, sometimes = bundle(make_model("cross")), bundle(make_model("cross"))
    never.label_dropout, sometimes.label_dropout = 0.0, 0.1
    never.save_pretrained(tmp_path / "m")
    with pytest.warns(UserWarning, match="never trained without a label"):
        Heptapod.from_pretrained(tmp_path / "m").generate(count=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sometimes.generate(count=1)
        never.generate([0])


def test_a_stream_refuses_at_once(heptapod: Heptapod, make_model: Make) -> None:
    with pytest.raises(ValueError, match="steps: 99 given"):
        heptapod.stream([0], steps=99)
    with pytest.raises(ValueError, match=r"belief: steps \[4\] given, must be between 0 and 3"):
        heptapod.stream([0], steps=3, belief=[4])
    with pytest.raises(ValueError, match="needs a cross, global or group head"):
        bundle(make_model("next_token")).stream([0], belief=True)
    known = Known(torch.zeros(1, 20, dtype=torch.long), torch.arange(20) < 3)
    with pytest.raises(ValueError, match=r"known: tokens \(1, 20\)"):
        heptapod.generate_tokens([0, 1], known=known)
    with pytest.raises(ValueError, match="seed: 1.5 given, must be a whole number"):
        heptapod.generate([0], seed=[1.5])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="most: 1 given, must be at least 2"):
        heptapod.trace(0, most=1)


def test_decoded_images_can_be_changed(heptapod: Heptapod) -> None:
    *_, last = heptapod.stream([0])
    heptapod.decode(last.tokens).add_(1)


def test_a_very_wide_trace_is_not_enlarged(heptapod: Heptapod, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="trained on"):
        wide = heptapod.at_size(1, 400)
    frames = trace_frames(wide, wide.trace(0, steps=2))
    save_gif(frames, tmp_path / "wide.gif")
    assert frames[0].width < 3 * 2100


def test_stream_shows_the_steps_of_generate(heptapod: Heptapod) -> None:
    steps = list(heptapod.stream(["cat", 2], seed=[7, 9], steps=6))
    assert len(steps) == 7
    assert torch.equal(steps[-1].tokens, heptapod.generate_tokens(["cat", 2], seed=[7, 9], steps=6))
    for step in steps:
        assert step.believed is not None, "by default the belief is there"
        assert step.believed.shape == step.tokens.shape
    assert all(step.believed is None for step in heptapod.stream([0], belief=False))
    with pytest.raises(ValueError, match="label: 9 given"):
        heptapod.stream([9])
    with pytest.raises(ValueError, match="seed: 2 seeds given for 3 images"):
        heptapod.stream([0, 1, 2], seed=[1, 2])


@pytest.mark.parametrize("head", HEADS)
def test_trace(make_model: Make, tmp_path: Path, head: str) -> None:
    model = bundle(make_model(head))
    steps = model.trace("dog", seed=1, most=5)
    assert [step.step for step in steps] == [0, 5, 10, 15, 20]
    sees = head in ("global", "cross", "group")
    frames = trace_frames(model, steps)
    assert len(frames) == 5
    assert frames[0].width > frames[0].height * (3 if sees else 1) * 0.9
    save_gif(frames, tmp_path / "t.gif")
    with Image.open(tmp_path / "t.gif") as gif:
        assert (gif.n_frames, gif.size) == (5, frames[0].size)
    strip = trace_picture(model, steps)
    assert strip.height > 3 * 112 if sees else strip.height < 2 * 112 + 60


def test_read_so_far_is_gray_where_nothing_was_read(heptapod: Heptapod) -> None:
    start, middle, end = heptapod.trace("dog", seed=1, most=3)
    pictures = read_so_far(heptapod, [start, middle, end])
    assert (pictures[0] == 205).all()
    shown = middle.is_read.view(4, 5)
    assert (pictures[1][:, ~shown] == 205).all()
    assert torch.equal(pictures[1][:, shown], pictures[2][:, shown])
    assert torch.equal(pictures[2], heptapod.decode(end.tokens)[0])


@pytest.mark.parametrize("order", ["raster", "confidence"])
def test_two_processes_draw_the_images_of_one(heptapod: Heptapod, tmp_path: Path, order: str) -> None:
    """Bit for bit: each draws every other image, in reverse, at the same padded batch size."""
    heptapod.save_pretrained(tmp_path / "m")
    seeds = list(range(40, 50))
    together = heptapod.generate_tokens([s % 3 for s in seeds], seed=seeds, batch_size=4, token_order=order, steps=6)
    program = (
        "import sys, torch; from heptapod import Heptapod\n"
        "folder, out, *seeds = sys.argv[1:]; seeds = list(map(int, seeds))\n"
        f"how = dict(seed=seeds, batch_size=4, token_order={order!r}, steps=6)\n"
        "torch.save(Heptapod.from_pretrained(folder).generate_tokens([s % 3 for s in seeds], **how), out)"
    )
    for part in (0, 1):
        own = [str(seed) for seed in seeds[part::2][::-1]]
        subprocess.run([sys.executable, "-c", program, tmp_path / "m", tmp_path / "t.pt", *own], check=True)
        assert torch.equal(torch.load(tmp_path / "t.pt"), together[part::2].flip(0))


def test_belief_picture(heptapod: Heptapod) -> None:
    picture = heptapod.belief("cat", seed=1)
    assert picture.width > 6 * 112
    assert len(picture.getcolors(1_000_000) or []) > 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": [3]}, "label: 3 given, must be between 0 and 2"),
        ({"labels": [-1]}, "label: -1 given"),
        ({"labels": ["cow"]}, r"label: 'cow' is no class of this model \(cat, dog, owl\)"),
        ({"labels": []}, "labels: none given"),
        ({"labels": [0], "steps": 0}, "steps: 0 given"),
        ({"labels": [0], "steps": 21}, "steps: 21 given, must be between 1 and 20"),
        ({"labels": [0], "temperature": -1}, "temperature: -1.0 given"),
        ({"labels": [0], "seed": -1}, "seed: -1 given"),
        ({"labels": [0, 1], "seed": [1]}, "seed: 1 seeds given for 2 images"),
        ({"labels": [0], "stepz": 3}, "unknown setting 'stepz'; did you mean 'steps'"),
        ({"count": 0}, "count: 0 given"),
        ({"labels": [0], "count": 2}, "count: 2 given together with 1 labels"),
        ({"labels": [0], "batch_size": 0}, "batch_size: 0 given"),
        ({"labels": ["²"]}, "label: '²' is no class"),
        ({"labels": [0], "steps": 3, "schedule": [10, 10]}, "steps: 3 given, but the schedule has 2 steps"),
    ],
)
def test_generate_refuses(heptapod: Heptapod, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        heptapod.generate(**arguments)  # type: ignore[arg-type]


def test_from_pretrained_refuses_what_does_not_fit(heptapod: Heptapod, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        Heptapod.from_pretrained(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="no model there"):
        Heptapod.from_pretrained(tmp_path)
    heptapod.save_pretrained(tmp_path)
    weights, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    whole = weights.read_bytes()
    for cut in (0, 5, 100, len(whole) - 1):
        weights.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=r"model\.safetensors: truncated or damaged"):
            Heptapod.from_pretrained(tmp_path)
    weights.write_bytes(whole)
    tensors = load_file(weights)
    tensors["token_embedding.weight"] = torch.zeros(9, 32)
    save_file(tensors, weights)
    with pytest.raises(
        ValueError, match=r"another architecture: token_embedding.weight is \(9, 32\), needed \(7, 32\)"
    ):
        Heptapod.from_pretrained(tmp_path)
    weights.write_bytes(whole)
    values = json.loads(config.read_text())
    values["model"]["depth"] = 3
    config.write_text(json.dumps(values))
    with pytest.raises(ValueError, match="another architecture: lacks backbone.blocks.2"):
        Heptapod.from_pretrained(tmp_path)
    config.write_text(json.dumps({**values, "format": "other"}))
    with pytest.raises(ValueError, match="not a Heptapod model"):
        Heptapod.from_pretrained(tmp_path)
    config.write_text("{")
    with pytest.raises(ValueError, match="damaged, not JSON"):
        Heptapod.from_pretrained(tmp_path)


def test_nothing_is_unpickled() -> None:
    """Pickles of others are read as plain tensors only: torch's weights_only, and a reader of numpy arrays."""
    import heptapod

    for file in Path(heptapod.__file__).parent.rglob("*.py"):
        source = file.read_text()
        for line in source.splitlines():
            loads = "torch.load(" in line.replace("safetensors.torch.load(", "")
            assert not loads or "weights_only=True" in line, file
        assert "pickle.load" not in source, file
        assert "pickle.Unpickler" not in source or "def find_class" in source, file


def test_models_of_the_first_format_load(heptapod: Heptapod, tmp_path: Path) -> None:
    heptapod.save_pretrained(tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    grid = config.pop("grid")
    config |= {"grid_height": grid["height"], "grid_width": grid["width"], "vocabulary_size": grid["vocabulary_size"]}
    config["format"] = "heptapod-model-1"
    config["model"]["distribution"] = "categorical"
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    old = Heptapod.from_pretrained(tmp_path / "m")
    assert torch.equal(old.generate_tokens([0], seed=1), heptapod.generate_tokens([0], seed=1))
