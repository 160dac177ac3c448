"""The report in a real browser: silent on the console, without requests, within every screen, and readable."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nlptrain.report.write import report
from tests.browser import PATH, Chromium
from tests.report_runs import classification, regression, tagged, write_run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PATH is None, reason="needs Debian's chromium on the PATH: apt-get install chromium"),
]
SCREENS = [(width, dark) for width in (360, 768, 1440) for dark in (False, True)]
# texts of pictures that stick out of them: [picture, text]
CLIPPED = """
[...document.querySelectorAll('svg')].flatMap(svg => {
  const frame = svg.getBoundingClientRect();
  return [...svg.querySelectorAll('text')].filter(text => {
    const box = text.getBoundingClientRect();
    return box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1
      || box.bottom > frame.bottom + 1;
  }).map(text => [svg.querySelector('title').textContent, text.textContent]);
})
"""
# numbers along an axis that cover each other
COVERED = """
[...document.querySelectorAll('svg')].flatMap(svg => {
  const boxes = [...svg.querySelectorAll('text')].map(text => [text.textContent, text.getBoundingClientRect()]);
  return boxes.flatMap(([one, a], at) => boxes.slice(at + 1).filter(([, b]) =>
    a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 4 && b.top < a.bottom - 4
  ).map(([other]) => [svg.querySelector('title').textContent, one, other]));
})
"""
# the smallest letters, in pixels of the screen
SMALLEST = """
Math.min(...[...document.querySelectorAll('svg')].filter(svg => svg.getBoundingClientRect().width)
  .map(svg => 12 * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width))
"""
# WCAG contrast of every text with what is behind it: the lowest, and whose it is
CONTRAST = """
(() => {
  const numbers = color => color.match(/[\\d.]+/g).map(Number);
  const linear = v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => .2126 * linear(r / 255) + .7152 * linear(g / 255) + .0722 * linear(b / 255);
  const behind = element => {
    for (let one = element; one; one = one.parentElement) {
      const color = numbers(getComputedStyle(one).backgroundColor);
      if (color.length < 4 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  const texts = 'p, a, th, td, summary, h1, h2, figcaption, caption, code, svg text';
  const found = [...document.querySelectorAll(texts)].map(one => {
    const style = getComputedStyle(one), ink = numbers(one.closest('svg') ? style.fill : style.color);
    const [high, low] = [light(ink), light(behind(one))].sort((a, b) => b - a);
    return [(high + .05) / (low + .05), one.textContent.slice(0, 40)];
  });
  return found.sort((a, b) => a[0] - b[0])[0];
})()
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("profile")) as chromium:
        yield chromium


def many_classes(folder: Path) -> Path:
    names = ["WWWWWWWWWWWWWWWWWWWWW", "漢字漢字漢字漢字漢字", "لا إله", *(f"a class of its own {n}" for n in range(15))]
    labels = [n % 18 for n in range(180)]
    logits = [[3.0 * (k == (label if n % 3 else 0)) for k in range(18)] for n, label in enumerate(labels)]
    return write_run(folder, [f"{'x' * 300} {n}" for n in range(180)], labels, logits, names=names)


MAKE: dict[str, Any] = {
    "classification": classification,
    "regression": regression,
    "tags": tagged,
    "many rows": lambda folder: regression(folder, 3000),
    "many classes": many_classes,
}


@pytest.fixture(scope="module", params=list(MAKE))
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = MAKE[request.param](tmp_path_factory.mktemp("runs") / "run")
    return Path(report([run])["html"])


@pytest.mark.parametrize(("width", "dark"), SCREENS)
def test_the_page_is_silent_asks_for_nothing_and_fits(
    browser: Chromium, page: Path, width: int, dark: bool, tmp_path: Path
) -> None:
    browser.open(page, width, dark=dark)
    picture = tmp_path / "page.png"
    browser.screenshot(picture)
    assert picture.stat().st_size > 10_000
    assert browser.said == []
    assert browser.asked == [page.resolve().as_uri()]
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate(CLIPPED) == []
    assert browser.evaluate(COVERED) == []
    assert browser.evaluate(SMALLEST) >= 11
    lowest, text = browser.evaluate(CONTRAST)
    assert lowest >= 4.5, text


def test_the_style_applies_and_hostile_rows_are_inert(browser: Chromium, tmp_path: Path) -> None:
    page = Path(report([classification(tmp_path / "run")])["html"])
    browser.open(page)
    assert browser.evaluate("getComputedStyle(document.body).maxWidth") == "1120px"
    assert browser.evaluate("document.querySelectorAll('script, img, [onerror], [onload], b').length") == 0
    assert browser.evaluate("document.querySelector('main').innerText.includes('<script>alert(1)</script>')")


def test_a_page_that_is_tampered_with_runs_nothing_and_this_test_would_see_it(
    browser: Chromium, tmp_path: Path
) -> None:
    text = Path(report([classification(tmp_path / "run")])["html"]).read_text("utf-8")
    page = tmp_path / "tampered.html"
    page.write_text(
        text.replace("<main", "<script>document.title = 'run'</script><img src='http://a.example/x'><main"), "utf-8"
    )
    browser.open(page)
    assert browser.evaluate("document.title") != "run"
    assert len(browser.said) >= 2


def test_every_part_is_reached_by_keyboard(browser: Chromium, tmp_path: Path) -> None:
    browser.open(Path(report([regression(tmp_path / "run")])["html"]))
    browser.press("Tab")
    assert browser.evaluate("document.activeElement.className") == "skip"
    browser.press("Enter")
    assert browser.evaluate("document.activeElement.id") == "main"
    for _ in range(3):
        browser.press("Tab")
    reached = [browser.evaluate("document.activeElement.tagName")]
    browser.evaluate("document.querySelector('figure summary').focus()")
    browser.press("Enter")
    assert browser.evaluate("document.querySelector('figure details').open")
    assert reached[0] in ("DIV", "SUMMARY", "PRE")
