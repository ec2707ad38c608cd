"""A custom head and a custom tokenizer, trained on custom images, saved, loaded and used to edit an image."""

import sys
from pathlib import Path

import torch
from PIL import Image
from torch import nn

import heptapod


@heptapod.settings
class PointConfig(heptapod.HeadConfig):
    kind: str = "point"
    hidden: int = 64
    """Width of the hidden layer."""


@heptapod.register_head("point", PointConfig)
class PointHead(heptapod.Head):
    def __init__(self, width, depth, num_heads, rotary_base, hidden):
        super().__init__(width, depth, num_heads, rotary_base)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, states, prefix_lengths, targets, cache=None):
        position = self.position(targets.flatten(1), states).unflatten(1, targets.shape[1:])  # (B, S, L, D)
        return self.mlp(states.at(prefix_lengths).unsqueeze(2) + position)


@heptapod.settings
class BitsConfig(heptapod.TokenizerConfig):
    kind: str = "bits"
    bits: int = 4
    """Bits per token."""


@heptapod.register_tokenizer("bits", BitsConfig)
class BitsTokenizer(heptapod.TrainableTokenizer):
    factor = 4  # pixels per cell side

    def __init__(self, config):
        super().__init__()
        self.config, self.vocabulary_size = config, 2**config.bits
        self.register_buffer("place", 2 ** torch.arange(config.bits).view(-1, 1), persistent=False)
        self.encoder = nn.Sequential(nn.Conv2d(3, config.bits, 4, stride=4), nn.Tanh())
        self.decoder = nn.Sequential(nn.ConvTranspose2d(config.bits, 16, 4, stride=4), nn.SiLU(), nn.Conv2d(16, 3, 1))

    def reconstruct(self, images, generator):
        x = self.encoder(images)
        signs = x + (x.sign() - x).detach()  # the gradient passes through
        return heptapod.Reconstruction(self.decoder(signs), penalty=images.new_zeros(len(images)))

    def encode(self, images):
        return ((self.encoder(images) > 0).flatten(2) * self.place).sum(1)

    def decode(self, tokens, grid):
        signs = (tokens.unsqueeze(1) // self.place % 2) * 2.0 - 1
        return self.decoder(signs.unflatten(2, (grid.height, grid.width))).clamp(-1, 1)


if __name__ == "__main__":
    out = Path(sys.argv[1])
    for number in range(40):  # a folder per class
        (out / "images" / ("light" if number % 2 else "dark")).mkdir(parents=True, exist_ok=True)
        image = Image.new("RGB", (16, 16), (150 * (number % 2) + number,) * 3)
        image.save(out / "images" / ("light" if number % 2 else "dark") / f"{number}.png")
    rhythm = {"steps": 40, "batch_size": 8, "eval_every": 20}
    recipe = {
        "imports": [__file__],
        "out": str(out / "run"),
        "data": {"path": str(out / "images")},
        "tokenizer": {"model": {"kind": "bits"}, "train": rhythm},
        "model": {"width": 32, "depth": 1, "head": {"kind": "point", "hidden": 48}},
        "train": rhythm,
    }
    heptapod.train(heptapod.load_recipe(recipe)).save_pretrained(out / "model")
    model = heptapod.Heptapod.from_pretrained(out / "model")
    image = model.decode(model.generate_tokens(["light"], seed=1))[0]
    lower_half = torch.arange(16).view(16, 1).expand(16, 16) >= 8
    edited = heptapod.edit(model, image, lower_half, "dark", seed=2)
    print(f"kept cells identical: {edited.kept_cells_identical}")
