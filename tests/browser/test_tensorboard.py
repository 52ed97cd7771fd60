"""What TensorBoard shows of two runs, in a browser."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from playwright.sync_api import Browser, Locator, Page, expect
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pgtoolkit.training.dashboard import Chart, layout

LIMIT = 120.0
"""Seconds until a condition must hold; on an idle machine each does within a few."""

WITHOUT_DATA = {"share of saturated actions"}
"""Charts of tags that the runs do not have: LQG's actions have no bounds."""

HAS_POINTS = """chart => {
    const area = chart.getBoundingClientRect();
    const points = (chart.shadowRoot ?? chart).querySelectorAll(".scatter-plot path");
    return [...points].map(point => point.getBoundingClientRect()).some(
        box => area.left < box.left && box.right < area.right
            && area.top < box.top && box.bottom < area.bottom
    );
}"""
"""Whether a point of a chart lies within it."""


def wait_for(found: Callable[[], Any]) -> Any:
    """The first value that is true.

    Raises:
        TimeoutError: there was none in time.
    """
    end = time.monotonic() + LIMIT
    while not (value := found()):
        if time.monotonic() > end:
            raise TimeoutError(f"{found} is still {value!r}")
        time.sleep(0.1)
    return value


@pytest.fixture(scope="module")
def tensorboard(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a TensorBoard that has read the runs to their ends."""
    log = tmp_path_factory.mktemp("tensorboard") / "log"
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(runs), "--port", "0"]
    command += ["--host", "127.0.0.1", "--load_fast", "false"]
    with (
        log.open("w", encoding="utf-8") as file,
        subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT) as process,
    ):
        try:
            url = wait_for(lambda: address(log, process))
            for run in ("shac", "reppo"):
                wait_for(partial(has_read, url, run))
            yield url
        finally:
            process.terminate()


def address(log: Path, process: subprocess.Popen[bytes]) -> str:
    """What TensorBoard says that its address is; empty before it does."""
    text = log.read_text(encoding="utf-8")
    assert process.poll() is None, text
    found = re.search(r"http://127\.0\.0\.1:\d+/", text)
    return found[0] if found else ""


def has_read(url: str, run: str) -> bool:
    """Whether TensorBoard has the run's last text, which is written after all scalars."""
    try:
        with urlopen(f"{url}data/plugin/text/text?run={run}&tag=diagnosis") as answer:
            return any(row["step"] == 960 for row in json.load(answer))
    except (URLError, ValueError):  # it has not read that run yet
        return False


@pytest.fixture
def page(browser: Browser, tensorboard: str) -> Iterator[Page]:
    with browser.new_page(viewport={"width": 1400, "height": 1000}) as found:
        found.set_default_timeout(1000 * LIMIT)
        yield found


def scalars(run: Path) -> set[str]:
    events: Any = EventAccumulator(str(run))
    events.Reload()
    return set(events.Tags()["scalars"])


def in_shown_order(charts: dict[str, Chart]) -> list[str]:
    """TensorBoard puts margin charts behind the others, and the last of them first."""
    lines = [title for title, (kind, _) in charts.items() if kind == "Multiline"]
    return [*lines, *(title for title in reversed(charts) if title not in lines)]


def has_data(chart: Chart, tags: set[str]) -> bool:
    kind, wanted = chart
    if kind == "Margin":
        return tags.issuperset(wanted)
    return any(re.fullmatch(pattern, tag) for pattern in wanted for tag in tags)


def charts_of(group: Locator) -> Locator:
    kinds = ("multi-line-chart", "margin-chart")
    return group.locator(", ".join(f"tf-custom-scalar-{kind}-card" for kind in kinds))


def test_the_page_of_charts_answers_the_questions_in_order(
    page: Page, tensorboard: str, runs: Path
) -> None:
    """Every group and chart is there in its place, and each whose tags a run has shows points."""
    page.goto(f"{tensorboard}#custom_scalars")
    groups, expected = page.locator("tf-category-paginated-view"), layout(has_critic=True)
    expect(groups.locator(".category-name")).to_have_text(list(expected), timeout=1000 * LIMIT)
    assert charts_of(groups.last).count() == 0, "it is closed"
    groups.last.locator(".category-name").click()
    tags, empty = scalars(runs / "shac") | scalars(runs / "reppo"), set()
    for index, charts in enumerate(expected.values()):
        cards, titles = charts_of(groups.nth(index)), in_shown_order(charts)
        headings = cards.locator("tf-card-heading .heading-label")
        expect(headings).to_have_text(titles, timeout=1000 * LIMIT)
        for place, title in enumerate(titles):
            if has_data(charts[title], tags):
                drawing = cards.nth(place).locator("vz-line-chart2").element_handle()
                page.wait_for_function(HAS_POINTS, arg=drawing)
            else:
                empty.add(title)
    assert empty == WITHOUT_DATA


def test_the_text_tab_has_each_runs_gradient_and_findings(
    page: Page, tensorboard: str, runs: Path
) -> None:
    """As text, without marks of Markdown."""
    page.goto(f"{tensorboard}#text")
    for run in ("shac", "reppo"):
        summary = json.loads((runs / run / "summary.json").read_text(encoding="utf-8"))
        heading = page.locator("tf-card-heading", has_text="tag: diagnosis").filter(
            has=page.locator("#heading-run", has_text=run)
        )
        loader = page.locator("tf-text-loader").filter(has=heading)
        text = loader.locator("#steps-container tf-markdown-view").first
        expect(text).to_contain_text(f"Gradient: {summary['gradient']}", timeout=1000 * LIMIT)
        for finding in summary["diagnosis"]:
            expect(text).to_contain_text(finding["sentence"])
        assert not re.search(r"\*\*|`|<", text.inner_text())
