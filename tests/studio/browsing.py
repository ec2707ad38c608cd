"""What a visitor of the page does again and again. Needs playwright."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from heptapod.cli import main

from .conftest import CHROMIUM

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from playwright.sync_api import Locator, Page, expect

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
    expect(page.locator(".go .status > p")).to_have_text(re.compile(r"\d+ steps? in [\d.]+ s\."))


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
