from __future__ import annotations

import torch

from heptapod.utils.images import belief_picture, heat_map, image_grid, to_pil


def test_grid_shows_every_image_in_its_place() -> None:
    images = torch.zeros(5, 3, 60, 60, dtype=torch.uint8)
    for number in range(5):
        images[number, 0] = 40 * (number + 1)
    picture = image_grid(images, columns=3)
    assert picture.size == (3 * 62 + 2, 2 * 62 + 2)
    seen = [picture.getpixel((30 + 62 * (i % 3), 30 + 62 * (i // 3))) for i in range(5)]
    assert seen == [(40 * (i + 1), 0, 0) for i in range(5)]


def test_small_images_are_enlarged_and_rows_named() -> None:
    picture = image_grid(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), 2, ["cat", "a long class name"])
    assert picture.height == 2 * 50 + 2
    assert picture.width > 2 * 50 + 80


def test_heat_map_goes_from_dark_to_light() -> None:
    colors = heat_map(torch.linspace(0, 2, 9).unsqueeze(0), 2.0).float().sum(0).flatten()
    assert (colors.diff() > 0).all()
    assert torch.equal(heat_map(torch.tensor([[5.0]]), 2.0), heat_map(torch.tensor([[2.0]]), 2.0))


def test_belief_picture_has_three_rows() -> None:
    read = torch.full((6, 3, 28, 28), 7, dtype=torch.uint8)
    believed = torch.full((6, 3, 28, 28), 99, dtype=torch.uint8)
    uncertainty = torch.ones(6, 7, 7)
    uncertainty[0, 0, 0] = 2  # the end of the color scale
    picture = belief_picture(read, believed, uncertainty, ["a"] * 6, "entropy (nats)")
    column = [picture.getpixel((picture.width - 40, y)) for y in (60, 180, 290)]
    assert column[:2] == [(7, 7, 7), (99, 99, 99)]
    assert column[2] == to_pil(heat_map(torch.ones(1, 1), 2.0)).getpixel((0, 0))
