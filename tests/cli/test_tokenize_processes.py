"""``heptapod tokenize`` in two processes: the cache of one, byte for byte, and one clear line where one fails."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from heptapod.cli import main
from heptapod.cli.tokenize import write_cache
from heptapod.data.cache import CacheConfig, shard_path
from heptapod.data.cache_writer import CacheWriter
from heptapod.data.sources import open_source
from heptapod.data.webdataset import INDEX
from heptapod.distributed import process_group
from heptapod.tokenizers import VQConfig, VQTokenizer, load_tokenizer, save_tokenizer
from heptapod.tokenizers.store import build_trainable
from heptapod.utils.files import sha256
from tests.data.shards import write_shards

IMAGES = 60
SECONDS = 120


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images in a folder and in tar shards, and a tokenizer."""
    folder = tmp_path_factory.mktemp("processes")
    rng = np.random.default_rng(0)
    for number in range(IMAGES):
        file = folder / "images" / ("cats" if number < IMAGES // 2 else "dogs") / f"{number:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(file)
    (folder / "images" / "dogs" / "41.png").write_bytes(b"no image")
    write_shards(folder / "images", folder / "tars", 25)
    tokenizer = build_trainable(VQConfig(width=8, codebook_size=16, code_width=4), 0)
    assert isinstance(tokenizer, VQTokenizer)
    tokenizer.codebook.vectors.copy_(torch.randn(16, 4, generator=torch.Generator().manual_seed(0)) / 4)
    save_tokenizer(tokenizer.eval(), folder / "vq", {})
    return folder


@contextlib.contextmanager
def processes(arguments: list[str]) -> Iterator[list[subprocess.Popen[str]]]:
    """Two processes of a command as torchrun would start them, but with nobody who stops one when the other fails."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "heptapod", *arguments], env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()


def finished(arguments: list[str]) -> tuple[list[int], str, str]:
    """Exit codes of both processes, and what they said together on standard output and standard error."""
    with processes(arguments) as started:
        said = [process.communicate(timeout=SECONDS) for process in started]
        return [process.returncode for process in started], *("".join(texts) for texts in zip(*said, strict=True))


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def test_killed_and_started_again_it_is_the_cache_of_one_process(place: Path, tmp_path: Path) -> None:
    """From tar shards that both processes find without an index."""
    source = str(place / "tars")
    arguments = ["tokenize", str(place / "vq"), "--data", source, "--flip", "--shard_size", "1", "--batch_size", "1"]
    assert main([*arguments, "--out", str(tmp_path / "one")]) == 0
    (place / "tars" / INDEX).unlink()
    shards = tmp_path / "two" / "shards"
    both = [*arguments, "--out", str(tmp_path / "two")]
    with processes(both) as started:
        until = time.monotonic() + SECONDS
        while len(list(shards.glob("[0-9]*.safetensors"))) < 5 and time.monotonic() < until:
            time.sleep(0.001)
        assert [process.poll() for process in started] == [None, None], "it must be longer for this test"
        for process in started:
            process.send_signal(signal.SIGKILL)
            process.wait()
    before = {path.name for path in shards.glob("[0-9]*.safetensors")}
    assert 5 <= len(before) < IMAGES
    written = {path: path.stat().st_mtime_ns for path in shards.glob("[0-9]*.safetensors")}

    codes, output, errors = finished(both)
    assert codes == [0, 0], errors
    assert output.count("59 images, 2 view(s) each, 1 missing") == 1, "the first process says it"
    assert errors.count("resuming after") == 1
    assert errors.count("missing: train-000001.tar/dogs/41.png: not an image Pillow can read") == 1
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in written.items()), "what was there stays"
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_what_all_processes_see_is_said_once(place: Path, tmp_path: Path) -> None:
    """By torchrun itself, which stops all processes when one has ended."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "heptapod",
        "tokenize", str(place / "vq"), "--data", str(place / "nowhere"), "--out", str(tmp_path / "c"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    lines = [line for line in done.stderr.splitlines() if line.startswith("heptapod:")]
    assert lines == [
        f"heptapod: error: data: {place / 'nowhere'} does not exist (a folder, a parquet file, .tar shards or mnist5k)"
    ]
    assert done.returncode != 0
    assert not (tmp_path / "c").exists()


def test_a_failure_of_one_process_ends_both_with_one_line(place: Path, tmp_path: Path) -> None:
    """An image of another size in the second process's part; the first one is done before it and waits."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(8):
        Image.new("RGB", (20 if number == 7 else 16, 16)).save(folder / f"{number}.png")
    out = tmp_path / "c"
    arguments = ["tokenize", str(place / "vq"), "--data", str(folder), "--out", str(out), "--shard_size", "4"]
    codes, output, errors = finished(arguments)
    assert codes == [2, 2]
    assert errors.splitlines() == [
        "heptapod: error: in process 1 of 2: 7.png is 16×20 pixels, images before it 16×16: set image_size (in "
        "a recipe data.image_size) to resize them"
    ]
    assert output == ""
    assert not (out / "index.json").exists()


def test_processes_that_see_images_of_different_sizes(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each sees but one size in its own shards: found when the shards are put together."""
    folder, out = tmp_path / "images", tmp_path / "c"
    folder.mkdir()
    for number in range(8):
        Image.new("RGB", (16 if number < 4 else 20, 16)).save(folder / f"{number}.png")
    source, tokenizer = open_source(str(folder)), load_tokenizer(place / "vq")
    writers = [CacheWriter(out, source, tokenizer, CacheConfig(shard_size=4)) for _ in range(2)]
    monkeypatch.setattr(CacheWriter, "_known_size", lambda self: None)  # both begin when there is no shard
    with monkeypatch.context() as patch:
        patch.setattr(process_group, "world_size", lambda: 2)
        patch.setattr(process_group, "rank", lambda: 1)
        writers[1]._write_share([0, 1])
        assert [shard_path(out, number).exists() for number in range(2)] == [False, True]
    with pytest.raises(ValueError, match=r"4\.png is 16×20 pixels, images before it 16×16"):
        writers[0].run()
    assert shard_path(out, 0).exists()
    assert not (out / "index.json").exists()


def test_each_process_takes_its_own_device(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_group, "is_distributed", lambda: True)
    with pytest.raises(ValueError, match=r"device: cuda:1 given, but every process has its own GPU"):
        write_cache(str(place / "vq"), data=str(place / "images"), out=str(tmp_path / "c"), device="cuda:1")
