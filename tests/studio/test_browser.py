"""Generate, Compare and Understand in a real browser: what a visitor sees, does and takes home."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from heptapod.studio.app import create_app
from heptapod.studio.models import Collection
from tests.studio.browsing import (
    Open,
    Route,
    assert_makes_the_same_again,
    click_cell,
    color_of,
    expect,
    finished,
    generate,
    needs_chromium,
    read_so_far,
    shown,
    taken,
)
from tests.studio.conftest import LIMITS, serving

pytestmark = needs_chromium
CELLS = 20
GIVEN = (0x9B, 0x95, 0xA6)


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
    slider.fill("4")
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
    order = page.locator(".panel canvas").nth(3)
    assert GIVEN != color_of(order, 0, 0) != color_of(order, 2, 0)
    page.get_by_label("Seed to continue with", exact=True).fill("77")
    page.get_by_role("button", name="Continue from here").click()
    finished(page)
    expect(page.locator(".history .entry")).to_have_count(2)
    expect(page.locator(".history ul ul .entry")).to_have_text("from step 8, seed 77")
    assert shown(page.locator(".panel canvas").first) != first
    page.get_by_role("button", name="First state").click()
    assert read_so_far(page) == "8 of 20 cells"
    assert page.locator(".transport output").inner_text() == "0 / 12"
    assert color_of(order, 0, 0) == color_of(order, 1, 2) == GIVEN
    assert color_of(order, 2, 0) != GIVEN
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


def test_compare_two_settings(open_page: Open) -> None:
    page = open_page("compare?a.model=run&b.model=run&a.count=2")
    expect(page.locator(".difference")).to_contain_text("set alike")
    page.locator(".side-settings.b").get_by_label("Steps").fill("4")
    expect(page.locator(".difference")).to_have_text("They differ in steps: 20 and 4.")
    expect(page.locator(".field.changed")).to_have_count(2)
    page.get_by_role("button", name="Generate both").click()
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
    page.locator(".side-settings.b").get_by_label("Steps", exact=True).fill("5")
    page.get_by_label("Count").fill("3")
    page.get_by_role("button", name="Generate both").click()
    expect(page.locator(".summary.b p")).to_contain_text("5 steps in")
    expect(page.locator(".pair")).to_have_count(3)
    with page.expect_download() as download:
        page.get_by_role("button", name="PNG of B, seed 2").click()
    assert download.value.suggested_filename.startswith("heptapod-vectors-")
    page.get_by_text("owl", exact=True).click()
    page.locator(".side-settings.a select").first.select_option("vectors")
    expect(page.get_by_label("Count")).to_have_value("3")
    expect(page.get_by_role("radio", name="owl")).to_be_checked()


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
    expect(page.locator(".panel canvas").first).to_be_focused()
    page.get_by_role("slider", name="Step", exact=True).fill("4")
    page.get_by_role("button", name="Continue from here").press("Enter")
    finished(page)
    expect(page.get_by_role("button", name="Continue from here")).to_be_focused()


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
        page.get_by_role("button", name="Generate both").click()
        expect(page.locator(".summary.b p")).to_contain_text("steps in")
    if where == "understand":
        expect(page.locator(".chart canvas").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_generate_fits_a_small_laptop_without_scrolling(open_page: Open, collection: Collection) -> None:
    page = open_page()
    with serving(create_app(collection, LIMITS.model_copy(update={"count": 16}))) as address:
        page.goto(f"{address}/#/generate")
        generate(page, Count="16", Steps="2")
        assert page.evaluate("document.documentElement.scrollHeight") <= 800
        page.locator(".thumb input").first.focus()
        page.keyboard.press("ArrowLeft")
        expect(page.locator(".thumb").last).to_be_in_viewport(ratio=1)
        page.set_viewport_size({"width": 1000, "height": 360})
        box = page.locator(".panel canvas").first.bounding_box()
        assert box is not None
        assert box["width"] >= 200


def test_who_waits_is_told_so_and_whoever_stops_makes_room(open_page: Open) -> None:
    slow, waiting = (open_page(f"generate?model={name}") for name in ("vectors&cell_steps=300", "run"))
    slow.get_by_role("button", name="Generate").click()
    expect(slow.locator(".go .status > p")).to_have_text("Drawing …")
    waiting.get_by_role("button", name="Generate").click()
    expect(waiting.locator(".go .status > p")).to_have_text("Waiting: 1 request ahead.")
    slow.get_by_role("button", name="Stop").click()
    expect(slow.locator(".go .status > p")).to_have_text(re.compile(r"Stopped after \d+ of 20 steps\."))
    finished(waiting)


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
    numbers = page.get_by_label("Cells per step")
    numbers.press("Control+a")
    numbers.press("Delete")
    expect(numbers).to_be_focused()
    numbers.press_sequentially("5, 15")
    expect(numbers).not_to_have_attribute("aria-invalid", "true")
    page.get_by_text("More", exact=True).click()
    page.get_by_label("Top k").press_sequentially("5")
    page.get_by_label("Top k").press("Backspace")
    expect(page.get_by_label("Top k")).to_be_focused()


def test_a_link_opened_in_the_same_tab_is_taken(open_page: Open) -> None:
    page = open_page()
    page.get_by_label("Steps", exact=True).fill("7")
    page.evaluate("location.hash = '#/generate?seed=9&steps=5'")
    expect(page.get_by_label("Seed", exact=True)).to_have_value("9")
    expect(page.get_by_label("Steps", exact=True)).to_have_value("5")
    page.get_by_role("link", name="Generate").click()
    expect(page).to_have_url(re.compile("seed=9&steps=5"))


def test_a_class_among_many_stays_unless_another_is_chosen(open_page: Open) -> None:
    page = open_page()

    def many(route: Route) -> None:
        served = route.fetch().json()
        for model in served["models"]:
            model["class_names"] = [f"class {i}" for i in range(100)]
        route.fulfill(json=served)

    page.route("**/api/models", many)
    page.goto(f"{page.url.split('#')[0]}?#/generate?label=30")
    search = page.get_by_role("combobox", name="Class", exact=True)
    for chosen, wanted in (("class 30", "class 99"), ("class 99", "class 7")):
        expect(search).to_have_value(chosen)
        search.click()
        search.press("Enter")
        expect(search).to_have_value(chosen)
        search.fill(wanted)
        search.press("Enter")
    expect(search).to_have_value("class 7")
