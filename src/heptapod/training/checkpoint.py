"""Checkpoints: folders that are whole or absent, verified by checksums, the last few kept.

checkpoints/step-00000250/{model,ema,optimizer}.safetensors, state.json
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from torch import Tensor

from heptapod.files import (
    atomic_folder,
    read_json,
    read_tensors,
    sha256,
    write_json,
    write_tensors,
)

FORMAT = "heptapod-checkpoint-1"
_NAME = re.compile(r"step-(\d{8})")


def save_checkpoint(
    folder: Path, step: int, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any], keep_last: int
) -> Path:
    """Writes a checkpoint and then removes all but the newest ones.

    Args:
        folder: holds the checkpoints of a run.
        step: optimizer steps done.
        tensors: file name -> tensors.
        state: anything JSON can hold.
        keep_last: checkpoints to keep; one that cannot be removed is left for the next time.

    Raises:
        OSError: if the disk is full or unwritable; checkpoints written before stay as they are.
    """
    path = folder / f"step-{step:08d}"
    with atomic_folder(path) as temporary:
        for name, values in tensors.items():
            write_tensors(temporary / f"{name}.safetensors", values)
        checksums = {file.name: sha256(file) for file in sorted(temporary.glob("*.safetensors"))}
        write_json(temporary / "state.json", {"format": FORMAT, "step": step, "sha256": checksums, **state})
    for old in checkpoints(folder)[:-keep_last]:
        shutil.rmtree(old, ignore_errors=True)
    return path


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))


def load_checkpoint(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Reads a checkpoint.

    Returns:
        Tensors by file name without suffix, and the state.

    Raises:
        FileNotFoundError: if it, or one of its files, is missing.
        ValueError: if a file does not have the checksum it was written with.
    """
    state = read_json(path / "state.json")
    if state.get("format") != FORMAT:
        raise ValueError(f"{path}: not a checkpoint of this version (format is {state.get('format')!r})")
    tensors = {}
    for name, checksum in state["sha256"].items():
        file = path / name
        if not file.is_file():
            raise FileNotFoundError(f"{file}: missing; remove {path} to go on from the checkpoint before it")
        if sha256(file) != checksum:
            raise ValueError(
                f"{file}: damaged (its checksum is not the one it was written with); remove {path} to go on from "
                "the checkpoint before it"
            )
        tensors[file.stem] = read_tensors(file)
    return tensors, state
