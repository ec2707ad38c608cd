"""What a visitor of the page does again and again. Needs playwright."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from heptapod.cli import main
from tests.studio.conftest import CHROMIUM

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from playwright.sync_api import Locator, Page, Route, expect

Open = Callable[..., Page]
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")
expect.set_options(timeout=20_000)


def generate(page: Page, **settings: str) -> None:
    """Fills in settings by their labels, presses the button, waits for the images."""
    for label, value in settings.items():
        page.get_by_label(label, exact=True).fill(value)
    page.get_by_role("button", name="Generate").click()
    finished(page)


def finished(page: Page) -> None:
    """Waits for images other than those it waited for before."""
    page.wait_for_function("""() => {
        const status = document.querySelector(".go .status"), trace = status?.dataset.trace;
        if (trace === window.waitedFor || !/\\d+ steps? in [\\d.]+ s\\./.test(status.textContent)) return false;
        window.waitedFor = trace;
        return true;
    }""")


def read_so_far(page: Page) -> str:
    return page.locator(".panel", has_text="Read so far").locator("figcaption span").first.inner_text()


def shown(canvas: Locator) -> str:
    """What a canvas shows once it changes no more, to be compared with what it shows later."""
    text: str = canvas.evaluate("""async canvas => {
        for (let before = "", now = canvas.toDataURL(); ; before = now, now = canvas.toDataURL()) {
            if (before === now) return now;
            await new Promise(resolve => setTimeout(resolve, 50));
        }
    }""")
    return text


def click_cell(canvas: Locator, row: int, column: int) -> None:
    """Clicks into a cell of a grid of 4×5."""
    box = canvas.bounding_box()
    assert box is not None
    canvas.click(position={"x": (column + 0.5) * box["width"] / 5, "y": (row + 0.5) * box["height"] / 4})


def color_of(canvas: Locator, row: int, column: int) -> tuple[int, ...]:
    """Red, green and blue near the corner of a cell of a grid of 4×5, where no text is."""
    png = base64.b64decode(shown(canvas).split(",")[1])
    image = Image.open(io.BytesIO(png)).convert("RGB")
    pixel: tuple[int, ...] = image.getpixel(
        (int((column + 0.12) * image.width / 5), int((row + 0.12) * image.height / 4))
    )
    return pixel


class Held:
    """Requests that match a pattern, held back until they are let go."""

    def __init__(self, page: Page, pattern: str) -> None:
        self.routes: list[Route] = []
        page.route(pattern, lambda route: self.routes.append(route))
        self.page, self.pattern = page, pattern

    def let_go(self, at: int) -> None:
        with self.page.expect_response(self.pattern):
            self.routes[at].continue_()

    def wait_for(self, count: int) -> None:
        until = time.monotonic() + 20
        while len(self.routes) < count and time.monotonic() < until:
            self.page.wait_for_timeout(10)
        assert len(self.routes) == count


def taken(page: Page, button: str) -> Path:
    with page.expect_download() as download:
        page.get_by_role("button", name=button, exact=True).click()
    return Path(download.value.path())


def pixels(file: Path) -> np.ndarray:
    return np.asarray(Image.open(file).convert("RGB"))


def assert_makes_the_same_again(png: Path, record: Path, folder: Path) -> None:
    """The command line draws the downloaded image again, pixel for pixel."""
    out = folder / "again.png"
    assert main(["sample", "--from", str(record), "--out", str(out)]) == 0
    assert (pixels(out) == pixels(png)).all()
