"""A custom head, tokenizer and data set: trained, saved, loaded and used to edit an image."""

import sys
from pathlib import Path

import torch
from PIL import Image

import heptapod


@heptapod.register_head("point")
class PointHead(heptapod.Head):  # predicts a cell from the state after the last token and the position of the cell
    def __init__(self, width, depth, num_heads, rotary_base):
        super().__init__(width, depth, num_heads, rotary_base)
        self.mix = torch.nn.Linear(width, width)

    def forward(self, states, prefix_lengths, targets, cache=None):
        position = self.position(targets.flatten(1), states).unflatten(1, targets.shape[1:])  # (B, S, L, D)
        return self.mix(states.at(prefix_lengths).unsqueeze(2) + position)


@heptapod.register_tokenizer("gray")
class GrayTokenizer(heptapod.Tokenizer):  # the mean brightness of 4×4 pixels, in 8 levels
    factor, vocabulary_size = 4, 8

    def __init__(self, config):
        super().__init__()
        self.config = config

    def encode(self, images):
        return ((torch.nn.functional.avg_pool2d(images.mean(1), 4).flatten(1) + 1) * 3.999).long()

    def decode(self, tokens, grid):
        pixels = (tokens.view(-1, 1, grid.height, grid.width) + 0.5) / 4 - 1
        return pixels.repeat_interleave(4, 2).repeat_interleave(4, 3).expand(-1, 3, -1, -1)


if __name__ == "__main__":
    out = Path(sys.argv[1])
    for number in range(40):  # a folder per class
        folder = out / "images" / ("light" if number % 2 else "dark")
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (150 * (number % 2) + number,) * 3).save(folder / f"{number}.png")
    head, steps = {"kind": "point"}, {"steps": 40, "batch_size": 8, "eval_every": 20}
    recipe = {"imports": [__file__], "out": str(out / "run"), "data": {"path": str(out / "images")}, "train": steps}
    recipe |= {"tokenizer": {"model": {"kind": "gray"}}, "model": {"width": 32, "depth": 1, "head": head}}
    heptapod.train(heptapod.load_recipe(recipe)).save_pretrained(out / "model")
    model = heptapod.Heptapod.from_pretrained(out / "model")
    (image,) = model.generate(["light"], seed=1)
    mask = Image.new("1", image.size)
    mask.paste(1, (0, 8, 16, 16))  # repaint the lower half
    print("kept cells identical:", heptapod.edit(model, image, mask, "dark", seed=2).kept_cells_identical)
