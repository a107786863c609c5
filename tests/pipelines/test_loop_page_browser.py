"""The page of `churn report` in a real browser: no errors, no requests, accessible, usable on a phone."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.report.loop_page import render
from support.loop_facts import loop_facts

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium or Chrome on PATH")
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("page")
    page = folder / "page.html"
    page.write_text(render(loop_facts(folder)), encoding="utf-8")
    return page.as_uri()


def opened(browser: Any, address: str, width: int, **options: Any) -> tuple[Any, list[str], list[str]]:
    """The page, the browser's messages (errors, refusals of the policy), and every request."""
    page = browser.new_page(viewport={"width": width, "height": 800}, **options)
    messages: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(address)
    return page, messages, requests


@pytest.mark.parametrize("width", [360, 560, 961, 1280])
def test_no_error_no_request_and_nothing_wider_than_the_screen(
    browser: Any, address: str, width: int
) -> None:
    page, messages, requests = opened(browser, address, width)
    assert messages == []
    assert requests == [address]
    for part in page.query_selector_all("details"):
        part.evaluate("part => part.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(_CUT) == []
    page.close()


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser: Any, address: str, width: int, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-core is not installed")
    # axe-core is a script, which the page's own policy refuses
    page, _, _ = opened(browser, address, width, bypass_csp=True, color_scheme=scheme)
    for part in page.query_selector_all("details"):
        part.evaluate("part => part.open = true")
    results = axe.Axe().run(page)
    assert [
        (one["id"], [node["html"] for node in one["nodes"]][:3]) for one in results.response["violations"]
    ] == []
    assert len(results.response["passes"]) > 10
    page.close()


def test_it_says_the_same_without_scripts_and_a_keyboard_reaches_its_parts(
    browser: Any, address: str
) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    assert page.locator("section").count() == 10
    page.locator("summary").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("details").first.get_attribute("open") is not None
    context.close()


def test_texts_of_the_charts_are_large_enough_on_a_phone(browser: Any, address: str) -> None:
    page, _, _ = opened(browser, address, 360)
    heights = page.evaluate(
        "[...document.querySelectorAll('svg text')].map(text => text.getBoundingClientRect().height)"
    )
    assert heights and min(heights) >= 9
    page.close()


def test_the_page_can_be_looked_at(browser: Any, address: str, tmp_path: Path) -> None:
    page, _, _ = opened(browser, address, 360)
    page.screenshot(path=str(tmp_path / "page.png"), full_page=True)
    assert (tmp_path / "page.png").stat().st_size > 20_000
    page.close()


_CUT = """
() => [...document.querySelectorAll('td, th, p, h1, h2, li, caption, figcaption')]
  .filter(part => part.scrollWidth > part.clientWidth + 1 && getComputedStyle(part).overflow !== 'visible')
  .map(part => part.outerHTML.slice(0, 80))
"""
"""The elements whose text is cut off."""
