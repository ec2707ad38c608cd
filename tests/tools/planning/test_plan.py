"""Grids, GPUs and the arithmetic of a plan."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path

import pytest
import torch

from heptapod.data.cache import CacheConfig, open_cache, read_shard, shard_path
from heptapod.data.cache_writer import CacheWriter
from heptapod.data.sources import open_source
from heptapod.grid import GridSpec
from heptapod.models.heptapod import build_model, parameters_by_part
from heptapod.tokenizers import PixelConfig, build_tokenizer
from heptapod.tools.planning.gpus import GPU, GPUS, find_gpu, gpu_of_device
from heptapod.tools.planning.plan import Hardware, make_plan, storage, to_json
from heptapod.tools.planning.training_setup import IMAGENET_IMAGES, KNOWN_CACHES, SetupOverrides, resolve_setup
from heptapod.training.optim import optimizer_tensors
from heptapod.training.recipe import TokenizerStage, load_recipe, recipe_names
from heptapod.utils.files import write_tensors
from tests.tools.planning.steps import real_batch, real_loss, real_model, training_setup

SMALL = ["--model.depth", "1", "--model.head.depth", "1", "--train.precision", "float32"]
ONE_TFLOPS = GPU("one", 1.0, 0.5, 16.0)


@pytest.fixture
def away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder where none of a recipe's data is."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_has_a_grid_without_its_data(name: str, away: Path) -> None:
    recipe = load_recipe(name)
    found = resolve_setup(recipe)
    if name.startswith("imagenet256"):
        tokens = {"channels": 16} if "vae" in name else {"vocabulary_size": 16384}
        assert found.grid == GridSpec(16, 16, **tokens)
        assert found.num_classes == 1000
    assert recipe.tokenizer != TokenizerStage() or recipe.data.path in KNOWN_CACHES, "nothing tells the tokenizer"
    if recipe.data.path != "mnist5k":
        assert any("not on this machine" in line for line in found.assumed)


@pytest.mark.parametrize(
    ("name", "grid", "classes"),
    [
        ("imagenet256_b_vae", GridSpec(16, 16, channels=16), 1000),
        ("cifar10", GridSpec(8, 8, 256), 10),
        ("imagenet64", None, 100),
        ("digits_features", GridSpec(7, 7, 64), 10),
        ("tokenizer_imagenet256_vq_f16", GridSpec(16, 16, 16384), 1000),
    ],
)
def test_what_is_assumed(name: str, grid: GridSpec | None, classes: int, away: Path) -> None:
    recipe = load_recipe(name)
    found = resolve_setup(recipe)
    assert grid is None or found.grid == grid
    assert found.num_classes == classes
    assert found.images == IMAGENET_IMAGES
    assert found.views == (2 if recipe.data.flip else 1)


def test_options_win(away: Path) -> None:
    recipe = load_recipe("cifar10", ["--data", "nowhere"])
    found = resolve_setup(recipe, SetupOverrides("4x6", codes=99, classes=0, images=12))
    assert (found.grid, found.num_classes, found.images) == (GridSpec(4, 6, 99), 0, 12)
    found = resolve_setup(recipe, SetupOverrides(codes=99, classes=7))
    assert found.grid == GridSpec(8, 8, 99)


def test_images_that_are_there_are_looked_at(image_folder: Path) -> None:
    recipe = load_recipe("cifar10", ["--data", str(image_folder), "--data.image_size", "0"])
    found = resolve_setup(recipe)
    assert (found.grid, found.num_classes, found.images, found.assumed) == (GridSpec(4, 4, 256), 2, 24, [])


@pytest.fixture
def cache(image_folder: Path, tmp_path: Path) -> Path:
    """A cache of codes with mirrored views."""
    tokenizer = build_tokenizer(PixelConfig(levels=9))
    CacheWriter(tmp_path / "cache", open_source(str(image_folder)), tokenizer, CacheConfig(flip=True)).run()
    return tmp_path / "cache"


def test_a_cache_tells_everything(cache: Path) -> None:
    found = resolve_setup(load_recipe("demo", ["--data", str(cache)]))
    assert (found.grid, found.num_classes, found.images, found.views) == (GridSpec(16, 16, 9), 2, 24, 2)
    assert resolve_setup(load_recipe("demo", ["--data", str(cache)]), SetupOverrides("2x2")).grid == GridSpec(2, 2, 9)


def test_storage_is_that_of_a_cache(cache: Path) -> None:
    found = resolve_setup(load_recipe("demo", ["--data", str(cache)]))
    opened = open_cache(cache)
    shards = [read_shard(shard_path(cache, n), opened.description) for n in range(len(opened.index.shards))]
    assert storage(found).cache == sum(tensor.nbytes for shard in shards for tensor in shard.tensors.values())


def test_storage_of_vectors_and_many_codes() -> None:
    vectors = storage(training_setup("flow"))
    assert vectors.bytes_per_token == 2 * 5
    assert vectors.cache == 100 * (36 * 10 + 17)
    many = dataclasses.replace(training_setup("cross"), grid=GridSpec(6, 6, 40_000), views=2)
    assert storage(many).bytes_per_token == 4
    assert storage(many).cache == 100 * (2 * 36 * 4 + 17)


def test_storage_is_that_of_a_checkpoint(tmp_path: Path) -> None:
    what = training_setup("cross", *SMALL)
    model = real_model(what)
    average = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(model.parameters())
    real_loss(what, model, real_batch(what, model, 2)).backward()
    optimizer.step()
    parts = {"model": model.state_dict(), "ema": average.state_dict(), "optimizer": optimizer_tensors(model, optimizer)}
    for name, tensors in parts.items():
        write_tensors(tmp_path / f"{name}.safetensors", tensors)
    planned = storage(what)
    written = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert planned.checkpoint == pytest.approx(written, rel=0.05), "headers are a larger part of a small file"
    assert planned.checkpoint < written
    assert planned.export == sum(tensor.nbytes for tensor in model.state_dict().values())


@pytest.mark.parametrize(
    ("name", "given", "settings", "message"),
    [
        ("demo", {"grid": "7"}, [], "grid: 7 given, must be rows x columns"),
        ("demo", {"grid": "0x7"}, [], "grid: 0x7 given"),
        ("demo", {"codes": 5, "channels": 5}, [], "codes: 5 given together with channels 5"),
        ("demo", {"classes": -1}, [], "classes: -1 given, must be at least 0"),
        ("demo", {"images": 0}, [], "images: 0 given, must be at least 1"),
        (
            "cifar10",
            {},
            ["--data", "my/photos"],
            "classes: not given, and the data .my/photos. are not on this machine",
        ),
        ("demo", {}, ["--data", "my/photos"], "grid: not given, and the data .my/photos.*--grid 16x16 with --codes"),
        ("cifar10", {}, ["--tokenizer.path", "gone"], "tokenizer.path: gone holds no trained tokenizer"),
        ("cifar10", {}, ["--data.image_size", "30"], "not divisible by the tokenizer's factor 4"),
    ],
)
def test_what_cannot_be_known(name: str, given: dict[str, int], settings: list[str], message: str, away: Path) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        resolve_setup(load_recipe(name, settings), SetupOverrides(**given))  # type: ignore[arg-type]


def test_the_arithmetic_of_a_plan() -> None:
    settings = ["--train.steps", "1000", "--train.batch_size", "24", "--train.accumulation", "3"]
    what = training_setup("cross", *SMALL, *settings)
    made = make_plan(what, Hardware(ONE_TFLOPS, gpus=2, utilization=0.25, dollars_per_gpu_hour=3.0))
    model = build_model(what.recipe.model, what.grid, what.num_classes, seed=0)
    assert made.parameters == parameters_by_part(model)
    images_per_second = 2 * 0.5e12 * 0.25 / made.flops.total
    assert made.time.images_per_second == pytest.approx(images_per_second)
    assert made.time.tokens_per_second == pytest.approx(36 * images_per_second)
    assert made.time.seconds_per_step == pytest.approx(24 / images_per_second)
    assert made.time.days == pytest.approx(24_000 / images_per_second / 86_400)
    assert made.time.gpu_hours == pytest.approx(2 * 24 * made.time.days)
    assert made.time.dollars == pytest.approx(3 * made.time.gpu_hours)
    assert made.time.epochs == 240
    assert made.time.model_flops_utilization == 0.25
    assert made.sampling.gpu_hours == pytest.approx(50_000 * made.sampling.flops.total / (1e12 * 0.25) / 3600)
    assert made.memory.micro_batch == 4
    assert made.memory.fits
    assert made.memory.activations == made.memory.activations_without_checkpointing
    assert made.memory.activations_with_checkpointing < made.memory.activations
    assert made.memory.usable == int(0.9 * 16 * 2**30)
    told = json.loads(json.dumps(to_json(made)))
    assert told["flops"]["per_step"] == 24 * made.flops.total
    assert told["memory"]["at_peak"]["peak"] == made.memory.at_peak.peak


def test_checkpointing_takes_time() -> None:
    hardware = Hardware(ONE_TFLOPS)
    plain = make_plan(training_setup("cross", *SMALL), hardware)
    checkpointed = make_plan(training_setup("cross", *SMALL, "--train.activation_checkpointing"), hardware)
    assert checkpointed.flops.total == plain.flops.total
    longer = 1 + checkpointed.flops.recomputed / plain.flops.total
    assert checkpointed.time.days == pytest.approx(longer * plain.time.days)
    assert checkpointed.time.model_flops_utilization == pytest.approx(0.4 / longer)
    assert checkpointed.memory.activations == plain.memory.activations_with_checkpointing


def test_settings_that_sampling_cannot_follow_are_refused() -> None:
    with pytest.raises(ValueError, match="steps: 99 given, must be between 1 and 36"):
        make_plan(training_setup("cross", "--sampling.steps", "99"), Hardware(ONE_TFLOPS))


def test_gpus() -> None:
    assert find_gpu().name == "h100"
    assert find_gpu("A100-40") is GPUS["a100-40"] or find_gpu("A100-40") == GPUS["a100-40"]
    assert find_gpu("h100", memory_gib=94) == GPU("h100", 989.5, 67, 94)
    assert find_gpu(tflops=100, memory_gib=32) == GPU("custom", 100, 100, 32)
    assert GPUS["h200"].peak("bfloat16") == 989.5e12
    assert GPUS["h200"].peak("float32") == 67e12
    for name, tflops, memory in (("h1000", None, None), (None, 0, None), (None, None, float("inf"))):
        with pytest.raises(ValueError, match="gpu"):
            find_gpu(name, tflops, memory)


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA A100-SXM4-40GB", "a100-40"),
        ("NVIDIA A100-SXM4-80GB", "a100-80"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA B200", "b200"),
        ("AMD Instinct MI300X", "mi300x"),
        ("NVIDIA H100 PCIe", None),
        ("NVIDIA H100 NVL", None),
        ("NVIDIA GeForce RTX 3090", None),
    ],
)
def test_gpus_by_the_name_of_their_device(device: str, name: str | None) -> None:
    assert gpu_of_device(device) == (GPUS[name] if name else None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gpus": 0}, "gpus: 0 given"),
        ({"utilization": 0.0}, "utilization: 0.0 given, must be above 0"),
        ({"utilization": 1.5}, "utilization: 1.5 given"),
        ({"dollars_per_gpu_hour": -1.0}, "dollars_per_gpu_hour: -1.0 given"),
    ],
)
def test_hardware_that_cannot_be(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Hardware(ONE_TFLOPS, **change)  # type: ignore[arg-type]
