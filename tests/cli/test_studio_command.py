"""``heptapod studio``: what it prints, what it refuses."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from heptapod.cli import main
from heptapod.models import HeptapodModel
from tests.inference.test_pipeline import bundle

Make = Callable[..., HeptapodModel]


@pytest.fixture
def model(make_model: Make, tmp_path: Path) -> Path:
    bundle(make_model("cross")).save_pretrained(tmp_path / "m")
    return tmp_path / "m"


def test_beyond_this_machine_a_token_is_made_up_and_asked_for(model: Path) -> None:
    command = [sys.executable, "-m", "heptapod", "studio", str(model), "--host", "0.0.0.0", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            address = line.split()[3].replace("0.0.0.0", "127.0.0.1")
            assert line.startswith("m on cpu: http://0.0.0.0:")
            plain, _, token = address.partition("?token=")
            assert len(token) >= 20
            assert httpx.get(f"{plain}api/health").json() == {"status": "ok"}
            assert httpx.get(f"{plain}api/models").status_code == 401
            allowed = httpx.get(f"{plain}api/models", headers={"Authorization": f"Bearer {token}"})
            assert allowed.json()["models"][0]["name"] == "m"
        finally:
            process.terminate()
    assert process.wait(10) in (0, -15, 143)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "models: none given"),
        (["nowhere"], "nowhere: no such folder"),
        (["m", "--port", "70000"], "port: 70000 given, must be at least 0 and at most 65,535"),
        (["m", "--token", "short"], "token: must have at least 8 characters"),
        (["m", "--max_count", "0"], "max_count: 0 given, must be at least 1"),
        (
            ["m", "--max_upload_megapixels", "200"],
            "max_upload_megapixels: 200 given, must be at least 1 and",
        ),
        (
            ["m", "--host", "0.0.0.0", "--port", "0", "--allow_host", "x.org"],
            "allow_host: x.org given, but",
        ),
        (["m", "--max_waiting", "-1"], "max_waiting: -1 given, must be at least 1"),
        (["m", "--host", "nowhere.invalid"], "host: nowhere.invalid given, which is no address of this machine"),
        (["m", "--host", "203.0.113.1"], "host: 203.0.113.1 given, which is no address of this machine"),
        (["m", "--device", "quantum", "--port", "0"], "device: quantum given"),
        (["m", "--evaluations", "nowhere", "--port", "0"], "evaluations: nowhere is no folder"),
    ],
)
def test_mistakes(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(model.parent)
    assert main(["studio", *arguments]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_a_port_that_is_taken(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main(["studio", str(model), "--port", str(port)]) == 2
    assert f"port: 127.0.0.1:{port} cannot be listened on (Address already in use)" in capsys.readouterr().err


def test_without_the_extra(model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["studio", str(model)]) == 2
    assert "pip install 'heptapod[studio]'" in capsys.readouterr().err
