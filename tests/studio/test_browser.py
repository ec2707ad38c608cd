"""The page in a real browser: what a visitor sees, does and takes home. Needs playwright and Chromium."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from heptapod.cli import main

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from playwright.sync_api import Browser, Download, Locator, Page, expect  # noqa: E402

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
CELLS = 20
Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_api.sync_playwright() as playwright:
        expect.set_options(timeout=20_000)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser, address: str) -> Iterator[Open]:
    """Opens a page of the studio; at the end nothing may have gone wrong in the browser."""
    complaints: list[str] = []
    contexts = []

    def open_(where: str = "generate", width: int = 1280, height: int = 800, expected: str = "$^") -> Page:
        contexts.append(browser.new_context(viewport={"width": width, "height": height}, reduced_motion="reduce"))
        page = contexts[-1].new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console",
            lambda message: complaints.append(message.text)
            if message.type in ("error", "warning") and not re.search(expected, message.text)
            else None,
        )
        page.goto(f"{address}/#/{where}")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert complaints == []


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
    found: Download = download.value
    return Path(found.path())


def pixels(file: Path) -> np.ndarray:
    return np.asarray(Image.open(file).convert("RGB"))


def assert_makes_the_same_again(png: Path, record: Path, folder: Path) -> None:
    """The command line draws the downloaded image again, pixel for pixel."""
    out = folder / "again.png"
    assert main(["sample", "--from", str(record), "--out", str(out)]) == 0
    assert (pixels(out) == pixels(png)).all()


def test_generate_scrub_and_play(open_page: Open) -> None:
    page = open_page()
    expect(page.get_by_role("button", name="Generate")).to_be_focused()
    expect(page.locator(".readout")).to_contain_text(f"fills {CELLS} cells")
    page.get_by_text("owl", exact=True).first.click()
    generate(page, Count="3", Seed="5", Steps="6")
    assert read_so_far(page) == "20 of 20 cells"
    expect(page.locator(".thumb")).to_have_count(3)
    expect(page.locator(".thumb").nth(2)).to_contain_text("seed 7")

    maps = page.locator(".panel canvas")
    expect(maps).to_have_count(4)
    at_the_end = [shown(maps.nth(i)) for i in range(4)]
    slider = page.get_by_role("slider", name="Step", exact=True)
    slider.fill("2")
    expect(page.locator(".transport output")).to_have_text("2 / 6")
    assert int(read_so_far(page).split()[0]) < CELLS
    changed = [shown(maps.nth(i)) != before for i, before in enumerate(at_the_end)]
    assert changed == [True] * 4
    page.get_by_role("button", name="One step on").click()
    expect(slider).to_have_value("3")
    page.get_by_role("button", name="First state").click()
    assert read_so_far(page) == "0 of 20 cells"
    page.get_by_role("button", name="Play").click()
    expect(slider).to_have_value("6")
    expect(page.get_by_role("button", name="Play")).to_be_visible()


def test_a_cell_is_read_by_pointing_at_it(open_page: Open) -> None:
    page = open_page()
    generate(page)
    page.get_by_role("slider", name="Step", exact=True).fill("7")
    maps = page.locator(".panel canvas")
    maps.nth(2).hover(position={"x": 3, "y": 20})
    expect(page.locator(".readout")).to_contain_text("Row 1, column 1: filled in step 1, as number 1")
    box = maps.nth(2).bounding_box()
    assert box is not None
    maps.nth(2).hover(position={"x": box["width"] - 3, "y": box["height"] - 3})
    expect(page.locator(".readout")).to_have_text(re.compile(r"Row 4, column 5: not read yet, entropy \d\.\d\d nats"))


def test_a_fork_keeps_what_was_read_and_can_be_left_again(open_page: Open) -> None:
    page = open_page()
    generate(page)
    first = shown(page.locator(".panel canvas").first)
    page.get_by_role("slider", name="Step", exact=True).fill("8")
    kept = shown(page.locator(".panel canvas").nth(3))
    page.get_by_label("Seed to continue with", exact=True).fill("77")
    page.get_by_role("button", name="Continue from here").click()
    finished(page)
    expect(page.locator(".history .entry")).to_have_count(2)
    expect(page.locator(".history ul ul .entry")).to_have_text("from step 8, seed 77")
    assert shown(page.locator(".panel canvas").first) != first
    page.get_by_role("button", name="First state").click()
    assert read_so_far(page) == "8 of 20 cells"
    assert page.locator(".transport output").inner_text() == "0 / 12"
    assert shown(page.locator(".panel canvas").nth(3)) != kept  # what was given has another colour
    page.locator(".history .entry").first.click()
    expect(page.locator(".transport output")).to_have_text("20 / 20")
    assert shown(page.locator(".panel canvas").first) == first


@pytest.mark.parametrize("model", ["run", "vectors"])
def test_ask_a_cell_pin_and_reproduce(open_page: Open, tmp_path: Path, model: str) -> None:
    page = open_page(f"generate?model={model}&steps=5")
    generate(page)
    page.get_by_role("slider", name="Step", exact=True).fill("2")
    click_cell(page.locator(".panel canvas").nth(1), 3, 2)
    ask = page.get_by_role("region", name="Cell in row 4, column 3")
    choices = ask.locator("label.candidate")
    expect(choices).to_have_count(8 if model == "run" else 9)
    if model == "run":
        expect(choices.first).to_contain_text(re.compile(r"code \d+.*\d+\.\d%", re.DOTALL))
        expect(ask.locator(".rest")).to_contain_text("all others")
    else:
        expect(choices.first).to_contain_text("mean")
        expect(ask.locator(".channels tbody tr")).to_have_count(3)
    expect(ask.get_by_role("button", name="Pin and continue")).to_be_disabled()
    choices.nth(1).click()
    ask.get_by_role("button", name="Pin and continue").click()
    expect(page.locator(".history .entry[aria-current]")).to_contain_text("cell 4,3 pinned")
    finished(page)
    record = taken(page, "JSON")
    assert 17 in json.loads(record.read_text())["known"]["cells"]
    assert_makes_the_same_again(taken(page, "PNG"), record, tmp_path)


def test_a_cell_that_was_read_leads_back_to_before_it_was(open_page: Open) -> None:
    page = open_page()
    generate(page)
    click_cell(page.locator(".panel canvas").first, 1, 0)
    page.get_by_role("button", name="Go back to before step 6").click()
    expect(page.locator(".transport output")).to_have_text("5 / 20")
    expect(page.locator("label.candidate")).to_have_count(8)
    page.keyboard.press("Escape")
    expect(page.locator(".ask")).to_have_count(0)


def test_downloads_make_the_same_image_again(open_page: Open, tmp_path: Path) -> None:
    page = open_page("generate?token_order=random&steps=7&temperature=0.8")
    generate(page, Count="2", Seed="11")
    page.locator(".thumb").nth(1).click()
    png, record = taken(page, "PNG"), taken(page, "JSON")
    assert json.loads(record.read_text())["seeds"] == [12]
    assert_makes_the_same_again(png, record, tmp_path)


def test_inpaint_an_upload(open_page: Open, tmp_path: Path) -> None:
    page = open_page("edit")
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
    expect(page.locator(".panel .name")).to_contain_text("drawn with seed 0")
    assert shown(mask) != clean
    page.get_by_role("button", name="The image before").click()
    assert shown(mask) == clean


def test_outpaint_places_the_image(open_page: Open, tmp_path: Path) -> None:
    page = open_page()
    generate(page)
    inner = pixels(taken(page, "PNG"))
    page.get_by_role("button", name="Edit this").click()
    page.get_by_text("Out-paint").click()
    page.get_by_label("Height", exact=True).fill("24")
    page.get_by_label("Width", exact=True).fill("28")
    page.get_by_label("Top", exact=True).fill("0")
    page.locator("canvas.placing").focus()
    page.keyboard.press("ArrowDown")
    expect(page.get_by_label("Top", exact=True)).to_have_value("4")
    page.get_by_label("Left", exact=True).fill("8")
    page.get_by_role("button", name="Paint outside").click()
    finished(page)
    expect(page.locator(".notice.warning")).to_contain_text("size")
    png = taken(page, "PNG")
    assert pixels(png).shape == (24, 28, 3)
    assert (pixels(png)[4:20, 8:28] == inner).all()
    assert_makes_the_same_again(png, taken(page, "JSON"), tmp_path)


def test_compare_two_settings(open_page: Open) -> None:
    page = open_page("compare?a.model=run&b.model=run&a.count=2")
    expect(page.locator(".difference")).to_contain_text("set alike")
    page.locator(".side-settings.b").get_by_label("Steps").fill("4")
    expect(page.locator(".difference")).to_have_text("They differ in steps: 20 and 4.")
    expect(page.locator(".field.changed")).to_have_count(2)
    page.get_by_role("button", name="Draw both").click()
    expect(page.locator(".summary.a p")).to_contain_text("20 steps in")
    expect(page.locator(".summary.b p")).to_contain_text("4 steps in")
    pairs = page.locator(".pair")
    expect(pairs).to_have_count(2)
    finished_pair = [shown(pairs.first.locator("canvas").nth(i)) for i in range(2)]
    assert finished_pair[0] != finished_pair[1]
    page.get_by_label("Share of the steps").fill("500")
    expect(page.locator(".transport output")).to_have_text("10 and 2 steps")
    assert all(shown(pairs.first.locator("canvas").nth(i)) != finished_pair[i] for i in range(2))
    page.get_by_text("Believed", exact=True).click()
    page.reload()
    expect(page.locator(".side-settings.b").get_by_label("Steps")).to_have_value("4")


def test_compare_two_models(open_page: Open) -> None:
    page = open_page("compare")
    expect(page.locator(".side-settings.b select").first).to_have_value("vectors")
    page.locator(".side-settings.b").get_by_label("Steps").fill("5")
    page.get_by_label("Count").fill("3")
    page.get_by_role("button", name="Draw both").click()
    expect(page.locator(".summary.b p")).to_contain_text("5 steps in")
    expect(page.locator(".pair")).to_have_count(3)


def test_understand_a_run(open_page: Open) -> None:
    page = open_page("understand")
    charts = page.locator(".chart")
    expect(charts.first).to_contain_text("training: from 3 at 10 to 2 at 20; held out: 2.50 at 10")
    expect(charts.first.locator("canvas")).to_be_visible()
    page.get_by_label("logarithmic").check()
    grid = page.locator(".grids img")
    expect(grid).to_have_attribute("src", re.compile("/run/grids/model/20$"))
    page.get_by_role("slider", name="Step of training").fill("0")
    expect(grid).to_have_attribute("src", re.compile("/run/grids/model/10$"))
    assert grid.evaluate("async image => { await image.decode(); return image.naturalWidth }") == 8
    page.get_by_text("Settings of this training").click()
    expect(page.locator("pre")).to_contain_text("description: a run")
    page.get_by_label("model").select_option("vectors")
    expect(page.locator(".notice")).to_contain_text("No run folder")


def test_everything_on_generate_by_keyboard(open_page: Open) -> None:
    page = open_page()
    expect(page.get_by_role("button", name="Generate")).to_be_focused()
    page.keyboard.press("Enter")
    finished(page)
    page.locator("body").evaluate("() => document.activeElement.blur()")
    page.keyboard.press("Home")
    expect(page.locator(".transport output")).to_have_text("0 / 20")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    expect(page.locator(".transport output")).to_have_text("3 / 20")
    page.locator(".panel canvas").first.focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    expect(page.get_by_role("heading", name="Cell in row 3, column 2")).to_be_focused()
    expect(page.locator("label.candidate")).to_have_count(8)
    for key in ("Tab", "Tab", "Space", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    expect(page.locator(".history ul ul .entry")).to_contain_text("cell 3,2 pinned")
    finished(page)


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


@pytest.mark.parametrize("where", ["generate", "edit", "compare", "understand"])
def test_a_phone_shows_every_page_in_its_width(open_page: Open, where: str) -> None:
    page = open_page(where, width=390, height=844)
    if where in ("generate", "edit"):
        page.goto(page.url.split("#")[0] + "#/generate")
        generate(page)
    if where == "edit":
        page.get_by_role("button", name="Edit this").click()
        expect(page.locator("canvas.mask")).to_be_visible()
    if where == "compare":
        page.locator(".side-settings.b select").first.select_option("run")
        page.get_by_role("button", name="Draw both").click()
        expect(page.locator(".summary.b p")).to_contain_text("steps in")
    if where == "understand":
        expect(page.locator(".chart canvas").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_generate_fits_a_small_laptop_without_scrolling(open_page: Open) -> None:
    page = open_page()
    generate(page, Count="4")
    assert page.evaluate("document.documentElement.scrollHeight") <= 800


def test_settings_survive_a_reload_and_problems_are_told_where_they_are(open_page: Open) -> None:
    page = open_page(expected="422")
    page.get_by_label("Seed", exact=True).fill("123")
    page.get_by_label("Schedule").select_option("list")
    page.get_by_label("Cells per step").fill("1, 2, 3")
    page.reload()
    expect(page.get_by_label("Seed", exact=True)).to_have_value("123")
    expect(page.get_by_label("Cells per step")).to_have_value("1, 2, 3")
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_label("Cells per step")).to_have_attribute("aria-invalid", "true")
    expect(page.locator(".notice.problem")).to_contain_text("needs positive numbers with sum 20")


def test_an_upload_that_is_no_image_is_refused_in_words(open_page: Open, tmp_path: Path) -> None:
    page = open_page("edit", expected="415")
    (tmp_path / "text.png").write_text("no image")
    page.get_by_label("Image file").set_input_files(tmp_path / "text.png")
    expect(page.locator(".upload .notice.problem")).to_be_visible()
