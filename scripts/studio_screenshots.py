"""Takes the screenshots of docs/studio.md: python scripts/studio_screenshots.py http://127.0.0.1:8000 docs/images.

Needs playwright, Chromium, and a running studio that serves the demo (heptapod studio runs/demo) with evaluations in
runs/demo/evaluations.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip


def generate(page: Page, label: str, seed: str, order: str = "random", count: str = "4") -> None:
    """Generates images on the Generate page and waits until they are done."""
    page.get_by_text(label, exact=True).first.click()
    for name, value in (("Count", count), ("Seed", seed)):
        page.get_by_label(name, exact=True).fill(value)
    page.get_by_label("Order", exact=True).select_option(order)
    page.get_by_role("button", name="Generate").click()
    expect(page.locator(".go .status > p")).to_contain_text("steps in", timeout=60_000)


def click_cell(page: Page, row: int, column: int) -> None:
    """Clicks one of the 7×7 cells of the predicted image."""
    canvas = page.locator(".panel canvas").nth(1)
    box = canvas.bounding_box()
    assert box is not None
    canvas.click(position={"x": (column + 0.5) * box["width"] / 7, "y": (row + 0.5) * box["height"] / 7})


def take(address: str, out: Path) -> None:
    """Writes all screenshots to a folder."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme="light")
        page.goto(f"{address}/#/generate")
        generate(page, "5", "11")
        page.get_by_role("slider", name="Step", exact=True).fill("16")
        page.wait_for_timeout(400)
        page.screenshot(path=out / "studio_generate.png")
        click_cell(page, 3, 3)
        page.locator("label.candidate").nth(1).click()
        page.wait_for_timeout(400)
        page.screenshot(path=out / "studio_cell.png")
        page.keyboard.press("Escape")

        page.get_by_role("button", name="Last state").click()
        page.get_by_role("button", name="Edit this").click()
        page.get_by_text("3", exact=True).first.click()
        page.get_by_role("button", name="Rectangle").click()
        canvas = page.locator("canvas").first
        box = canvas.bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + 4, box["y"] + 4)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] - 4, box["y"] + box["height"] * 0.45, steps=8)
        page.mouse.up()
        page.get_by_role("button", name="Repaint").click()
        expect(page.locator(".status > p").first).to_contain_text("steps in", timeout=60_000)
        page.wait_for_timeout(500)
        page.screenshot(path=out / "studio_edit.png")

        page.goto(f"{address}/#/compare")
        page.get_by_text("8", exact=True).first.click()
        page.get_by_role("button", name="Generate both").click()
        page.wait_for_timeout(6000)
        page.screenshot(path=out / "studio_compare.png")

        page.goto(f"{address}/#/understand")
        page.wait_for_timeout(2000)
        page.screenshot(path=out / "studio_understand.png", full_page=True)

        phone = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
        phone.goto(f"{address}/#/generate")
        generate(phone, "5", "11")
        phone.get_by_role("slider", name="Step", exact=True).fill("16")
        phone.locator(".panel").first.scroll_into_view_if_needed()
        phone.wait_for_timeout(400)
        phone.screenshot(path=out / "studio_phone.png")
        browser.close()


if __name__ == "__main__":
    take(sys.argv[1].rstrip("/"), Path(sys.argv[2]))
