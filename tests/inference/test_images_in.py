"""What ``generate`` returns is what the rest of the API accepts: PIL images, NumPy arrays, tensors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from heptapod import Heptapod, edit, outpaint, vary
from heptapod.data.decoding import to_rgb
from heptapod.grid import GridSpec
from heptapod.inference import pipeline
from heptapod.inference.images_in import image_batch, image_tensor, mask_tensor
from heptapod.models import HeptapodModel
from heptapod.tokenizers import PixelConfig, build_tokenizer

Make = Callable[..., HeptapodModel]


@pytest.fixture
def heptapod(make_model: Make) -> Heptapod:
    """A random model of 4×5 pixels with a lossless tokenizer."""
    return Heptapod(
        make_model("cross", GridSpec(4, 5, 7)), build_tokenizer(PixelConfig(levels=7)), ["a", "b", "c"], "mixed"
    )


def forms(images: Tensor) -> list[object]:
    """Images (M, 3, h, w) uint8 in every form that a batch may have."""
    arrays = images.permute(0, 2, 3, 1).numpy()
    pictures = [Image.fromarray(array) for array in arrays]
    return [images, list(images), arrays, list(arrays), pictures, tuple(pictures)]


def test_generated_images_go_back_in(heptapod: Heptapod) -> None:
    pictures = heptapod.generate([0, 1, 2], seed=4)
    images = heptapod.generate([0, 1, 2], seed=4, output="tensor")
    assert images.shape == (3, 3, 4, 5)
    assert images.dtype == torch.uint8
    assert torch.equal(image_batch(pictures), images)
    tokens = heptapod.generate_tokens([0, 1, 2], seed=4)
    nats = heptapod.negative_log_likelihood(images, [0, 1, 2], token_order="raster")
    for form in forms(images):
        assert torch.equal(heptapod.encode(form), tokens), "lossless: the sampled tokens"  # type: ignore[arg-type]
        again = heptapod.negative_log_likelihood(form, [0, 1, 2], token_order="raster")  # type: ignore[arg-type]
        assert torch.equal(again, nats)
    assert torch.equal(heptapod.encode(pictures[1]), tokens[1:2])
    assert torch.equal(heptapod.encode(images[1]), tokens[1:2])


def test_every_form_edits_alike(heptapod: Heptapod) -> None:
    image = heptapod.generate([0], seed=4, output="tensor")[0]
    mask = torch.zeros(4, 5, dtype=torch.bool)
    mask[2:] = True
    array, levels = image.permute(1, 2, 0).numpy(), Image.fromarray(mask.numpy())
    images = [image, array, Image.fromarray(array)]
    masks = [mask, mask.numpy(), levels, levels.convert("L"), levels.convert("RGB")]
    expected = edit(heptapod, image, mask, 1, seed=2)
    for form in images:
        for form_of_mask in masks:
            assert torch.equal(edit(heptapod, form, form_of_mask, 1, seed=2).tokens, expected.tokens)
        kept = vary(heptapod, form, 10, 1, seed=2)
        assert torch.equal(kept.tokens, expected.tokens), "the first two rows of five cells"
        with pytest.warns(UserWarning, match="trained on 4×5"):
            larger = outpaint(heptapod, form, 6, 5, (0, 0), 1)
        assert torch.equal(larger.images[0, :, :4], image)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"])
def test_pil_images_are_converted_as_the_data_reader_does(mode: str) -> None:
    rgba = Image.fromarray(np.random.default_rng(0).integers(256, size=(4, 5, 4), dtype=np.uint8), "RGBA")
    picture = rgba.convert("L").convert("I").convert("I;16") if mode == "I;16" else rgba.convert("RGB").convert(mode)
    picture = rgba if mode == "RGBA" else picture
    assert torch.equal(image_tensor(picture), torch.from_numpy(to_rgb(picture, 0)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda h: h.encode(torch.zeros(1, 3, 4, 5)), r"images: \(1, 3, 4, 5\) of torch.float32 given, must be"),
        (lambda h: h.encode(torch.zeros(1, 3, 5, 4, dtype=torch.uint8)), r"images: \(1, 3, 5, 4\) .* \(M, 3, 4, 5\)"),
        (lambda h: h.encode(np.zeros((4, 5), np.uint8)), r"images: \(4, 5\) of uint8 given, must be"),
        (lambda h: h.encode([np.zeros((4, 5, 3))]), r"images: \(4, 5, 3\) of float64 given, must be a PIL image"),
        (lambda h: h.encode([Image.new("RGB", (5, 4)), Image.new("RGB", (4, 5))]), "images: 4×5 and 5×4 pixels given"),
        (lambda h: h.encode([]), "images: none given"),
        (lambda h: h.encode(["a.png"]), "images: str given, must be a PIL image"),
        (lambda h: h.encode(Image.new("F", (5, 4))), "images: pixels of mode F have no fixed range"),
        (lambda h: edit(h, [Image.new("RGB", (5, 4))], Image.new("L", (5, 4))), "image: list given, must be a PIL"),
        (lambda h: edit(h, Image.new("RGB", (5, 4)), Image.new("L", (4, 5))), r"mask: \(5, 4\) of torch.bool given"),
        (lambda h: edit(h, Image.new("RGB", (5, 4)), np.ones((4, 5), np.uint8)), r"mask: \(4, 5\) of uint8 given"),
        (lambda h: h.generate([0], output="numpy"), "output: 'numpy' given, must be pil or tensor"),
        (lambda h: h.generate([0], belief=True), "unknown setting 'belief'"),
    ],
)
def test_other_forms_are_named_in_one_line(
    heptapod: Heptapod, call: Callable[[Heptapod], object], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as error:
        call(heptapod)
    assert "\n" not in str(error.value)


def test_gray_mask_is_repainted_from_the_middle_level_on() -> None:
    gray = Image.fromarray(np.array([[0, 127, 128, 255]], np.uint8))
    assert mask_tensor(gray, (1, 4)).tolist() == [[False, False, True, True]]


def test_one_plan_for_all_batches(heptapod: Heptapod, monkeypatch: pytest.MonkeyPatch) -> None:
    plans = []
    original = pipeline.plan_sampling

    def counted(*args: object, **kwargs: object) -> object:
        plans.append(original(*args, **kwargs))  # type: ignore[arg-type]
        return plans[-1]

    monkeypatch.setattr(pipeline, "plan_sampling", counted)
    image = heptapod.generate([0] * 5, batch_size=2, output="tensor")[0]
    assert len(plans) == 1
    vary(heptapod, image, 10, 0, count=5, batch_size=2)
    assert len(plans) == 2
    heptapod.trace(0)
    assert len(plans) == 3
