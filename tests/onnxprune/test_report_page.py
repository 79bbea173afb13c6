"""The report page in a real browser: nothing fetched, nothing broken, readable on a phone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from onnxprune import api
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
