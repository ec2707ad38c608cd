"""What comes late, twice or from two fingers, in a real browser."""

from __future__ import annotations

import re
from pathlib import Path

from PIL import Image

from tests.studio.browsing import Held, Open, click_cell, expect, finished, generate, needs_chromium, read_so_far, shown

pytestmark = needs_chromium


def test_a_late_answer_cannot_be_pinned_elsewhere(open_page: Open) -> None:
    page = open_page(expected="429")
    generate(page, Count="2")
    slider = page.get_by_role("slider", name="Step", exact=True)
    slider.fill("5")
    image, pin = page.locator(".panel canvas").first, page.get_by_role("button", name="Pin and continue")
    click_cell(image, 3, 4)
    page.locator("label.candidate").nth(1).click()
    expect(pin).to_be_enabled()
    questions = Held(page, "**/api/cell")
    slider.fill("9")
    expect(pin).to_be_disabled()
    expect(page.locator(".ask")).to_contain_text("before step 6")
    page.locator(".thumb").nth(1).click()
    expect(page.locator(".ask")).to_contain_text("Asking the model")
    questions.wait_for(1)
    questions.routes[0].fulfill(status=429, json={"detail": "32 requests are waiting"})
    expect(page.locator(".ask .notice")).to_have_text("32 requests are waiting")
    click_cell(image, 3, 3)
    expect(page.locator(".ask")).to_contain_text("Asking the model")
    questions.wait_for(2)
    questions.let_go(1)
    expect(page.locator("label.candidate")).to_have_count(8)


def test_the_last_cell_may_be_pinned(open_page: Open) -> None:
    page = open_page()
    generate(page)
    page.get_by_role("slider", name="Step", exact=True).fill("19")
    click_cell(page.locator(".panel canvas").first, 3, 4)
    page.locator("label.candidate").nth(1).click()
    page.get_by_role("button", name="Pin and continue").click()
    finished(page)
    expect(page.locator(".transport output")).to_have_text("0 / 0")
    assert read_so_far(page) == "20 of 20 cells"
    expect(page.get_by_role("button", name="Edit this")).to_be_enabled()


def test_the_last_upload_and_the_model_chosen_win(open_page: Open, tmp_path: Path) -> None:
    page = open_page("edit?model=run")
    for name, color in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (20, 16), color).save(tmp_path / name)
    uploads, file = Held(page, "**/api/encode"), page.get_by_label("Image file")
    name, models = page.locator(".panel .name"), page.get_by_label("model")
    file.set_input_files(tmp_path / "a.png")
    uploads.wait_for(1)
    file.set_input_files(tmp_path / "b.png")
    uploads.wait_for(2)
    uploads.let_go(1)
    expect(name).to_contain_text("b.png")
    page.get_by_role("button", name="Invert the mask").click()
    expect(page.locator(".obstacle")).to_contain_text("Every cell")
    uploads.let_go(0)

    file.set_input_files(tmp_path / "a.png")  # on its way when another model is chosen
    uploads.wait_for(3)
    models.select_option("vectors")
    uploads.wait_for(4)
    uploads.let_go(3)
    expect(name).to_contain_text("a.png")
    expect(page.locator(".obstacle")).to_contain_text("Brush over")  # the old image's mask is gone
    uploads.let_go(2)
    models.select_option("run")
    uploads.wait_for(5)
    models.select_option("vectors")  # back before the answer
    uploads.let_go(4)
    expect(name).to_contain_text("a.png")
    expect(models).to_have_value("vectors")


def test_an_image_takes_its_model_and_class_along(open_page: Open) -> None:
    page = open_page("generate?model=vectors&steps=2&label=1")
    generate(page)
    page.get_by_label("Class to continue with").select_option("2")
    page.get_by_label("model").select_option("run")
    generate(page)
    expect(page.get_by_label("Class to continue with")).to_have_value("same")
    page.locator(".history .entry").last.click()
    page.get_by_role("button", name="Edit this").click()
    expect(page.get_by_label("model")).to_have_value("vectors")
    expect(page.locator(".panel .name")).to_contain_text("generated with seed 0")
    expect(page.locator(".chips input").nth(1)).to_be_checked()
    page.locator(".chips label").nth(0).click()
    page.get_by_role("link", name="Generate").click()
    page.get_by_role("link", name="Edit").click()
    expect(page.locator(".chips input").nth(0)).to_be_checked()


def test_repainting_is_stopped_by_hand_and_by_another_image(open_page: Open) -> None:
    page = open_page("generate?model=vectors&steps=2")
    generate(page)
    page.get_by_role("button", name="Edit this").click()
    page.get_by_label("Brush size").fill("8")
    click_cell(page.locator("canvas.mask"), 1, 1)
    page.get_by_role("button", name="Invert the mask").click()
    page.get_by_text("Sampling", exact=True).click()
    page.get_by_text("More", exact=True).click()
    page.get_by_label("Cell steps").fill("300")
    repaint, status = page.get_by_role("button", name="Repaint"), page.locator(".go .status > p")
    repaint.click()
    expect(status).to_have_text("Drawing …")
    page.get_by_role("button", name="Stop").click()
    expect(status).to_have_text(re.compile(r"Stopped after \d+ of \d+ steps\."))
    repaint.click()
    expect(status).to_have_text("Drawing …")
    page.get_by_role("link", name="Generate").click()
    with page.expect_event("requestfailed"):
        page.get_by_role("button", name="Edit this").click()


def test_one_finger_paints(open_page: Open) -> None:
    page = open_page()
    generate(page)
    page.get_by_role("button", name="Edit this").click()
    mask = page.locator("canvas.mask")
    box = mask.bounding_box()
    assert box is not None
    touch = page.context.new_cdp_session(page)

    def fingers(kind: str, *places: tuple[float, float]) -> None:
        points = [
            {"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"], "id": i}
            for i, (x, y) in enumerate(places)
        ]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    page.get_by_label("Brush size").fill("1")
    clean = shown(mask)
    fingers("touchStart", (0.1, 0.1))
    fingers("touchMove", (0.15, 0.1))
    fingers("touchEnd")
    line = shown(mask)
    assert line != clean
    page.get_by_role("button", name="Undo").click()
    fingers("touchStart", (0.1, 0.1))
    fingers("touchStart", (0.1, 0.1), (0.9, 0.9))
    fingers("touchMove", (0.15, 0.1), (0.8, 0.9))
    fingers("touchCancel")
    assert shown(mask) == line
    mask.hover(position={"x": 0.9 * box["width"], "y": 0.1 * box["height"]})
    page.mouse.move(5, 5)
    assert shown(mask) == line


def test_settings_written_to_the_address_do_not_undo_a_navigation(open_page: Open) -> None:
    page = open_page("edit")
    expect(page.get_by_label("Count", exact=True)).to_be_visible()
    page.evaluate("""() => {  // in one task: the hashchange event comes after it
        location.hash = "#/generate";
        const count = document.querySelector("input[type=number]");
        count.value = "2";
        count.dispatchEvent(new Event("input", {bubbles: true}));
        count.dispatchEvent(new Event("change", {bubbles: true}));
    }""")
    expect(page.get_by_role("button", name="Generate")).to_be_visible()
    assert "#/generate" in page.url
