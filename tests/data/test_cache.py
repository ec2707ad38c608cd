"""The latent cache: exact, byte-equal, resumable, and clear about what is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from heptapod.data import DataConfig, encode_images, load_images
from heptapod.data.cache import CacheConfig, is_cache, open_cache, shard_path, verify_cache
from heptapod.data.cache_picture import contact_sheet, token_statistics
from heptapod.data.cache_writer import CacheWriter
from heptapod.data.cached_tokens import load_tokens
from heptapod.data.decoding import to_crops
from heptapod.data.sources import Source, open_source
from heptapod.tokenizers import ContinuousTokenizer, Tokenizer, VAEConfig, VQConfig, VQTokenizer
from heptapod.tokenizers.base import to_float
from heptapod.tokenizers.store import build_trainable
from heptapod.utils.config import to_dict
from heptapod.utils.files import locked, sha256


def vq(seed: int = 0) -> VQTokenizer:
    tokenizer = build_trainable(VQConfig(width=8, codebook_size=16, code_width=4), seed)
    assert isinstance(tokenizer, VQTokenizer)
    tokenizer.codebook.vectors.copy_(torch.randn(16, 4, generator=torch.Generator().manual_seed(seed)) / 4)
    return tokenizer.eval()


def vae() -> Tokenizer:
    tokenizer = build_trainable(VAEConfig(width=8, latent_channels=3, patch=2), 0).eval()
    assert isinstance(tokenizer, ContinuousTokenizer)
    tokenizer.measure([torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1])
    return tokenizer


def write(folder: Path, images: Path | str, tokenizer: Tokenizer | None = None, **settings: Any) -> dict[str, Any]:
    config = CacheConfig(**{"shard_size": 5, "batch_size": 3, **settings})
    return to_dict(CacheWriter(folder, open_source(str(images)), tokenizer or vq(), config).run())


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def pixels_of(folder: Path) -> torch.Tensor:
    files = sorted(folder.rglob("*.png"))
    return torch.stack([torch.from_numpy(np.asarray(Image.open(f)).transpose(2, 0, 1).copy()) for f in files])


def test_codes_are_those_of_the_tokenizer(image_folder: Path, tmp_path: Path) -> None:
    index = write(tmp_path / "c", image_folder)
    cache = open_cache(tmp_path / "c")
    assert (index["images"], index["missing"], len(index["shards"])) == (24, 0, 5)
    assert index["images_per_class"] == [12, 12]
    train, held_out = load_images(DataConfig(str(image_folder)))
    by_name = {
        name: vq().encode(to_float(image[None]))[0]
        for images in (train, held_out)
        for name, image in zip(images.names, images.images, strict=True)
    }
    assert list(cache.tokens.names) == open_source(str(image_folder)).names, "in the order of the source"
    expected = torch.stack([by_name[name] for name in cache.tokens.names])
    assert torch.equal(cache.tokens.head(24), expected)
    assert cache.tokens.shards[0].dtype == torch.int16
    assert cache.tokens.labels.tolist() == [0] * 12 + [1] * 12


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 0.0), ("float16", 2e-3)])
def test_vectors_are_those_of_the_tokenizer(image_folder: Path, tmp_path: Path, dtype: str, tolerance: float) -> None:
    index = write(tmp_path / "c", image_folder, vae(), dtype=dtype, batch_size=24, shard_size=24)
    assert index["grid"] == {"height": 2, "width": 2, "vocabulary_size": 0, "channels": 12}
    images = pixels_of(image_folder)
    expected = vae().encode(to_float(images))
    got = open_cache(tmp_path / "c").tokens.head(24)
    assert got.dtype == torch.float32
    assert (got - expected).abs().max() <= tolerance * max(1.0, float(expected.abs().max()))


def test_a_cache_in_bfloat16_has_the_codes_that_autocast_gives(image_folder: Path, tmp_path: Path) -> None:
    for precision in ("bfloat16", "float32"):
        write(tmp_path / precision, image_folder, shard_size=24, batch_size=24, precision=precision)
    cache = open_cache(tmp_path / "bfloat16")
    assert cache.description.settings.precision == "bfloat16"
    images = pixels_of(image_folder)
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        expected = vq().encode(to_float(images))
    got, exact = cache.tokens.head(24), open_cache(tmp_path / "float32").tokens.head(24)
    assert torch.equal(got, expected)
    assert (got == exact).float().mean() > 0.9, "nearly as near"
    with pytest.raises(ValueError, match="holds a cache with precision = bfloat16, now float32 is given"):
        write(tmp_path / "bfloat16", image_folder, shard_size=24, batch_size=24)


def test_two_caches_are_equal_byte_for_byte(image_folder: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name, image_folder, flip=True)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


class Killed(Exception):
    pass


@pytest.mark.parametrize("images_before", [0, 4, 7, 13, 22])
def test_a_stopped_run_goes_on_without_gaps_or_doubles(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images_before: int
) -> None:
    write(tmp_path / "whole", image_folder)
    encode, seen = VQTokenizer.encode, [0]

    def dying(self: VQTokenizer, images: torch.Tensor) -> torch.Tensor:
        seen[0] += len(images)
        if seen[0] > images_before:
            raise Killed
        return encode(self, images)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(VQTokenizer, "encode", dying)
        write(tmp_path / "broken", image_folder)
    (tmp_path / "broken" / "shards").mkdir(exist_ok=True)
    (tmp_path / "broken" / "shards" / ".tmp-00003.safetensors").write_bytes(b"half")
    with pytest.raises(FileNotFoundError, match="an incomplete cache"):
        open_cache(tmp_path / "broken")
    write(tmp_path / "broken", image_folder)
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")


def test_a_kill_before_the_first_file_is_whole(image_folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "whole", image_folder)
    (tmp_path / "broken" / "tokenizer").mkdir(parents=True)
    (tmp_path / "broken" / ".tmp-cache.json").write_text("{")
    (tmp_path / "broken" / "tokenizer" / ".tmp-model.safetensors").write_text("half")
    write(tmp_path / "broken", image_folder)
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")


def test_one_writer_at_a_time(image_folder: Path, tmp_path: Path) -> None:
    with locked(tmp_path / "c"), pytest.raises(ValueError, match="another process is writing there"):
        write(tmp_path / "c", image_folder)
    write(tmp_path / "c", image_folder)


def test_a_lost_shard_is_written_again(image_folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "c", image_folder)
    before = contents(tmp_path / "c")
    shard_path(tmp_path / "c", 1).unlink()
    write(tmp_path / "c", image_folder)
    assert contents(tmp_path / "c") == before


def test_an_image_that_was_replaced_is_another_source(image_folder: Path, tmp_path: Path) -> None:
    bad = image_folder / "dark" / "07.png"
    whole = bad.read_bytes()
    bad.write_bytes(whole[:60])
    write(tmp_path / "c", image_folder)
    bad.write_bytes(whole)
    with pytest.raises(ValueError, match="holds a cache with source_sha256"):
        write(tmp_path / "c", image_folder)


def test_a_split_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in range(2):
        Image.new("RGB", (8, 8), (80 * number, 0, 0)).save(tmp_path / "images" / f"{number}.png")
    (tmp_path / "images" / "0.png").write_bytes(b"no image")
    write(tmp_path / "c", tmp_path / "images")
    with pytest.raises(ValueError, match=r"c has no (held-out|training) image"):
        load_tokens(DataConfig(str(tmp_path / "c")))


def test_a_finished_cache_is_not_written_again(image_folder: Path, tmp_path: Path) -> None:
    index = write(tmp_path / "c", image_folder)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "c").rglob("*")}
    assert write(tmp_path / "c", image_folder) == index
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "c").rglob("*")}


def test_a_corrupt_image_in_the_middle_is_reported_and_left_out(image_folder: Path, tmp_path: Path) -> None:
    bad = image_folder / "dark" / "07.png"
    bad.write_bytes(bad.read_bytes()[:60])
    index = write(tmp_path / "c", image_folder)
    assert (index["images"], index["missing"]) == (23, 1)
    assert index["unreadable"][0].startswith("dark/07.png: ")
    cache = open_cache(tmp_path / "c")
    assert "dark/07.png" not in cache.tokens.names
    assert cache.rows.tolist() == [row for row in range(24) if row != 7]
    assert cache.tokens.unreadable == index["unreadable"]


def test_a_shard_without_a_readable_image(image_folder: Path, tmp_path: Path) -> None:
    for file in sorted((image_folder / "dark").iterdir())[:6]:
        file.write_bytes(b"no image")
    index = write(tmp_path / "c", image_folder)
    assert [shard["images"] for shard in index["shards"]] == [0, 4, 5, 5, 4]
    assert len(open_cache(tmp_path / "c").tokens.head(100)) == 18


def test_no_readable_image_at_all(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"none of 1 image\(s\) can be read; the first is a\.png: not an image"):
        write(tmp_path / "c", tmp_path / "images")


def test_views(image_folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "c", image_folder, image_size=8, crops=5, crop_scale=1.5, flip=True)
    tokens = open_cache(tmp_path / "c").tokens
    assert tokens.shards[0].shape == (5, 10, 4)
    image = Image.open(image_folder / "dark" / "00.png")
    crops = torch.from_numpy(to_crops(image, 8, 1.5))
    views = torch.stack([crops, crops.flip(-1)], 1).flatten(0, 1)  # each followed by its mirror image
    assert torch.equal(tokens.shards[0][0].long(), vq().encode(to_float(views)))


def test_crops_are_where_they_should_be() -> None:
    pixels = np.zeros((12, 12, 3), dtype=np.uint8)
    pixels[:3, :3], pixels[:3, 9:], pixels[9:, :3], pixels[9:, 9:] = 50, 100, 150, 200
    crops = to_crops(Image.fromarray(pixels), 8, 1.5)
    assert crops.shape == (5, 3, 8, 8)
    assert [int(crop[0].max()) for crop in crops[1:]] == [50, 100, 150, 200]
    assert [(int(crop[0, y, x])) for crop, (y, x) in zip(crops[1:], [(0, 0), (0, 7), (7, 0), (7, 7)], strict=True)] == [
        50,
        100,
        150,
        200,
    ]


def test_training_reads_the_split_that_images_would_have(image_folder: Path, tmp_path: Path) -> None:
    """One coin for both: the same images train, the same are held out, in the same order, with the same tokens."""
    (image_folder / "light" / "03.png").write_bytes(b"no image")
    config = {"validation_fraction": 0.25, "flip": True, "limit": 9}
    write(tmp_path / "c", image_folder, flip=True)
    from_images = [encode_images(vq(), images) for images in load_images(DataConfig(str(image_folder), **config))]
    from_cache = load_tokens(DataConfig(str(tmp_path / "c"), **config))
    for one, other in zip(from_images, from_cache, strict=True):
        assert list(one.names) == list(other.names)
        assert torch.equal(one.labels, other.labels)
        keys = [(0, 3, i) for i in range(len(one))]
        indices = torch.arange(len(one))
        assert torch.equal(one.items(indices, keys), other.items(indices, keys))
    unflipped, _ = load_tokens(DataConfig(str(tmp_path / "c"), validation_fraction=0.25))
    assert unflipped.views == [0]


def test_held_out_images_from_a_second_cache(image_folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "a", image_folder)
    write(tmp_path / "b", image_folder, shard_size=7)
    train, held_out = load_tokens(DataConfig(str(tmp_path / "a"), validation_path=str(tmp_path / "b")))
    assert (len(train), len(held_out)) == (24, 24)
    assert set(held_out.names) == set(train.names)
    write(tmp_path / "other", image_folder, vq(1))
    with pytest.raises(ValueError, match=r"other and .*a differ in their tokenizer"):
        load_tokens(DataConfig(str(tmp_path / "a"), validation_path=str(tmp_path / "other")))
    with pytest.raises(ValueError, match="is not a cache, but data.path is one"):
        load_tokens(DataConfig(str(tmp_path / "a"), validation_path=str(image_folder)))
    with pytest.raises(ValueError, match=r"data.flip: true given, but .* has no mirrored views"):
        load_tokens(DataConfig(str(tmp_path / "a"), flip=True))
    with pytest.raises(ValueError, match=r"data.image_size: 8 given, but .* 16×16 pixels"):
        load_tokens(DataConfig(str(tmp_path / "a"), image_size=8))


def test_a_source_s_own_split_survives(tmp_path: Path, image_folder: Path) -> None:
    source = open_source(str(image_folder))
    source.held_out = frozenset({"dark/03.png", "light/05.png"})
    CacheWriter(tmp_path / "c", source, vq(), CacheConfig()).run()
    _, held_out = load_tokens(DataConfig(str(tmp_path / "c")))
    assert set(held_out.names) == {"dark/03.png", "light/05.png"}


def test_damage_names_the_file(image_folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "c", image_folder)
    shard = shard_path(tmp_path / "c", 2)
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-7])
    with pytest.raises(ValueError, match=r"00002\.safetensors: truncated or damaged"):
        open_cache(tmp_path / "c")
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    open_cache(tmp_path / "c")  # of the right size and shape: only the checksum tells
    with pytest.raises(ValueError, match=r"00002\.safetensors: damaged \(its checksum"):
        verify_cache(tmp_path / "c")
    shard.write_bytes(whole)
    verify_cache(tmp_path / "c")
    shard.unlink()
    for check in (open_cache, verify_cache):
        with pytest.raises(FileNotFoundError, match=r"00002\.safetensors"):
            check(tmp_path / "c")
    shutil.copy(shard_path(tmp_path / "c", 0).parent.parent / "tokenizer" / "model.safetensors", shard)
    with pytest.raises(ValueError, match=r"00002\.safetensors: damaged, not a shard"):
        open_cache(tmp_path / "c")
    (tmp_path / "c" / "index.json").write_text("{}")
    with pytest.raises(ValueError, match=r"index\.json: images"):
        open_cache(tmp_path / "c")


def test_another_cache_in_the_way_is_refused(image_folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "c", image_folder)
    before = contents(tmp_path / "c")
    for settings, key in (({"flip": True}, "flip"), ({"shard_size": 6}, "shard_size")):
        with pytest.raises(ValueError, match=f"holds a cache with {key} = "):
            write(tmp_path / "c", image_folder, **settings)
    with pytest.raises(ValueError, match="holds a cache with tokenizer_sha256 = "):
        write(tmp_path / "c", image_folder, vq(1))
    (image_folder / "dark" / "00.png").unlink()
    with pytest.raises(ValueError, match="holds a cache with source_sha256 = "):
        write(tmp_path / "c", image_folder)
    with pytest.raises(ValueError, match="exists and is not a cache"):
        write(image_folder, image_folder)
    assert contents(tmp_path / "c") == before


def test_sizes_must_agree_and_fit(image_folder: Path, tmp_path: Path) -> None:
    Image.new("RGB", (20, 16)).save(image_folder / "light" / "05.png")
    with pytest.raises(ValueError, match=r"light/05\.png is 16×20 pixels, images before it 16×16"):
        write(tmp_path / "c", image_folder)
    with pytest.raises(ValueError, match=r"image size 18×18 is not divisible"):
        write(tmp_path / "d", image_folder, image_size=18)


def test_an_unmeasured_tokenizer_is_refused(image_folder: Path, tmp_path: Path) -> None:
    tokenizer = build_trainable(VAEConfig(width=8), 0)
    with pytest.raises(ValueError, match="latent statistics have not been measured"):
        write(tmp_path / "c", image_folder, tokenizer)
    assert not (tmp_path / "c").exists()


def test_latents_that_are_not_finite_are_refused(image_folder: Path, tmp_path: Path) -> None:
    tokenizer = vae()
    tokenizer.latent_std[0] = 1e-7  # type: ignore[index,operator]
    with pytest.raises(ValueError, match="latents of these images are not finite in float16"):
        write(tmp_path / "c", image_folder, tokenizer)
    write(tmp_path / "d", image_folder, tokenizer, dtype="float32")
    tokenizer.latent_std[0] = float("nan")  # type: ignore[index,operator]
    with pytest.raises(ValueError, match="the latents of the tokenizer are not finite: latent_std of its weights"):
        write(tmp_path / "e", image_folder, tokenizer, dtype="float32")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crops": 3}, "crops: 3"),
        ({"crops": 5}, "needs an image_size"),
        ({"shard_size": 0}, "shard_size: 0"),
        ({"crop_scale": 0.5}, "crop_scale: 0.5"),
        ({"precision": "float16"}, "precision: 'float16'"),
    ],
)
def test_settings_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CacheConfig(**settings)


def test_contact_sheet_and_counts(image_folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "c", image_folder)
    assert is_cache(tmp_path / "c")
    assert not is_cache(image_folder)
    sheet = contact_sheet(tmp_path / "c")
    assert sheet.width > 8 * 48
    tokens = open_cache(tmp_path / "c").tokens.head(24)
    statistics = token_statistics(open_cache(tmp_path / "c"))
    assert statistics["codes_used"] == len(tokens.unique())
    write(tmp_path / "v", image_folder, vae(), dtype="float32")
    values = open_cache(tmp_path / "v").tokens.head(24)
    statistics = token_statistics(open_cache(tmp_path / "v"))
    assert statistics["mean"] == pytest.approx(float(values.mean()), abs=1e-5)
    assert statistics["std"] == pytest.approx(float(values.std(unbiased=False)), rel=1e-4)


def test_unlabeled_images(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in range(3):
        Image.new("RGB", (8, 8), (80 * number, 0, 0)).save(tmp_path / "images" / f"{number}.png")
    index = write(tmp_path / "c", tmp_path / "images")
    assert index["images_per_class"] == []
    contact_sheet(tmp_path / "c")
    assert open_cache(tmp_path / "c").tokens.labels.tolist() == [-1, -1, -1]


def test_the_source_is_known_by_names_and_labels() -> None:
    def source(names: list[str], labels: list[int]) -> Source:
        return Source("x", names, labels, ["a", "b"], lambda: iter(()))

    hashes = {
        source(["1", "2"], [0, 1]).sha256(),
        source(["1", "3"], [0, 1]).sha256(),
        source(["1", "2"], [0, 0]).sha256(),
    }
    assert len(hashes) == 3


@pytest.mark.parametrize("key", ["grid", "shards", "images_per_class", "views"])
def test_a_damaged_index_is_made_again(
    image_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, key: str
) -> None:
    write(tmp_path / "c", image_folder)
    before = contents(tmp_path / "c")
    file = tmp_path / "c" / "index.json"
    values = json.loads(file.read_text())
    file.write_text(json.dumps(values | {key: values[key] | {"width": 10**30} if key == "grid" else []}))
    with pytest.raises(ValueError, match=r"index\.json"):
        open_cache(tmp_path / "c")
    write(tmp_path / "c", image_folder)
    assert "the index is made again from the shards" in caplog.text
    assert contents(tmp_path / "c") == before
