"""The report in a real browser, on a phone and on a desktop: `make test-report`, not part of the default tests.

Screenshots lie in the folder that the environment variable SHOTS names, else in pytest's temporary folder.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from chromium import Chromium

from semcom_gym.benchmarks import cli

ROOT = Path(__file__).parent.parent
SIZES = {"phone": (390, 844), "desktop": (1440, 900)}
FAULTS = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
WIDER = """[...document.querySelectorAll('body *')].filter(e => {
  const box = e.getBoundingClientRect();
  return box.right > innerWidth + 0.5 && !e.closest('.scroll') && !e.closest('svg svg');
}).map(e => e.outerHTML.slice(0, 200))"""
FOUND = "document.querySelectorAll('{}').length"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "index.html"
    assert cli.main(["report", "--results", str(ROOT / "docs" / "results"), "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    found = Chromium(tmp_path_factory.mktemp("chromium"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def shots(tmp_path_factory):
    folder = Path(os.environ["SHOTS"]) if "SHOTS" in os.environ else tmp_path_factory.mktemp("shots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", SIZES)
def test_page_fits_its_window_and_loads_nothing(page, browser, shots, name, scheme):
    width, height = SIZES[name]
    browser.open(page.as_uri(), width, height, scheme)
    assert browser.evaluate("innerWidth") == width
    browser.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    assert browser.evaluate(WIDER) == []
    faults = [event for event in browser.events if event.get("method") in FAULTS]
    assert faults == []
    asked = [e["params"]["request"]["url"] for e in browser.events if e.get("method") == "Network.requestWillBeSent"]
    assert asked == [page.as_uri()]
    length = browser.evaluate("document.documentElement.scrollHeight")
    for place, anchor in enumerate(browser.evaluate("[...document.querySelectorAll('h2[id]')].map(e => e.id)")):
        top = browser.evaluate(f"document.getElementById('{anchor}').getBoundingClientRect().top + scrollY - 20")
        browser.picture(shots / f"{name}_{scheme}_{place}_{anchor}.png", int(top))
    assert length > 10 * height


@pytest.mark.parametrize("name", SIZES)
def test_charts_are_drawn_and_legible(page, browser, name):
    browser.open(page.as_uri(), *SIZES[name])
    browser.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
    assert browser.evaluate(FOUND.format("figure.chart > svg")) > 50
    drawn = "[...document.querySelectorAll('figure.chart > svg')].every(e => e.getBoundingClientRect().height > 100)"
    assert browser.evaluate(drawn)
    small = """[...document.querySelectorAll('figure.chart > svg > text')].map(e => {
      const m = e.getScreenCTM();
      return parseFloat(getComputedStyle(e).fontSize) * Math.hypot(m.a, m.b);
    }).filter(size => size < 9.5)"""
    assert browser.evaluate(small) == []


def test_text_stands_out_from_the_paper(page, browser):
    """Contrast of text and of the colours of the charts to the background, by the rule of WCAG 2."""
    luminance = """(name) => {
      const e = document.createElement('i');
      e.style.color = `var(${name})`; document.body.append(e);
      const c = getComputedStyle(e).color.match(/[0-9.]+/g).slice(0, 3).map(x => x / 255);
      e.remove();
      const [r, g, b] = c.map(x => x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    }"""
    for scheme in ("light", "dark"):
        browser.open(page.as_uri(), *SIZES["desktop"], scheme)
        contrast = """((names) => { const l = %s; const paper = l('--paper');
          return names.map(n => (Math.max(paper, l(n)) + 0.05) / (Math.min(paper, l(n)) + 0.05)); })(%s)"""
        text = browser.evaluate(contrast % (luminance, "['--ink', '--soft', '--link']"))
        colours = browser.evaluate(contrast % (luminance, str([f"--c{k}" for k in range(8)])))
        assert min(text) >= 4.5, (scheme, text)
        assert min(colours) >= 3.0, (scheme, colours)
