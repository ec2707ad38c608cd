"""Every module can be the first one of the package that an interpreter imports."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.test_architecture import MODULES as FILES
from tests.test_architecture import dotted

OPTIONAL = {"fastapi", "fastapi_offline", "matplotlib", "multipart", "mlxtend", "pyarrow", "sklearn", "starlette",
            "torchmetrics", "uvicorn"}  # fmt: skip
"""Packages of the extras. A module whose import fails for want of one of them is skipped."""

IMPORT_EACH = """
import contextlib, importlib, json, os, sys

import torch

modules = json.load(sys.stdin)
readable, writable = os.pipe()
if not os.fork():  # lists the packages that heptapod imports, which the parent then imports once
    for name in modules:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    with os.fdopen(writable, "w") as stream:
        json.dump([name for name in sys.modules if name.split(".")[0] not in ("heptapod", "__main__")], stream)
    os._exit(0)
os.close(writable)
with os.fdopen(readable) as stream:
    packages = json.load(stream)
os.wait()
for name in packages:
    with contextlib.suppress(Exception):
        importlib.import_module(name)
assert not any(name.split(".")[0] == "heptapod" for name in sys.modules)


def finish(running):
    child, status = os.wait()
    pipe, module = running.pop(child)
    with os.fdopen(pipe) as stream:
        text = stream.read()
    print(json.dumps([module, text if text or not status else f"ended with status {status}"]), flush=True)


running = {}
for module in modules:
    if len(running) == 2:
        finish(running)
    readable, writable = os.pipe()
    child = os.fork()
    if not child:
        try:
            importlib.import_module(module)
        except BaseException as error:
            missing = error.name if isinstance(error, ModuleNotFoundError) else None
            line = f"needs {missing}" if missing else f"{type(error).__name__}: {error}"
            os.write(writable, line[:4000].encode())
        os._exit(0)
    os.close(writable)
    running[child] = readable, module
while running:
    finish(running)
"""


MODULES = [name for name in map(dotted, FILES) if not name.endswith("__main__")]  # that one runs the command line


@pytest.fixture(scope="module")
def errors() -> dict[str, str]:
    """The import error of every module, empty where there is none: a forked interpreter for each."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_EACH],
        input=json.dumps(MODULES),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(line) for line in done.stdout.splitlines())


@pytest.mark.skipif(sys.platform == "win32", reason="needs os.fork")
@pytest.mark.parametrize("module", MODULES)
def test_a_module_can_be_imported_first(module: str, errors: dict[str, str]) -> None:
    missing = errors[module].removeprefix("needs ").split(".")[0]
    if errors[module].startswith("needs ") and missing in OPTIONAL:
        pytest.skip(f"needs the optional package {missing}")
    assert not errors[module]
