"""Edit in a real browser: upload, brush, in-paint, out-paint, and take the result home."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tests.studio.browsing import (
    Open,
    assert_makes_the_same_again,
    click_cell,
    expect,
    finished,
    generate,
    needs_chromium,
    pixels,
    shown,
    taken,
)

pytestmark = needs_chromium


def test_inpaint_an_upload(open_page: Open, tmp_path: Path) -> None:
    page = open_page("edit", expected="422")
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (16, 20, 3), dtype=np.uint8)).save(tmp_path / "mine.png")
    page.get_by_label("Image file").set_input_files(tmp_path / "mine.png")
    repaint = page.get_by_role("button", name="Repaint")
    expect(page.locator("canvas.mask")).to_be_visible()
    expect(repaint).to_be_disabled()
    expect(page.locator(".obstacle")).to_contain_text("Brush over")

    page.get_by_role("button", name="Rectangle").click()
    box = page.locator("canvas.mask").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.51, box["y"] + box["height"] * 0.51)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.99, box["y"] + box["height"] * 0.99)
    page.mouse.up()
    page.get_by_label("as the tokenizer sees it").check()
    page.get_by_label("Count", exact=True).fill("2")
    repaint.click()
    finished(page)
    expect(page.locator(".result .thumb")).to_have_count(2)

    before = shown(page.locator("canvas.sliding"))
    page.get_by_label("Boundary between before and after").fill("90")
    assert shown(page.locator("canvas.sliding")) != before
    png, record = taken(page, "PNG"), taken(page, "JSON")
    result, original = pixels(png), pixels(tmp_path / "mine.png")
    assert (result[:8] == original[:8]).all()
    assert (result[:, :10] == original[:, :10]).all()
    assert (result[8:, 12:] != original[8:, 12:]).any()
    assert_makes_the_same_again(png, record, tmp_path)

    page.get_by_label("Steps", exact=True).evaluate("field => field.closest('details').open = true")
    page.get_by_label("Schedule").select_option("list")
    page.get_by_label("Cells per step").fill("1, 2")
    repaint.click()
    expect(page.get_by_label("Cells per step")).to_have_attribute("aria-invalid", "true")
    expect(page.locator("canvas.sliding")).to_be_visible()  # the result before
    page.get_by_role("button", name="Use result as the image").click()
    expect(page.get_by_label("as the tokenizer sees it")).to_be_visible()


def test_brush_undo_invert_and_use_the_result(open_page: Open) -> None:
    page = open_page()
    generate(page)
    page.get_by_role("button", name="Edit this").click()
    mask = page.locator("canvas.mask")
    clean = shown(mask)
    mask.click(position={"x": 60, "y": 120})
    page.mouse.move(5, 5)
    painted = shown(mask)
    assert painted != clean
    page.get_by_role("button", name="Undo").click()
    assert shown(mask) == clean
    expect(page.get_by_role("button", name="Repaint")).to_be_disabled()
    page.get_by_label("Brush size").fill("8")
    click_cell(mask, 1, 1)
    page.get_by_role("button", name="Invert the mask").click()
    page.get_by_label("Keep the original pixels").uncheck()
    page.get_by_text("dog", exact=True).click()
    page.get_by_role("button", name="Repaint").click()
    finished(page)
    page.get_by_role("button", name="Use result as the image").click()
    expect(page.locator(".panel .name")).to_contain_text("generated with seed 0")
    assert shown(mask) != clean
    page.get_by_role("button", name="The image before").click()
    assert shown(mask) == clean


def test_outpaint_places_the_image(open_page: Open, tmp_path: Path) -> None:
    page = open_page()
    generate(page)
    inner = pixels(taken(page, "PNG"))
    page.get_by_role("button", name="Edit this").click()
    page.get_by_text("Out-paint").click()
    for label, value in (("Height", "40"), ("Width", "28")):
        page.get_by_label(label, exact=True).press("Control+a")
        page.get_by_label(label, exact=True).press_sequentially(value)
    page.get_by_label("Top", exact=True).fill("0")
    page.locator("canvas.placing").focus()
    page.keyboard.press("ArrowDown")
    expect(page.get_by_label("Top", exact=True)).to_have_value("4")
    page.get_by_label("Left", exact=True).fill("8")
    page.get_by_text("Sampling", exact=True).click()
    steps = page.get_by_label("Steps", exact=True)
    steps.fill("51")
    page.get_by_text("Sampling", exact=True).click()
    page.get_by_role("button", name="Paint outside").click()
    expect(steps).to_be_focused()  # 50 cells are to be filled
    steps.fill("21")  # more than the model was trained to fill
    page.get_by_role("button", name="Paint outside").press("Enter")
    finished(page)
    expect(page.get_by_role("button", name="Paint outside")).to_be_focused()
    expect(page.locator(".notice.warning")).to_contain_text("size")
    png = taken(page, "PNG")
    assert pixels(png).shape == (40, 28, 3)
    assert (pixels(png)[4:20, 8:28] == inner).all()
    assert_makes_the_same_again(png, taken(page, "JSON"), tmp_path)


def test_the_mask_by_keyboard(open_page: Open) -> None:
    page = open_page()
    generate(page)
    page.get_by_role("button", name="Edit this").click()
    mask = page.locator("canvas.mask")
    mask.focus()
    for key in ("ArrowUp", "Space", "Shift+ArrowLeft", "Space"):
        page.keyboard.press(key)
    expect(page.get_by_role("button", name="Repaint")).to_be_enabled()
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    expect(page.get_by_role("button", name="Repaint")).to_be_disabled()


def test_an_upload_that_is_no_image_is_refused_in_words(open_page: Open, tmp_path: Path) -> None:
    page = open_page("edit", expected="415")
    (tmp_path / "text.png").write_text("no image")
    page.get_by_label("Image file").set_input_files(tmp_path / "text.png")
    expect(page.locator(".upload .notice.problem")).to_be_visible()
