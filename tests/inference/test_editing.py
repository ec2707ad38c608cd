from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from heptapod import Heptapod, SamplingConfig, edit, outpaint, vary
from heptapod.configs.tokenizers import VAEConfig
from heptapod.grid import GridSpec
from heptapod.models import HeptapodModel
from heptapod.tokenizers import PixelConfig, VQConfig, build_tokenizer
from heptapod.tokenizers.base import to_float

Make = Callable[..., HeptapodModel]
CLASSES = ["cat", "dog", "owl"]
CODES, VECTORS = GridSpec(4, 5, 7), GridSpec(4, 5, channels=3)
SIZE = 16, 20
"""Height and width in pixels of 4×5 cells of 4×4."""


@pytest.fixture(params=["codes", "vectors"])
def heptapod(request: pytest.FixtureRequest, make_model: Make) -> Heptapod:
    """A random model of 4×5 cells with a lossy tokenizer of factor 4."""
    return bundle(make_model, CODES if request.param == "codes" else VECTORS)


def bundle(make_model: Make, grid: GridSpec, **options: Any) -> Heptapod:
    network: dict[str, Any] = {"width": 8, "factor": 4}
    if grid.is_discrete:
        tokenizer = build_tokenizer(VQConfig(codebook_size=7, code_width=4, **network))
    else:
        tokenizer = build_tokenizer(VAEConfig(latent_channels=3, **network))
    return Heptapod(make_model("cross", grid), tokenizer, CLASSES, **{"token_order": "mixed", **options})


def picture(height: int = SIZE[0], width: int = SIZE[1]) -> Tensor:
    return torch.randint(256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def half(height: int = SIZE[0], width: int = SIZE[1]) -> Tensor:
    """The lower half is repainted."""
    return (torch.arange(height) >= height // 2).unsqueeze(1).expand(height, width).clone()


def encoded(heptapod: Heptapod, image: Tensor) -> Tensor:
    with torch.no_grad():
        tokens: Tensor = heptapod.tokenizer.encode(to_float(image[None]))[0]
    return tokens


def test_kept_cells_are_bit_identical(heptapod: Heptapod) -> None:
    image = picture()
    result = edit(heptapod, image, half(), ["cat", "owl"], count=3)
    assert result.images.shape == (6, 3, *SIZE)
    assert result.labels == [0, 0, 0, 2, 2, 2]
    assert result.kept.tolist() == [True] * 10 + [False] * 10
    original = encoded(heptapod, image)
    assert torch.equal(result.original_tokens, original)
    assert all(torch.equal(tokens[:10], original[:10]) for tokens in result.tokens)
    assert result.kept_cells_identical
    assert len({tokens[10:].numpy().tobytes() for tokens in result.tokens}) == 6, "each has a seed of its own"
    assert torch.equal(result.images, heptapod.decode(result.tokens))
    assert result.largest_difference_outside_mask > 0, "what is kept is shown as the tokenizer shows it"


def test_what_the_record_says_is_measured(heptapod: Heptapod) -> None:
    result = edit(heptapod, picture(), half(), composite=True)
    result.images[0, 1, 0, 0] += 3
    result.images[0, :, -1, -1] += 9  # to be repainted: does not count
    assert result.largest_difference_outside_mask in (3, 253)
    tokens = result.tokens.clone()
    tokens[0, 10:] = 0
    assert dataclasses.replace(result, tokens=tokens).kept_cells_identical
    tokens[0, 9] += 1
    assert not dataclasses.replace(result, tokens=tokens).kept_cells_identical


def test_composite_touches_no_pixel_outside_the_mask(heptapod: Heptapod) -> None:
    image, mask = picture(), torch.zeros(SIZE, dtype=torch.bool)
    mask[3:9, 5:14] = True  # not along the cells
    result = edit(heptapod, image, mask, "dog", count=4, composite=True)
    assert result.largest_difference_outside_mask == 0
    assert torch.equal(result.images[:, :, ~mask], image[:, ~mask].expand(4, -1, -1))
    plain = edit(heptapod, image, mask, "dog", count=4)
    assert torch.equal(result.images[:, :, mask], plain.images[:, :, mask])
    assert torch.equal(result.tokens, plain.tokens)
    assert all(not torch.equal(one[:, mask], image[:, mask]) for one in result.images)


def test_a_cell_with_one_pixel_to_repaint_is_repainted(heptapod: Heptapod) -> None:
    mask = torch.zeros(SIZE, dtype=torch.bool)
    mask[7, 12] = True  # cell (1, 3)
    result = edit(heptapod, picture(), mask, count=8)
    assert (~result.kept).nonzero().flatten().tolist() == [8]
    assert len(result.tokens[:, 8].unique(dim=0)) > 1
    assert result.kept_cells_identical


def test_depends_on_label_seed_and_settings_only(heptapod: Heptapod) -> None:
    image, mask = picture(), half()
    whole = edit(heptapod, image, mask, ["cat", "dog"], count=3, seed=5, batch_size=2)
    other = edit(heptapod, image, mask, [0, 1], count=3, seed=5, batch_size=4).tokens
    assert torch.allclose(whole.tokens, other, atol=1e-4), "but for rounding, which another batch size may change"
    alone = edit(heptapod, image, mask, "dog", seed=9, batch_size=2)
    assert torch.equal(alone.tokens[0], whole.tokens[4])
    assert torch.equal(alone.images[0], whole.images[4])
    assert not torch.equal(whole.tokens, edit(heptapod, image, mask, [0, 1], count=3, seed=6, batch_size=2).tokens)
    seeds = edit(heptapod, image, mask, [0, 1], count=3, seed=range(5, 11), batch_size=2)
    assert torch.equal(whole.tokens, seeds.tokens)


def test_another_class_changes_the_repainted_cells_only(heptapod: Heptapod) -> None:
    results = [edit(heptapod, picture(), half(), label, seed=3, composite=True) for label in ("cat", "dog", None)]
    for result in results:
        assert torch.equal(result.tokens[:, :10], results[0].tokens[:, :10])
        assert torch.equal(result.images[:, :, :8], picture()[None, :, :8])
    assert not torch.equal(results[0].tokens, results[1].tokens)
    assert not torch.equal(results[0].tokens, results[2].tokens)
    assert [result.labels for result in results] == [[0], [1], [-1]]


@pytest.mark.parametrize("order", ["raster", "random", "spiral", "confidence"])
def test_every_order(heptapod: Heptapod, order: str) -> None:
    mask = torch.zeros(SIZE, dtype=torch.bool)
    mask[4:12, 4:16] = True
    result = edit(heptapod, picture(), mask, "cat", count=2, token_order=order, steps=3)
    assert result.kept_cells_identical
    assert (result.sampling.token_order, result.sampling.steps) == (order, 3)


def test_outpainting_keeps_the_cells_where_they_lie(heptapod: Heptapod) -> None:
    image = picture()
    with pytest.warns(UserWarning, match="24×28 pixels .* but the model was trained on 16×20"):
        result = outpaint(heptapod, image, 24, 28, (4, 8), "dog", count=2, composite=True)
    assert result.images.shape == (2, 3, 24, 28)
    assert torch.equal(result.images[:, :, 4:20, 8:28], image.expand(2, -1, -1, -1))
    cells = result.tokens.unflatten(1, (6, 7))
    own = encoded(heptapod, image).unflatten(0, (4, 5))
    assert torch.equal(cells[:, 1:5, 2:7], own.expand(2, *own.shape)), "the very tokens that it has alone"
    assert result.kept.view(6, 7)[1:5, 2:7].all()
    assert int(result.kept.sum()) == 20
    assert result.kept_cells_identical
    assert not torch.equal(cells[0, 0], cells[1, 0])


def test_outpainting_is_centered_and_may_end_on_the_trained_grid(heptapod: Heptapod) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = outpaint(heptapod, picture(8, 8), 16, 20)
    place = result.kept.view(4, 5)
    assert place[1:3, 1:3].all()
    assert int(place.sum()) == 4


def test_variations_keep_the_first_cells(heptapod: Heptapod) -> None:
    result = vary(heptapod, picture(), 7, "cat", count=3)
    assert result.kept.tolist() == [True] * 7 + [False] * 13
    assert result.kept_cells_identical
    assert len({tokens[7:].numpy().tobytes() for tokens in result.tokens}) == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        heptapod.token_order = "raster"
        vary(heptapod, picture(), 7)  # a raster prefix is what such a model knows
    with pytest.warns(UserWarning, match="not the first in raster order"):
        edit(heptapod, picture(), ~half())


def test_an_image_of_another_size(heptapod: Heptapod) -> None:
    with pytest.warns(UserWarning, match="12×24 pixels"):
        result = edit(heptapod, picture(12, 24), half(12, 24), composite=True)
    assert result.images.shape == (1, 3, 12, 24)
    assert result.largest_difference_outside_mask == 0


@pytest.mark.parametrize(
    ("own", "settings", "steps"),
    [
        ({"steps": 16}, {}, 10),
        ({"steps": 16}, {"schedule": "constant"}, 10),
        ({"steps": 4}, {}, 4),
        ({"steps": 4}, {"steps": 7}, 7),
        ({"schedule": [5, 15]}, {}, 2),
        ({"schedule": [5, 15]}, {"steps": 3}, 3),
        ({"steps": 16}, {"schedule": [3, 3, 4]}, None),
        ({}, {}, None),
    ],
)
def test_the_models_own_steps_are_for_a_whole_grid(
    make_model: Make, own: dict[str, Any], settings: dict[str, Any], steps: int | None
) -> None:
    heptapod = bundle(make_model, CODES, sampling=SamplingConfig(**own))
    assert edit(heptapod, picture(), half(), **settings).sampling.steps == steps


def test_says_once_that_an_order_was_not_trained(make_model: Make) -> None:
    heptapod = bundle(make_model, CODES, token_order="raster")
    with pytest.warns(UserWarning, match="random order") as said:
        edit(heptapod, picture(), half(), token_order="random")
    assert len(said) == 1


def test_a_lossless_tokenizer_of_single_pixels(make_model: Make) -> None:
    heptapod = Heptapod(make_model("cross"), build_tokenizer(PixelConfig(levels=7)), CLASSES, "mixed")
    image = torch.full((3, 4, 5), 255, dtype=torch.uint8)
    result = edit(heptapod, image, half(4, 5), 0)
    assert torch.equal(result.images[0, :, :2], image[:, :2])
    assert result.largest_difference_outside_mask == 0


NOTHING, ALL = torch.zeros(SIZE, dtype=torch.bool), torch.ones(SIZE, dtype=torch.bool)
DOTS = NOTHING.clone()
DOTS[::4, ::4] = True


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda h: edit(h, picture(), half(16, 16)), r"mask: \(16, 16\) of torch.bool given, must be \(16, 20\)"),
        (lambda h: edit(h, picture(), half().byte()), r"mask: \(16, 20\) of torch.uint8 given"),
        (lambda h: edit(h, picture(), NOTHING), "mask: it keeps every pixel"),
        (lambda h: edit(h, picture(), ALL), "mask: each of the 20 cells .* sample a new image"),
        (lambda h: edit(h, picture(), DOTS), "mask: each of the 20 cells .* sample a new image"),
        (lambda h: edit(h, picture().float(), half()), r"image: \(3, 16, 20\) of torch.float32 given"),
        (lambda h: edit(h, picture()[None], half()), r"image: \(1, 3, 16, 20\) of torch.uint8 given"),
        (lambda h: edit(h, picture(15, 20), half(15, 20)), "15×20 is not divisible by the tokenizer's factor 4"),
        (lambda h: edit(h, picture(), half(), "cow"), "label: 'cow' is no class"),
        (lambda h: edit(h, picture(), half(), []), "labels: none given"),
        (lambda h: edit(h, picture(), half(), count=0), "count: 0 given, must be at least 1"),
        (lambda h: edit(h, picture(), half(), seed=[1, 2]), "seed: 2 seeds given for 1 images"),
        (lambda h: edit(h, picture(), half(), seed=-1), "seed: -1 given"),
        (lambda h: edit(h, picture(), half(), batch_size=0), "batch_size: 0 given"),
        (lambda h: edit(h, picture(), half(), steps=11), "steps: 11 given, must be between 1 and 10"),
        (lambda h: edit(h, picture(), half(), stepz=1), "unknown setting 'stepz'; did you mean 'steps'"),
        (lambda h: outpaint(h, picture(), 12, 24), "canvas: 12×24 given, must be at least the image's 16×20"),
        (lambda h: outpaint(h, picture(), 18, 24), "canvas: 18×24 given, both sides must be multiples of 4"),
        (lambda h: outpaint(h, picture(), 16, 20), "canvas: 16×20 given, just the image's size"),
        (lambda h: outpaint(h, picture(), 24, 24, (12, 0)), "at: 12,0 given, but .* lies between 0,0 and 8,4"),
        (lambda h: outpaint(h, picture(), 24, 24, (0, -4)), "at: 0,-4 given"),
        (lambda h: outpaint(h, picture(), 24, 24, (2, 0)), "at: 2,0 given, both must be multiples of 4"),
        (lambda h: vary(h, picture(), 0), r"keep_cells: 0 given, must be between 1 and 19 \(the image has 4×5 cells"),
        (lambda h: vary(h, picture(), 20), "keep_cells: 20 given"),
    ],
)
def test_refuses(make_model: Make, call: Callable[[Heptapod], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(bundle(make_model, CODES))


def test_the_picture_of_results_without_a_label_has_no_names(heptapod: Heptapod) -> None:
    result = edit(heptapod, picture(), half(), count=2)
    assert result.labels == [-1, -1]
    assert result.picture(heptapod.class_names).size == result.picture().size


def test_labels_may_be_an_array(heptapod: Heptapod) -> None:
    images = heptapod.generate([0, 1], seed=1, steps=2, output="tensor")
    nats = [heptapod.negative_log_likelihood(images, labels) for labels in ([0, 1], np.array([0, 1]))]
    assert torch.equal(*nats)
