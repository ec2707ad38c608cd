"""A studio with two small models, one of codes in a run folder and one of vectors, behind a real server."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import torch
import uvicorn
from PIL import Image

from heptapod.studio.app import create_app
from heptapod.studio.models import Collection, load_models
from heptapod.studio.schemas import Limits
from tests.small import CODES, VECTORS, small_model

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page

CHROMIUM = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)
BROWSER_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
                 "--disable-component-update", "--disable-sync"]  # fmt: skip
LIMITS = Limits(count=4, steps=64, side=64, cells=320, upload_bytes=1_000_000, upload_pixels=2_000_000, waiting=32)


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """run/best is a model of codes, with what its training left; vectors a model of vectors."""
    folder = tmp_path_factory.mktemp("studio")
    small_model(CODES).save_pretrained(folder / "run" / "best")
    small_model(VECTORS).save_pretrained(folder / "vectors")
    run = folder / "run"
    (run / "config.yaml").write_text("description: a run\n")
    lines = [{"step": 10, "loss": 3.0, "val_loss": 2.5}, {"step": 20, "loss": 2.0, "lr": float("nan")}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run / "samples").mkdir()
    for step in (10, 20):
        Image.new("RGB", (8, 8), (step, 0, 0)).save(run / "samples" / f"step-{step:08d}.png")
    return folder


@pytest.fixture(scope="session")
def collection(place: Path) -> Collection:
    return load_models([str(place / "run"), str(place / "vectors")], [torch.device("cpu")])


@contextlib.contextmanager
def serving(app: Any, host: str = "127.0.0.1") -> Iterator[str]:
    """A real server in a thread; yields its address."""
    with socket.socket() as listening:
        listening.bind((host, 0))
        listening.listen(128)
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=2))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        until = time.monotonic() + 30
        while not server.started and time.monotonic() < until:
            time.sleep(0.01)
        try:
            yield f"http://{host}:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=10)


@pytest.fixture(scope="session")
def address(collection: Collection) -> Iterator[str]:
    with serving(create_app(collection, LIMITS)) as where:
        yield where


@pytest.fixture(scope="module")  # while it is open, asyncio.run would be refused in this thread
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=BROWSER_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser, address: str) -> Iterator[Callable[..., Page]]:
    """Opens a page of the studio; at the end nothing but what was expected may have gone wrong in the browser."""
    complaints: list[str] = []
    contexts: list[BrowserContext] = []

    def open_(where: str = "generate", width: int = 1280, height: int = 800, expected: str = "$^") -> Page:
        def hear(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning") and not re.search(expected, message.text):
                complaints.append(message.text)

        contexts.append(browser.new_context(viewport={"width": width, "height": height}, reduced_motion="reduce"))
        page = contexts[-1].new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", hear)
        page.goto(f"{address}/#/{where}")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def client(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=60) as one:
        yield one


def iterate(lines: Iterator[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and data of every event, as they come."""
    name = ""
    for line in lines:
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


def generated(client: httpx.Client, **request: Any) -> dict[str, list[dict[str, Any]]]:
    """The events of a request for images, by name."""
    found: dict[str, list[dict[str, Any]]] = {}
    with client.stream("POST", "/api/generate", json={"model": "run", "label": "dog", **request}) as response:
        assert response.status_code == 200, response.read()
        for name, data in iterate(response.iter_lines()):
            found.setdefault(name, []).append(data)
    return found
