"""The report in a real browser: drawn without errors or requests, and readable on a desk and on a phone."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from report_cases import (
    HOSTILE,
    comparison_document,
    dossier_document,
    probe_document,
    run_document,
    sweep_document,
)

from recbole_fair.report.html import write_report

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]


def _program(*names: str) -> str:
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        message = f"{names[0]} is not installed"
        if os.environ.get("CI"):
            pytest.fail(f"{message}, and this test must run here")
        pytest.skip(f"{message}: apt-get install chromium chromium-driver")
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium, chromedriver = _program("chromium", "chromium-browser", "google-chrome"), _program("chromedriver")
    webdriver = pytest.importorskip("selenium.webdriver") if not os.environ.get("CI") else _webdriver()
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(chromedriver))
    yield driver
    driver.quit()


def _webdriver() -> Any:
    from selenium import webdriver

    return webdriver


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    run = run_document(notes=[HOSTILE])
    contents = [run, sweep_document(), comparison_document(), dossier_document(title=HOSTILE), probe_document()]
    for number, content in enumerate(contents):
        (folder / f"{number}.json").write_text(json.dumps(content))
    return write_report([folder])


def opened(browser: Any, report: Path, width: int) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(report.as_uri())
    end = time.monotonic() + 90
    while browser.execute_script("return document.documentElement.dataset.ready") != "true":
        assert time.monotonic() < end, browser.get_log("browser")
        time.sleep(0.1)


@pytest.mark.parametrize("width", [1280, 400])
def test_figures_are_drawn_without_errors_and_fit(browser: Any, report: Path, width: int) -> None:
    opened(browser, report, width)
    assert browser.get_log("browser") == []
    state = browser.execute_script("""
        const plots = [...document.querySelectorAll('.plot')];
        const marks = '.cartesianlayer path, .cartesianlayer image';
        const texts = [...document.querySelectorAll('p, li, td, th')];
        const sizes = texts.map(text => parseFloat(getComputedStyle(text).fontSize));
        return {
          plots: plots.length,
          drawn: plots.filter(p => p.dataset.drawn === 'true' && p.querySelector(marks)).length,
          inside: plots.filter(p => p.getBoundingClientRect().right <= window.innerWidth).length,
          page: document.documentElement.scrollWidth,
          window: window.innerWidth,
          text: Math.min(...sizes),
          hit: window.hit === undefined,
        }""")
    assert state["plots"] == state["drawn"] == state["inside"] == 19
    assert state["page"] <= state["window"] == width
    assert state["text"] >= 12
    assert state["hit"]
    requests = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [r["params"]["request"]["url"] for r in requests if r["method"] == "Network.requestWillBeSent"]
    assert report.as_uri() in asked
    assert all(url == report.as_uri() or url.startswith(("data:", "blob:")) for url in asked)


def test_the_buttons_and_the_numbers(browser: Any, report: Path) -> None:
    opened(browser, report, 1280)
    script = "return document.getElementById('sweep-2-0').data.map(trace => trace.x)"
    valid = browser.execute_script(script)
    assert valid[1] == [0.8, 0.7, 0.6]
    browser.execute_script(
        "document.querySelectorAll('#sweep-2-0 .updatemenu-button')[1].dispatchEvent(new MouseEvent('click'))"
    )
    shapes = "return (document.getElementById('sweep-2-0').layout.shapes || []).length"
    end = time.monotonic() + 20
    while browser.execute_script(shapes) and time.monotonic() < end:
        time.sleep(0.1)
    assert browser.execute_script(shapes) == 0  # the bound holds on validation alone
    summary = "document.querySelector('#run-1 details summary')"
    browser.execute_script(f"{summary}.click()")
    assert browser.execute_script(f"return {summary}.parentElement.querySelector('table').offsetHeight") > 40
    assert browser.get_log("browser") == []


def test_the_page_is_small(report: Path) -> None:
    assert report.stat().st_size < 2_000_000
