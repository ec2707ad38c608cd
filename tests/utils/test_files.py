"""Files that are whole or absent."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from heptapod.utils import files
from heptapod.utils.files import TEMPORARY, LockedError, locked, read_tensors, write_tensors
from tests.distributed.launch import environment


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
