"""The report page in a real browser: nothing fetched, nothing broken, readable on a phone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from onnxprune import api
from onnxprune.formats import bytes_text
from onnxprune.recipe import load_recipe


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory, models_folder: Path) -> Path:
    """The page of a real run with a few trials."""
    folder = tmp_path_factory.mktemp("page") / "run"
    recipe = load_recipe(None, {"search.trials": 8, "max_drop": 0.02})
    api.compress(
        models_folder / "lenet300.onnx", models_folder / "lenet300-data.npz", folder, recipe
    )
    return folder / "report.html"


@pytest.fixture
def browser(program: Callable[[str], str]) -> Iterator:
    """Headless Chromium."""
    chromium = program("chromium")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()


def test_the_page_works_offline_and_says_what_counts(browser, page_file: Path) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    complaints, requests = [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(page_file.as_uri())
    assert requests == [page_file.as_uri()]
    assert complaints == []
    text = page.inner_text("main").lower()
    for phrase in ("fewer weights", "smaller file", "points lost", "verified", "no faster"):
        assert phrase in text
    assert page.locator("svg[role=img][aria-label]").count() == page.locator("svg").count() >= 4
    assert page.locator("section.cards .card").count() >= 5
    cards = page.locator("section.cards").bounding_box()
    assert cards["y"] + cards["height"] < 900, "the summary does not fit one screen"
    lost = page.locator("#no-gain").bounding_box()
    assert lost["y"] + lost["height"] < 900, "what is not gained does not fit the first screen"


def test_encodings_history_and_front_are_drawn_from_the_run(browser, page_file: Path) -> None:
    page = browser.new_page()
    page.goto(page_file.as_uri())
    report = json.loads(page_file.with_name("report.json").read_text(encoding="utf-8"))
    plot = page.get_by_role("img", name="Bytes by encoding")
    spoken = plot.locator("rect title").all_text_contents()
    encodings = {weight["encoding"] for weight in report["weights"]}
    assert {text.split(",")[0] for text in spoken} == encodings
    assert len(spoken) == 2 * len(encodings)
    for kind, total in (("dense", "dense_bytes"), ("encoded", "encoded_bytes")):
        expected = dict.fromkeys(encodings, 0)
        for weight in report["weights"]:
            expected[weight["encoding"]] += weight[total]
        for name, size in expected.items():
            assert any(
                text.startswith(f"{name},") and text.endswith(f"{kind}: {bytes_text(size)}")
                for text in spoken
            )
    course = page.get_by_role("img", name="Course of the search")
    assert course.locator("circle").count() == report["search"]["trials"] == 8
    search = page.get_by_role("img", name="Search: points lost against")
    assert search.locator("circle").count() == 8
    front = search.locator("path.front").get_attribute("d")
    assert front.startswith("M")
    assert "nan" not in front.lower()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_sticks_out_and_text_stands_out(
    browser, page_file: Path, width: int, scheme: str
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.goto(page_file.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ink, paper = page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    levels = [sum(map(int, colour[4:-1].split(","))) / 765 for colour in (ink, paper)]
    assert abs(levels[0] - levels[1]) > 0.6
    assert (levels[1] < 0.5) == (scheme == "dark")


def test_texts_of_plots_are_large_enough_on_a_phone(browser, page_file: Path) -> None:
    page = browser.new_page(viewport={"width": 360, "height": 800})
    page.goto(page_file.as_uri())
    heights = page.eval_on_selector_all(
        "svg text", "texts => texts.map(text => text.getBoundingClientRect().height)"
    )
    assert len(heights) > 20
    assert min(heights) > 9
    unnamed = page.locator(".scroll:not([role=region][aria-label])").count()
    assert unnamed == 0, "what scrolls can be reached by keyboard, and has a name"


def column(page, number: int) -> list[str]:
    return page.locator(f"#table tbody tr:visible td:nth-child({number})").all_inner_texts()


def test_the_table_sorts_by_every_heading_with_the_keyboard(browser, page_file: Path) -> None:
    page = browser.new_page()
    page.goto(page_file.as_uri())
    names = column(page, 1)
    assert names == ["fc1.weight", "fc2.weight", "fc3.weight"]
    heading = page.get_by_role("columnheader", name="elements")
    heading.get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"
    assert column(page, 1) == names
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"
    assert column(page, 4) == ["1,000", "30,000", "235,200"]
    page.get_by_role("columnheader", name="weight").get_by_role("button").click()
    assert heading.get_attribute("aria-sort") is None
    assert column(page, 1) == names


def test_the_table_filters_and_says_how_much_is_shown(browser, page_file: Path) -> None:
    page = browser.new_page()
    page.goto(page_file.as_uri())
    page.get_by_label("Show weights that contain").fill("FC2 gemm")
    assert column(page, 1) == ["fc2.weight"]
    assert page.locator("#shown").inner_text() == "1 of 3 shown"
    page.get_by_label("Show weights that contain").fill("nothing like it")
    assert column(page, 1) == []
    page.get_by_label("Show weights that contain").fill("")
    assert page.locator("#shown").inner_text() == "3 of 3 shown"


def test_on_paper_there_are_no_controls_and_nothing_is_cut(browser, page_file: Path) -> None:
    page = browser.new_page(viewport={"width": 720, "height": 1000})
    page.emulate_media(media="print")
    page.goto(page_file.as_uri())
    assert not page.locator(".tools").is_visible()
    table, scroll = (page.locator(s).bounding_box() for s in ("#table", "main"))
    assert table["width"] <= scroll["width"] + 1
