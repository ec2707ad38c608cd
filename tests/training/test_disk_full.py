"""A full disk while saving: one line, exit code 2, and the previous checkpoint stays loadable."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from heptapod.training.checkpoint import checkpoints, problem_of, read_checkpoint
from tests.training.test_kill import RECIPE, environment


@pytest.fixture
def small_disk(tmp_path: Path) -> Path:
    """A file system of 8 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = os.geteuid() == 0 and shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)], capture_output=True, check=False
    ).returncode == 0  # fmt: skip
    if not mounted:
        pytest.skip("mounting a small file system needs root")
    yield place  # type: ignore[misc]
    subprocess.run(["umount", str(place)], check=True)


def test_full_disk(image_folder: Path, tmp_path: Path, small_disk: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(images=image_folder, steps=60))
    out = small_disk / "run"
    command = [sys.executable, "-m", "heptapod", "train", str(tmp_path / "recipe.yaml"), "--out", str(out)]
    keep_all = ["--train.keep_last", "1000", "--tokenizer.train.keep_last", "1000", "--train.save_every", "1"]
    result = subprocess.run([*command, *keep_all], env=environment(), capture_output=True, text=True, check=False)
    assert result.returncode == 2, result.stderr
    last_line = result.stderr.strip().splitlines()[-1]
    assert last_line.startswith("heptapod: error: disk full while writing ")
    assert "Traceback" not in result.stderr

    found = checkpoints(out / "checkpoints") or checkpoints(out / "tokenizer" / "checkpoints")
    assert found
    for path in found:
        assert problem_of(path) is None
        read_checkpoint(path)
    assert not list(out.rglob(".tmp-*"))
    for path in found[:-1]:  # make room: the same command goes on
        shutil.rmtree(path)
    again = subprocess.run(
        [*command, "--train.save_every", "60", "--tokenizer.train.save_every", "40", "--train.keep_last", "1",
         "--tokenizer.train.keep_last", "1"], env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
