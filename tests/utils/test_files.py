"""Files that are whole or absent."""

from __future__ import annotations

import errno
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from heptapod.distributed.errors import one_line, out_of_memory
from heptapod.utils import files
from heptapod.utils.files import (
    TEMPORARY,
    LockedError,
    check_folder,
    locked,
    read_tensors,
    write_atomically,
    write_tensors,
)
from tests.distributed.launch import environment
from tests.small import CODES, small_model


def test_what_a_killed_writer_left_goes_when_the_file_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "values.safetensors"

    def killed(data: object, file: Path, header: object) -> None:
        (file.parent / ".tmpJTrYFk").write_bytes(b"half")
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(files, "save_file", killed)
        patch.setattr(files.shutil, "rmtree", lambda *_, **__: None)  # nobody clears up after SIGKILL
        with pytest.raises(SystemExit):
            write_tensors(path, {"x": torch.zeros(2)})
    assert [file.name for file in tmp_path.iterdir()] == [f"{TEMPORARY}{path.name}"]
    write_tensors(path, {"x": torch.ones(2)})
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert read_tensors(path)["x"].tolist() == [1.0, 1.0]


def test_a_file_left_under_the_temporary_name_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / f"{TEMPORARY}values.safetensors").write_bytes(b"half")
    write_tensors(tmp_path / "values.safetensors", {"x": torch.ones(2)})
    assert [file.name for file in tmp_path.iterdir()] == ["values.safetensors"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "values.safetensors"
    write_tensors(path, {"x": torch.ones(2)})

    def full(*_: object) -> None:
        raise files.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(files, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        write_tensors(path, {"x": torch.zeros(2)})
    assert read_tensors(path)["x"].tolist() == [1.0, 1.0]
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


OWNER = """
import sys, time
from pathlib import Path
from heptapod.utils.files import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_a_kill_releases_the_lock(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "run"
    command = [sys.executable, "-c", OWNER, str(folder)]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "locked\n"
        name = rf"run: another process is writing there \(process {owner.pid} on {re.escape(socket.gethostname())}\)"
        with pytest.raises(LockedError, match=name), locked(folder):
            pass
        owner.kill()
        owner.wait()
    with locked(folder):
        assert (folder / ".lock-owner").read_text().startswith(f"process {os.getpid()} ")
    assert list(folder.iterdir()) == []


def test_a_folder_made_for_a_lock_goes_with_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="refused"), locked(tmp_path / "a" / "b"):
        raise ValueError("refused")
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "file").touch()
    assert (tmp_path / "a" / "b" / "file").is_file()


def test_a_linked_folder_has_the_lock_of_its_target(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "run")
    with locked(tmp_path / "run"), pytest.raises(LockedError), locked(tmp_path / "link"):
        pass


def test_leftovers_of_others_are_removed_but_not_the_lock(tmp_path: Path) -> None:
    (tmp_path / f"{TEMPORARY}x").touch()
    with locked(tmp_path):
        files.remove_temporary(tmp_path)
        with pytest.raises(LockedError), locked(tmp_path):
            pass
    assert list(tmp_path.iterdir()) == []


WRITER = """
import sys
from pathlib import Path
from heptapod.utils.files import write_atomically
text = sys.argv[2] * 100_000
for _ in range(30):
    write_atomically(Path(sys.argv[1]), lambda file: file.write_text(text))
"""


def test_two_processes_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "a" / "file"
    commands = [[sys.executable, "-c", WRITER, str(path), letter] for letter in "ab"]
    writers = [subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True) for command in commands]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        if path.is_file():
            seen.add(path.read_text())
    assert [writer.communicate()[1] for writer in writers] == ["", ""]
    assert seen <= {"a" * 100_000, "b" * 100_000}
    assert list(path.parent.iterdir()) == [path]


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    for write in (
        lambda: write_atomically(tmp_path / "a" / "b" / "c.txt", full_disk),
        lambda: files.write_json(tmp_path / "a" / "b" / "c.txt", {"x": object()}),
    ):
        with pytest.raises((OSError, TypeError)) as error:
            write()
        assert list(tmp_path.iterdir()) == [], "folders that were made for it are gone"
        if isinstance(error.value, OSError):
            path = tmp_path / "a" / "b" / "c.txt"
            assert one_line(error.value) == f"disk full while writing {path}; everything saved before is intact"


def test_a_failed_export_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heptapod = small_model(CODES)
    monkeypatch.setattr("heptapod.inference.pretrained.write_json", full_disk)
    with pytest.raises(OSError, match="No space"):
        heptapod.save_pretrained(tmp_path / "new" / "model")
    assert list(tmp_path.iterdir()) == []
    kept = tmp_path / "old"
    kept.mkdir()
    (kept / "mine.txt").touch()
    with pytest.raises(OSError, match="No space"):
        heptapod.save_pretrained(kept)
    assert (kept / "mine.txt").is_file()


def test_folders_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_folder(Path("new/inner"))
    check_folder(tmp_path)
    Path("file").touch()
    for path, message in (
        ("/", "out: / given, the root of the file system"),
        ("/tmp/..", "out: /tmp/.. given, the root of the file system"),
        ("file/inner", "out: file/inner given, but file is a file"),
        ("x" * 5000, "out: xxx"),
        ("a\0b", "out: a b given, no name of a folder"),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}") as error:
            check_folder(Path(path))
        assert len(str(error.value)) < 300
    monkeypatch.setattr(files.os, "access", lambda *_: False)
    with pytest.raises(ValueError, match=r"^npz: new/inner given, but \. cannot be written to$"):
        check_folder(Path("new/inner"), "npz")


@pytest.mark.parametrize("content", ["[" * 100_000, "{" * 1000, "1" * 5000, '"' + "\\x" * 1000, "\xff", "[]"])
def test_json_that_is_damaged(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match="damaged") as error:
        files.read_json(path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 200 + len(str(path))


def test_memory_that_runs_out_is_one_line() -> None:
    gpu = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has ...")
    assert out_of_memory(gpu) == (
        "out of memory: this does not fit in the GPU's memory, 20.00 GiB more were asked for; a smaller batch size or "
        "model takes less"
    )
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**60, dtype=torch.uint8)
    assert "the memory of this machine, 1152921504606846976 bytes more" in str(out_of_memory(error.value))
    assert out_of_memory(MemoryError()) is not None
    assert out_of_memory(RuntimeError("shapes do not fit")) is None
