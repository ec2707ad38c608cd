"""Models of vectors from the command line: from images, from a cache, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from heptapod import Heptapod
from heptapod.cli import main
from heptapod.data.cache import shard_path
from heptapod.distributions import DiffusionDistribution, FlowDistribution
from heptapod.inference.pretrained import find_pretrained
from heptapod.utils.files import read_metadata, sha256, write_json, write_tensors
from tests.cli.test_cli import fails
from tests.conftest import write_classes

TINY = [
    "--tokenizer.model.width", "8", "--tokenizer.model.latent_channels", "3", "--tokenizer.train.steps", "6",
    "--tokenizer.train.batch_size", "8", "--data.image_size", "16",
]  # fmt: skip
TINY_MODEL = [
    "--model.width", "16", "--model.depth", "1", "--model.num_heads", "1", "--model.head.depth", "1",
    "--model.distribution.mlp_depth", "1", "--model.distribution.mlp_width", "16", "--train.steps", "6",
    "--train.batch_size", "8", "--train.eval_every", "3", "--train.log_every", "1", "--sampling.cell_steps", "3",
]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """images/, run/ (trained from images), cache/ and cached/ (trained from the cache with diffusion)."""
    folder = tmp_path_factory.mktemp("continuous")
    write_classes(folder / "images", 20)
    images, run, cache = (str(folder / name) for name in ("images", "run", "cache"))
    assert main(["train", "cifar10_vae", "--data", images, "--out", run, *TINY, *TINY_MODEL]) == 0
    assert main(["tokenize", run, "--data", images, "--out", cache, "--flip"]) == 0
    from_cache = ["train", "cifar10_vae", "--data", cache, "--data.image_size", "16", "--out", str(folder / "cached")]
    sampling = ["--sampling.cell_steps", "5", "--model.distribution.kind", "diffusion"]
    assert main([*from_cache, *TINY_MODEL, *sampling]) == 0
    return folder


def test_trained_models_sample(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for run, kind, steps in (("run", FlowDistribution, 3), ("cached", DiffusionDistribution, 5)):
        default, fast = (kind.presets[name] for name in ("default", "fast"))
        for extra, expected in (
            ([], (default.solver, steps)),  # the steps are those that the model was trained with as its default
            (["--preset", "fast"], tuple(fast)),
            (["--preset", "fast", "--cell_steps", "2"], (fast.solver, 2)),
            (["--cell_steps", "2", "--steps", "4"], (default.solver, 2)),
        ):
            out = place / f"{run}.png"
            assert main(["sample", str(place / run), "--count", "2", "--out", str(out), *extra]) == 0
            record = json.loads(out.with_suffix(".json").read_text())["sampling"]
            assert (record["cell_solver"], record["cell_steps"]) == expected, "what was drawn with is written down"
    belief = place / "belief.png"
    assert main(["sample", str(place / "run"), "--count", "1", "--out", str(out), "--belief", str(belief)]) == 0
    assert Image.open(belief).width > 300
    assert main(["info", str(place / "run"), "--json"]) == 0
    assert '"channels": 3' in capsys.readouterr().out


def test_a_saved_model_is_the_same(place: Path, tmp_path: Path) -> None:
    before = Heptapod.from_pretrained(place / "cached")
    before.save_pretrained(tmp_path / "m")
    after = Heptapod.from_pretrained(tmp_path / "m")
    a, b = (h.generate_tokens(["dark", "light"], seed=3) for h in (before, after))
    assert torch.equal(a, b)
    padded = after.generate_tokens(["dark", "light", "dark"], seed=3, batch_size=4)
    assert torch.equal(padded[:2], after.generate_tokens(["dark", "light"], seed=3, batch_size=4)), "bit for bit"


def test_likelihood_counts_the_normalization(place: Path) -> None:
    """In nats per token of the latent itself: latents twice as wide have C·log 2 more."""
    heptapod = Heptapod.from_pretrained(place / "run")
    images = torch.randint(256, (3, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    nats = heptapod.negative_log_likelihood(images, ["dark", "light", "dark"])
    assert nats.shape == (3,)
    assert torch.allclose(nats, heptapod.negative_log_likelihood(images, [0, 1, 0], batch_size=2), atol=1e-3)
    tokens = heptapod.tokenizer.encode(images.float() / 127.5 - 1)
    latent_nats = nats[0] - heptapod.tokenizer.log_scale  # type: ignore[operator]
    heptapod.tokenizer.latent_std.mul_(2)  # type: ignore[union-attr, operator]
    # The same tokens now stand for latents twice as wide.
    heptapod.tokenizer.encode = lambda _: tokens[:1]  # type: ignore[method-assign]
    wider = heptapod.negative_log_likelihood(images[:1], [0])
    assert abs(float(wider) - float(latent_nats) - heptapod.tokenizer.log_scale) < 1e-3  # type: ignore[operator]
    assert abs(float(wider - nats[0]) - 3 * np.log(2)) < 1e-3
    with pytest.raises(ValueError, match="DiffusionDistribution has no likelihood"):
        Heptapod.from_pretrained(place / "cached").negative_log_likelihood(images)
    with pytest.raises(ValueError, match=r"images: \(3, 3, 8, 8\) of torch.uint8 given"):
        heptapod.negative_log_likelihood(images[:, :, :8, :8])
    with pytest.raises(ValueError, match="labels: 1 given for 3 images"):
        heptapod.negative_log_likelihood(images, [0])


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--cell_solver", "ddim"], "a FlowDistribution is drawn by multistep, euler or heun"),
        (["--cell_steps", "0"], "cell_steps: 0 given, must be at least 1"),
        (["--top_k", "3"], "top_k: 3 given, but this model samples continuous tokens, not codes"),
        (["--temperature", "-1"], "temperature: -1.0 given, must be at least 0"),
    ],
)
def test_sampling_refuses(place: Path, capsys: pytest.CaptureFixture[str], extra: list[str], message: str) -> None:
    fails(capsys, ["sample", str(place / "run"), "--out", str(place / "x.png"), *extra], message)
    assert not (place / "x.png").exists()


@pytest.mark.parametrize(
    ("recipe", "data", "extra", "message"),
    [
        ("cifar10", "images", ["--model.distribution.kind", "flow"], "tokens are 256 codes: use categorical"),
        (
            "cifar10_vae",
            "images",
            ["--model.distribution.kind", "categorical"],
            "tokens are continuous with 3 channels",
        ),
        ("cifar10", "cache", [], "categorical given, but the tokenizer's tokens are continuous with 3 channels"),
        ("cifar10_vae", "images", ["--sampling.cell_solver", "ddim"], "cell_solver: ddim given"),
        ("cifar10_vae", "images", ["--sampling.cell_steps", "0"], "cell_steps: 0 given, must be at least 1"),
        ("cifar10_vae", "images", ["--model.distribution.noise_levels", "-1"], "noise_levels: -1 given"),
        ("cifar10", "images", ["--model.distribution.mlp_depth", "2"], "a categorical distribution has no MLP"),
        ("cifar10_vae", "images", ["--model.distribution.mlp_depth", "-2"], "mlp_depth: -2 given"),
    ],
)
def test_training_refuses(
    place: Path, capsys: pytest.CaptureFixture[str], recipe: str, data: str, extra: list[str], message: str
) -> None:
    out = place / "refused"
    size = ["--data.image_size", "16"] if recipe == "cifar10" or data == "cache" else TINY
    fails(capsys, ["train", recipe, "--data", str(place / data), "--out", str(out), *size, *extra], message)
    assert not out.exists(), "nothing is written"


def test_latents_that_are_not_finite(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A cache that was spoiled after it was written: the image is named, and no step is made with it."""
    shutil.copytree(place / "cache", tmp_path / "cache")
    shard = shard_path(tmp_path / "cache", 0)
    tensors, metadata = load_file(shard), read_metadata(shard)
    tensors["tokens"][5, 1, 2, 0] = torch.inf
    write_tensors(shard, tensors, metadata)
    arguments = ["train", "cifar10_vae", "--data", str(tmp_path / "cache"), "--data.image_size", "16"]
    capsys.readouterr()
    assert main([*arguments, "--out", str(tmp_path / "out"), *TINY_MODEL]) == 2
    assert "05.png: its latents are not finite" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_grid_that_is_not_the_tokenizer_s(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(find_pretrained(place / "run"), tmp_path / "m")
    shutil.copytree(place / "run" / "tokenizer" / "best", tmp_path / "tokenizer" / "best")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    config["grid"]["channels"] = 4
    config["tokenizer"] = "../tokenizer/best"
    write_json(tmp_path / "m" / "config.json", config)
    fails(capsys, ["sample", str(tmp_path / "m"), "--out", str(tmp_path / "x.png")], "is not one of its tokenizer's")
    config["grid"]["channels"] = 3
    write_json(tmp_path / "m" / "config.json", config)
    weights = load_file(tmp_path / "m" / "model.safetensors")
    weights["distribution.mlp.input.weight"] = weights["distribution.mlp.input.weight"][:, :2].contiguous()
    save_file(weights, tmp_path / "m" / "model.safetensors")
    fails(capsys, ["sample", str(tmp_path / "m"), "--out", str(tmp_path / "x.png")], "distribution.mlp.input.weight")


@pytest.mark.parametrize("kind", ["diffusion", "flow"])
def test_a_resumed_run_ends_with_the_same_weights(place: Path, tmp_path: Path, kind: str) -> None:
    arguments = ["train", "cifar10_vae", "--data", str(place / "cache"), "--data.image_size", "16", *TINY_MODEL]
    arguments += ["--train.save_every", "3", "--train.precision", "float32", "--model.distribution.kind", kind]
    out = tmp_path / "run"
    assert main([*arguments, "--out", str(out)]) == 0
    whole = sha256(out / "last" / "model.safetensors")
    (out / "training.json").unlink()
    shutil.rmtree(out / "checkpoints" / "step-00000006")
    shutil.rmtree(out / "last")
    assert main([*arguments, "--out", str(out)]) == 0
    assert sha256(out / "last" / "model.safetensors") == whole
