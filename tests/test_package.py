"""The wheel, built from the sdist: its files, and its commands in a fresh environment."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("build")
ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "src"


def run(*command: str | Path, cwd: Path) -> str:
    """Standard output of a command that succeeds, run without this checkout on Python's path."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    (found,) = out.glob("*.whl")
    assert len(list(out.glob("*.tar.gz"))) == 1
    return found


def test_the_wheel_has_every_file_of_the_package_and_no_other(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    here = {str(path.relative_to(SOURCES)) for path in (SOURCES / "heptapod").rglob("*") if path.is_file()}
    assert packed == {name for name in here if "__pycache__" not in name}
    assert "heptapod/py.typed" in packed
    assert "heptapod/studio/static/index.html" in packed
    assert "heptapod/training/recipes/demo.yaml" in packed
    assert any(name.startswith("heptapod/tools/ablation/studies/") for name in packed)


def test_an_installed_wheel_runs(wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "env", cwd=tmp_path)
    binaries = tmp_path / "env" / "bin"
    python = binaries / "python"
    install = ("install", "--quiet", "--no-deps", "--no-index", wheel)
    run(sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python, *install, cwd=tmp_path)
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip())
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    file = run(python, "-c", "import heptapod; print(heptapod.__file__)", cwd=tmp_path).strip()
    assert Path(file) == site / "heptapod" / "__init__.py"
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert run(binaries / "heptapod", "--version", cwd=tmp_path) == f"heptapod {version}\n"
    assert "RECIPE" in run(binaries / "heptapod", "train", "--help", cwd=tmp_path)
    assert "width:" in run(binaries / "heptapod", "train", "demo", "--print-config", cwd=tmp_path)
