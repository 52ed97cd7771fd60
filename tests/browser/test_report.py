"""`pgtoolkit report`'s page in a browser."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, ViewportSize

from pgtoolkit.scripts.reporting.page import page as report
from pgtoolkit.scripts.reporting.runs import Run, read_experiments

BRIGHTNESS = """property => {
    const [red, green, blue] = getComputedStyle(document.body)[property].match(/\\d+/g);
    return (0.3 * red + 0.59 * green + 0.11 * blue) / 255;
}"""

CUT_OFF = """() => [...document.querySelectorAll("svg text")].filter(text => {
    const [box, area] = [text, text.ownerSVGElement].map(x => x.getBoundingClientRect());
    return box.left < area.left || box.right > area.right || box.top < area.top;
}).map(text => text.textContent)"""
"""Labels of charts that reach over the edge of their picture."""


@pytest.fixture(scope="module")
def file(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the runs, with the long labels of 149,760 steps and long names of folders."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    experiments = read_experiments([str(runs / "shac"), str(runs / "reppo")])
    text = report([replace(e, runs=[stretched(run, 156) for run in e.runs]) for e in experiments])
    path.write_text(text, encoding="utf-8")
    return path


def stretched(run: Run, factor: int) -> Run:
    """The run with so many times its steps, in a folder whose name is as much longer."""
    scalars = {
        tag: ([factor * step for step in steps], values)
        for tag, (steps, values) in run.scalars.items()
    }
    summary = dict(run.summary or {})
    summary["steps"] *= factor
    return replace(run, path=run.path / ("x" * factor), scalars=scalars, summary=summary)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 900, 1400])
def test_a_report_is_whole_at_every_width_and_loads_nothing(
    scheme: Literal["light", "dark"], width: int, browser: Browser, file: Path
) -> None:
    """No request but the file, no message, no scrolling to the side, no label cut off."""
    size = ViewportSize(width=width, height=1000)
    with browser.new_context(offline=True, color_scheme=scheme, viewport=size) as context:
        page, requests, messages = context.new_page(), [], []
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.goto(file.as_uri())
        assert (requests, messages) == ([file.as_uri()], [])
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("svg").count() >= 10
        assert page.evaluate(CUT_OFF) == []
        ground, ink = (page.evaluate(BRIGHTNESS, name) for name in ("backgroundColor", "color"))
        assert (ground > ink) == (scheme == "light") and abs(ground - ink) > 0.7
