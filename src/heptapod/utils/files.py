"""Files that are whole or absent: written under a temporary name, flushed to disk, then renamed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import filelock
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from heptapod.utils.messages import shown
from heptapod.utils.weights import check_finite_weights, without_prefix

TEMPORARY = ".tmp-"
"""Prefix of files and folders that are not finished."""
LOCK = ".lock"
"""Name of the file that locks a folder; who has the lock is in a file next to it."""
LONGEST_NAME = 255
"""Bytes of the name of a file or folder."""
METADATA_KEY = "heptapod"
"""The one metadata key of our safetensors files; its value is JSON."""


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields a temporary folder that becomes ``path`` if the block succeeds and vanishes if it fails."""
    with _temporary(path) as temporary:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            yield temporary
            finish_folder(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


@contextmanager
def removed_on_failure(folder: Path, contents: bool = False) -> Iterator[None]:
    """Makes a folder; if the block fails, removes it and those above it where they were not there before.

    Args:
        folder: path.
        contents: also remove what is in the new folder; else only empty folders are removed.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        if contents and made:
            shutil.rmtree(folder, ignore_errors=True)
        for path in made:
            with suppress(OSError):  # gone, or not empty
                path.rmdir()
        raise


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """The temporary path of a file or folder; a second process that writes the same one waits for the first."""
    temporary = path.parent / f"{TEMPORARY}{path.name}"
    lock = temporary.with_name(f"{temporary.name}.lock")
    with _named(path), removed_on_failure(path.parent), _lock_file(lock, blocking=True):
        yield temporary


@contextmanager
def _lock_file(path: Path, blocking: bool) -> Iterator[None]:
    """Locks a file, which is created and then removed; does nothing on file systems without locks.

    Raises:
        filelock.Timeout: if another process has the lock, unless this waits for it.
    """
    lock = filelock.FileLock(path, blocking=blocking, thread_local=False, is_singleton=False)
    try:
        lock.acquire()
    except (NotImplementedError, OSError) as error:
        unknown = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
        if isinstance(error, OSError) and (isinstance(error, filelock.Timeout) or error.errno not in unknown):
            raise
    try:
        yield
    finally:
        if lock.is_locked:
            with suppress(OSError):
                path.unlink(missing_ok=True)
            lock.release()


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Names a file in an error of the system that names none (a full disk while it is written)."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def finish_folder(temporary: Path, path: Path) -> None:
    """Flushes a temporary folder to disk and renames it."""
    for file in temporary.rglob("*"):
        if file.is_file():
            _sync(file)
    _sync(temporary)
    temporary.rename(path)
    _sync(path.parent)


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Calls ``write`` with a temporary path that then replaces ``path``; on failure ``path`` is as before."""
    with atomic_file(path) as temporary:
        write(temporary)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path that replaces ``path`` if the block succeeds; if it fails ``path`` is as before."""
    with _temporary(path) as temporary:
        try:
            yield temporary
            _sync(temporary)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes a JSON file atomically."""
    write_atomically(path, lambda file: file.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8"))


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds something else.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError(f"{path}: damaged, JSON of too many levels") from None
    except ValueError as error:  # JSONDecodeError, UnicodeDecodeError, or a number of thousands of digits
        raise ValueError(f"{path}: damaged, not JSON ({shown(str(error))})") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: damaged, a JSON object was expected")
    return values


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Writes a safetensors file atomically; a full disk is an ``OSError`` and leaves the old file.

    Equal tensors and metadata give equal bytes: the format keeps no order among several metadata keys, so all go
    under one.
    """
    header = {METADATA_KEY: json.dumps(metadata, sort_keys=True)} if metadata else None
    data = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    # In a separate folder, because save_file first writes under a random name: leftovers of a killed process are
    # removed with the folder when the file is written again.
    with _temporary(path) as temporary:
        _remove(temporary)
        temporary.mkdir()
        try:
            save_file(data, temporary / path.name, header)
            _sync(temporary / path.name)
            os.replace(temporary / path.name, path)
        except SafetensorError as error:
            code = re.search(r"os error (\d+)", str(error))
            raise OSError(int(code.group(1)) if code else errno.EIO, str(error), str(path)) from None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def read_tensors(path: Path, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Reads a safetensors file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is truncated or otherwise damaged.
    """
    with open_tensors(path, device) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata that :func:`write_tensors` stored; raises like :func:`read_tensors`."""
    with open_tensors(path) as file:
        text = (file.metadata() or {}).get(METADATA_KEY, "{}")
    try:
        return {str(key): str(value) for key, value in json.loads(text).items()}
    except (ValueError, AttributeError, RecursionError):
        raise ValueError(f"{path}: damaged metadata") from None


@contextmanager
def open_tensors(path: Path, device: torch.device | str = "cpu") -> Iterator[Any]:
    """Opens a safetensors file; raises like :func:`read_tensors`."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            yield file
    except SafetensorError as error:
        raise ValueError(f"{path}: truncated or damaged safetensors file ({shown(str(error), 200)})") from None


def load_strictly(module: torch.nn.Module, tensors: Mapping[str, Tensor], source: Path | str) -> None:
    """Loads a state dict whose names and shapes must all fit; a common prefix of its names is left out.

    Raises:
        ValueError: naming the first tensors that do not fit, or that are not finite.
    """
    needed = {name: tensor.shape for name, tensor in module.state_dict().items()}
    tensors = without_prefix(needed.keys(), tensors, source)
    check_tensors(needed, tensors, source)
    check_finite_weights(tensors, source)
    module.load_state_dict(tensors)


def check_tensors(needed: Mapping[str, torch.Size], tensors: Mapping[str, Tensor], source: Path | str) -> None:
    """Checks that tensors have the expected names and shapes.

    Raises:
        ValueError: naming the first tensors that do not fit.
    """
    check_shapes(needed, {name: tensor.shape for name, tensor in tensors.items()}, source)


def check_shapes(needed: Mapping[str, torch.Size], found: Mapping[str, torch.Size], source: Path | str) -> None:
    """Checks names and shapes, like :func:`check_tensors`."""
    missing = sorted(needed.keys() - found.keys())
    extra = sorted(found.keys() - needed.keys())
    wrong = [
        f"{name} is {tuple(found[name])}, needed {tuple(shape)}"
        for name, shape in needed.items()
        if name in found and found[name] != shape
    ]
    problems = [f"lacks {', '.join(missing[:3])}"] if missing else []
    problems += [f"has unknown {', '.join(extra[:3])}"] if extra else []
    problems += wrong[:2]
    if problems:
        raise ValueError(f"{source}: weights of another architecture: {'; '.join(problems)}")


def check_folder(path: Path, setting: str = "out") -> None:
    """Checks that a folder can be created and written to, before anything is written.

    Raises:
        ValueError: if the path, or one above it, is a file or cannot be written to; if it is the root of the disk.
    """
    try:
        if any(len(os.fsencode(part)) > LONGEST_NAME for part in path.parts):
            raise ValueError(f"a name is longer than {LONGEST_NAME} bytes")
        is_root = path.resolve() == Path(path.resolve().anchor)
        folder = next((folder for folder in (path, *path.parents) if os.path.lexists(folder)), Path())
        is_folder = folder.is_dir()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"{setting}: {shown(str(path))} given, no name of a folder ({reason})") from None
    if is_root:
        raise ValueError(f"{setting}: {shown(str(path))} given, the root of the file system; name a folder below it")
    if not is_folder:
        raise ValueError(f"{setting}: {path} given, but {folder} is a file; a folder is needed")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"{setting}: {path} given, but {folder} cannot be written to")


class LockedError(ValueError):
    """Another process has locked a folder."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Locks a folder, which is created if absent, for this process; a kill releases the lock.

    A folder that was created and stays empty is removed at the end.

    Raises:
        LockedError: if another process has the lock; names it.
    """
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    owner = folder / f"{LOCK}-owner"
    with ExitStack() as stack:
        try:
            stack.enter_context(_lock_file(folder / LOCK, blocking=False))
        except filelock.Timeout:
            raise LockedError(f"{folder}: another process is writing there{_owner_text(owner)}") from None
        try:
            with suppress(OSError):  # a full disk is reported by what is written next
                owner.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
            yield
        finally:
            with suppress(OSError):
                owner.unlink(missing_ok=True)
            stack.close()
            with suppress(OSError):  # not empty
                for path in created:
                    path.rmdir()


def _owner_text(owner: Path) -> str:
    try:
        return f" ({owner.read_text(encoding='utf-8')[:100]})"
    except (OSError, UnicodeDecodeError):
        return ""


def remove_temporary(folder: Path) -> None:
    """Removes the unfinished files of a killed process from a folder."""
    if folder.is_dir():
        for path in folder.glob(f"{TEMPORARY}*"):
            _remove(path)


def sha256(path: Path) -> str:
    """SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
