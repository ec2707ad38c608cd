"""Files that are whole or absent."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from heptapod.utils import files
from heptapod.utils.files import TEMPORARY, read_tensors, write_tensors


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
