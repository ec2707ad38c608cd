"""Checkpoints, written by torch.distributed.checkpoint while training continues: folders that are whole or absent.

```text
checkpoints/step-00000250/  shard-….safetensors: model, ema, optimizer, each process its share
                            state.json: step, place in the data, sizes and checksums of the files; written last
```

They can be read by any number of processes. All processes must see the folder.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save

from heptapod.distributed import process_group
from heptapod.utils.config import from_dict, settings, to_dict
from heptapod.utils.files import TEMPORARY, check_shapes, finish_folder, read_json, sha256, write_json
from heptapod.utils.messages import shown
from heptapod.utils.weights import plain_name

logger = logging.getLogger(__name__)


FORMAT: Final = "heptapod-checkpoint-2"
_NAME = re.compile(r"step-(\d{8})")

Tensors = dict[str, dict[str, Tensor]]
"""Part ("model", "ema", "optimizer") -> name -> tensor, possibly this process's share of it."""


Count = Annotated[int, Field(ge=0, lt=2**63)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


@settings
class CheckpointState:
    """Content of ``state.json``."""

    step: Count
    """Optimizer steps done."""
    files: dict[str, tuple[Count, str]] = field(default_factory=dict)
    """Size and SHA-256 of every other file."""
    seed: Count = 0
    """Of the run."""
    items_read: Count = 0
    """Images read."""
    processes: Count = 1
    """Processes that wrote it."""
    resumed_from: Count | None = None
    """The step that train.resume named, if it named one."""
    best_val_loss: Finite | None = None
    """Lowest held-out loss so far."""
    figures: dict[str, Annotated[float, Field(allow_inf_nan=True)]] = field(default_factory=dict)
    """The last held-out figures."""
    seconds: Annotated[Finite, Field(ge=0)] = 0.0
    """Seconds of training."""
    durations: dict[str, list[Annotated[Finite, Field(ge=0)]]] = field(default_factory=dict)
    """Seconds of the parts of a training that follows the clock."""
    finished: Finite | None = None
    """Minutes of a training that followed the clock to its end."""
    format: Literal["heptapod-checkpoint-2"] = FORMAT
    """Version of this file."""


class CheckpointWriter:
    """Saves checkpoints while training continues; every rank takes part.

    Args:
        folder: holds the checkpoints of a run.
        keep_last: checkpoints to keep; one that cannot be removed is left for the next time.
        timeout: seconds a rank waits for the others before it gives up.
    """

    def __init__(self, folder: Path, keep_last: int, timeout: float = process_group.TIMEOUT) -> None:
        self.folder = folder
        self.keep_last = keep_last
        self._group = process_group.new_gloo_group(timeout)  # not the group of training, which is in use meanwhile
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._saving: Future[None] | None = None

    def save(self, step: int, tensors: Tensors, state: Mapping[str, Any]) -> None:
        """Copies the tensors and begins to write them, after the previous checkpoint is written.

        Args:
            step: optimizer steps done.
            tensors: the tensors to save.
            state: fields of :class:`CheckpointState` besides ``step`` and ``files``.

        Raises:
            OSError: if the previous checkpoint could not be written; earlier ones are intact.
        """
        self.wait()
        path = self.folder / f"step-{step:08d}"
        temporary = self.folder / f"{TEMPORARY}{path.name}"
        if process_group.is_main_process():
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        process_group.barrier()
        storage = HuggingFaceStorageWriter(str(temporary), save_distributed=True)
        storage.per_thread_copy_ahead = 0  # the copies are on the CPU already
        writing = async_save(flat(tensors), storage_writer=storage, process_group=self._group)
        self._saving = self._pool.submit(self._finish, writing, temporary, path, CheckpointState(step, **state))

    def wait(self) -> None:
        """Waits until the last checkpoint is written.

        Raises:
            OSError: if the disk is full or unwritable.
        """
        if self._saving is not None:
            saving, self._saving = self._saving, None
            saving.result()

    @property
    def has_failed(self) -> bool:
        """Whether the last checkpoint could not be written; :meth:`wait` then raises the error."""
        saving = self._saving
        return saving is not None and saving.done() and saving.exception() is not None

    def close(self) -> None:
        """Abandons what is not written yet."""
        with suppress(Exception):
            self.wait()
        self._pool.shutdown()

    def _finish(self, writing: Any, temporary: Path, path: Path, state: CheckpointState) -> None:
        """Completes a checkpoint from the files of all ranks."""
        try:
            writing.result()
            if not process_group.is_main_process():
                return
            state.files = {file.name: (file.stat().st_size, sha256(file)) for file in sorted(temporary.iterdir())}
            write_json(temporary / "state.json", to_dict(state))
            finish_folder(temporary, path)
        except BaseException as error:
            if process_group.is_main_process():
                shutil.rmtree(temporary, ignore_errors=True)
            raise _cause(error, temporary) from None
        for old in checkpoints(self.folder)[: -self.keep_last]:
            shutil.rmtree(old, ignore_errors=True)


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoints of a run by name, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))


def find_checkpoint(folder: Path, resume: int | Literal["latest"] = "latest") -> Path | None:
    """The newest complete checkpoint of a run, or that of a step; None where there is none at all.

    Incomplete or damaged ones are renamed with a warning. If the run already resumed from the requested step, the
    newest checkpoint since then is returned: a restart by torchrun repeats the arguments.

    Raises:
        ValueError: if the step has none, or none of the checkpoints is complete: that is never a fresh start.
    """
    paths = checkpoints(folder)
    complete = []
    for path in paths:
        if problem := problem_of(path):
            aside = set_aside(path, "damaged")
            logger.warning(f"checkpoint {problem}; it is skipped and renamed to {aside.name}")
        else:
            complete.append(path)
    if resume != "latest":
        since = [path for path in complete if read_state(path).resumed_from == resume]
        if since:
            return since[-1]
        requested = [path for path in complete if step_of(path) == resume]
        if not requested:
            steps = ", ".join(str(step_of(path)) for path in complete) or "none"
            raise ValueError(f"train.resume: {resume} given, but the steps with a checkpoint in {folder} are: {steps}")
        return requested[0]
    if paths and not complete:
        raise ValueError(f"{folder}: none of {len(paths)} checkpoint(s) is complete; remove it to train from the start")
    return complete[-1] if complete else None


def set_newer_aside(path: Path) -> None:
    """Sets aside all checkpoints after one."""
    for newer in checkpoints(path.parent):
        if newer > path:
            set_aside(newer, "aside")


def set_aside(path: Path, why: str) -> Path:
    """Gives a checkpoint a name by which it is not read again; its new path."""
    number, aside = 1, path.with_name(f"{why}-{path.name}")
    while aside.exists():
        number += 1
        aside = path.with_name(f"{why}-{path.name}-{number}")
    return path.rename(aside)


def step_of(path: Path) -> int:
    """Optimizer steps done at a checkpoint."""
    return int(path.name.removeprefix("step-"))


def problem_of(path: Path) -> str | None:
    """The problem of a checkpoint: a file that is missing or has another size or content; None if there is none.

    Raises:
        ValueError: if it was made by another version.
    """
    if not (path / "state.json").is_file():
        return f"{path} is incomplete (no state.json)"
    try:
        files = read_state(path).files
    except DamagedError as error:
        if (path / "model.safetensors").is_file():  # of before there were several processes
            raise ValueError(f"{path}: not a checkpoint of this version; train from the start") from None
        return f"{path} is damaged ({error})"
    present = {file.name for file in path.glob("*.safetensors")}
    if missing := sorted(files.keys() - present) or ([] if files else ["every file"]):
        return f"{path} is incomplete ({missing[0]} is missing)"
    if unknown := sorted(present - files.keys()):
        return f"{path} is damaged ({unknown[0]} is not one of its files)"
    for name, (size, checksum) in files.items():
        if (path / name).stat().st_size != size or sha256(path / name) != checksum:
            return f"{path} is damaged ({name} is not what was written)"
    try:
        entries = _entries(path)
    except DamagedError as error:
        return f"{path} is damaged ({error})"
    for name, entry in entries.items():
        if sum(chunk.sizes.numel() for chunk in entry.chunks) < entry.size.numel():
            return f"{path} is incomplete (a part of {name} is missing)"
    return None


class DamagedError(ValueError):
    """A file of a checkpoint does not hold what it should."""


def read_state(path: Path) -> CheckpointState:
    """Reads the ``state.json`` of a checkpoint.

    Raises:
        DamagedError: if it is not that of this checkpoint.
        ValueError: if it was made by another version.
    """
    file = path / "state.json"
    try:
        values = read_json(file)
    except ValueError as error:
        raise DamagedError(str(error).replace(str(file), "state.json")) from None
    version = values.get("format", "")
    if version != FORMAT and str(version).startswith(FORMAT.rpartition("-")[0]):
        raise ValueError(f"{path}: not a checkpoint of this version (format is {str(version)[:40]})")
    try:
        state = from_dict(CheckpointState, values, "state.json")
    except ValueError as error:
        raise DamagedError(str(error)) from None
    if _NAME.fullmatch(path.name) and state.step != step_of(path):
        raise DamagedError(f"state.json: step: {state.step} given")
    return state


def tensor_shapes(path: Path) -> dict[str, torch.Size]:
    """Names ("model/…", "ema/…", "optimizer/…") and shapes of the tensors of a checkpoint.

    Raises:
        DamagedError: if a file is damaged.
    """
    return {name: entry.size for name, entry in _entries(path).items()}


def _entries(path: Path) -> dict[str, TensorStorageMetadata]:
    try:
        entries = HuggingFaceStorageReader(str(path)).read_metadata().state_dict_metadata
    except OSError:
        raise
    except Exception as error:  # whatever a damaged header leads the library to
        raise DamagedError(f"{path}: damaged safetensors file ({shown(str(error), 200)})") from None
    return {name: entry for name, entry in entries.items() if isinstance(entry, TensorStorageMetadata)}


def load_checkpoint(path: Path, tensors: Tensors) -> CheckpointState:
    """Reads a checkpoint into tensors, of which each rank may hold any share.

    Args:
        path: the checkpoint.
        tensors: what is overwritten; must be all the checkpoint has of these parts.

    Returns:
        The state.

    Raises:
        ValueError: if the tensors are not those of the checkpoint.
    """
    wanted = flat(tensors)
    parts = tuple(f"{part}/" for part in tensors)
    shapes = {name: tensor.shape for name, tensor in wanted.items()}
    saved = {name: size for name, size in tensor_shapes(path).items() if name.startswith(parts)}
    check_shapes(shapes, saved, path)
    load(wanted, storage_reader=HuggingFaceStorageReader(str(path)))
    return read_state(path)


def read_checkpoint(path: Path, parts: Iterable[str] = ("model", "ema", "optimizer")) -> Tensors:
    """The whole tensors of a checkpoint, on this rank only."""
    wanted = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in _entries(path).items()
        if name.startswith(tuple(f"{part}/" for part in parts))
    }
    load(wanted, storage_reader=HuggingFaceStorageReader(str(path)), no_dist=True)
    tensors: Tensors = {}
    for name, tensor in wanted.items():
        part, _, rest = name.partition("/")
        tensors.setdefault(part, {})[rest] = tensor
    return tensors


def flat(tensors: Tensors) -> dict[str, Tensor]:
    """Names as they are in a checkpoint: part/name, without what torch.compile adds to names."""
    return {f"{part}/{plain_name(name)}": tensor for part, values in tensors.items() for name, tensor in values.items()}


def _cause(error: BaseException, path: Path) -> BaseException:
    """The disk error behind an error of the checkpoint library, if there is one."""
    causes = [error]
    if isinstance(error, CheckpointException):
        causes = [wrapped[0] for wrapped in error.failures.values()]
    for cause in causes:
        if isinstance(cause, OSError):
            return OSError(cause.errno, os.strerror(cause.errno or errno.EIO), str(path))
    return error if isinstance(error, Exception) else RuntimeError(f"{path}: {error}")
