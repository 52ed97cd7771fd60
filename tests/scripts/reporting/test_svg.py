"""Charts as SVG: scales, ticks, and where points lie."""

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from pgtoolkit.scripts.reporting.svg import (
    HEIGHT,
    MAX_POINTS,
    WIDTH,
    Area,
    Chart,
    Line,
    chart_svg,
    limits,
    nice_ticks,
    rounded_up,
    thinned,
    tick_text,
)


def line(x: list[float], y: list[float], **ends: list[float]) -> Line:
    none = [math.nan] * len(x)
    low, high = (np.array(ends.get(end, none), np.float64) for end in ("low", "high"))
    return Line("a <b> & c", "c0", np.array(x, np.float64), np.array(y, np.float64), low, high)


def points_of(svg: str) -> list[tuple[float, float]]:
    """The points of the first line."""
    found = re.search(r'polyline class="line c0" points="([^"]+)"', svg)
    assert found is not None
    return [(float(a), float(b)) for a, b in (p.split(",") for p in found[1].split())]


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.0, 60_000.0, [0, 20_000, 40_000, 60_000]),
        (-1.0, 1.0, [-1, -0.5, 0, 0.5, 1]),
        (0.03, 0.09, [0.04, 0.06, 0.08]),
    ],
)
def test_ticks_are_multiples_of_one_two_and_five(
    low: float, high: float, ticks: list[float]
) -> None:
    assert nice_ticks(low, high, 4) == pytest.approx(ticks)


def test_ticks_are_few_whatever_the_range() -> None:
    generator = np.random.default_rng(0)
    for _ in range(300):
        low = float(generator.normal() * 10.0 ** generator.integers(-9, 9))
        width = float(10.0 ** generator.uniform(-6, 9))
        ticks = nice_ticks(low, low + width, 5)
        assert 1 <= len(ticks) <= 7


def test_numbers_at_ticks() -> None:
    assert [tick_text(v, "linear") for v in (0, 500, 1500, 50_000, 2e6)] == [
        "0",
        "500",
        "1.5k",
        "50k",
        "2M",
    ]
    assert [tick_text(v, "log") for v in (-3, 0, 12)] == ["10⁻³", "10⁰", "10¹²"]


def test_the_axis_of_steps_ends_at_a_near_tick() -> None:
    assert rounded_up(59_392) == 60_000
    assert rounded_up(45_000) == 45_000
    assert rounded_up(0) == 1


def test_a_logarithmic_axis_has_two_decades_at_least() -> None:
    low, high = limits(np.array([1.2, 1.3]), "log")
    assert (low, high) == (1, 2)
    low, high = limits(np.array([-2.0, 3.0]), "log")
    assert low < -2 and high > 3


def test_points_lie_where_the_axes_say() -> None:
    """The least value is lowest; x is proportional to the steps, and inside the picture."""
    points = points_of(chart_svg(Chart("t", "", [line([0, 50, 100], [1, 3, 2])]), 100))
    xs, ys = zip(*points, strict=True)
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.2)
    assert ys[0] > ys[2] > ys[1], "y grows downwards"
    assert (ys[0] - ys[2]) == pytest.approx(ys[2] - ys[1], abs=0.2)
    assert all(0 < x < WIDTH for x in xs) and all(0 < y < HEIGHT for y in ys)


def test_a_reference_is_inside_however_far_the_lines_are() -> None:
    svg = chart_svg(Chart("t", "", [line([1, 2], [0.1, 0.2])], references=[(5.0, "5 & up")]), 2)
    mark = re.search(r'line class="mark" [^>]*y1="([\d.-]+)"', svg)
    assert mark is not None and 0 < float(mark[1]) < HEIGHT
    assert "5 &amp; up" in svg


def test_a_line_is_broken_where_values_are_missing() -> None:
    svg = chart_svg(Chart("t", "", [line([1, 2, 3, 4, 5], [1, 2, math.nan, 4, 5])]), 5)
    assert svg.count("<polyline") == 2


def test_an_interval_is_a_band_or_at_a_lone_point_a_bar() -> None:
    nan = math.nan
    known = line([1, 2, 3, 4], [1, 1, 1, 1], low=[0, 0, nan, 0], high=[2, 2, nan, 3])
    svg = chart_svg(Chart("t", "", [known]), 4)
    assert svg.count("<polygon") == 1 and svg.count('class="bar c0"') == 1


def test_a_long_line_keeps_its_extremes() -> None:
    generator = np.random.default_rng(0)
    x, y = np.arange(100_000.0), generator.normal(size=100_000)
    y[12_345], y[54_321] = 99.0, -99.0
    short_x, short_y = thinned(x, y)
    assert len(short_x) <= MAX_POINTS
    assert short_y.max() == 99.0 and short_y.min() == -99.0
    assert (np.diff(short_x) > 0).all() and (short_x[0], short_x[-1]) == (0, 99_999)


def test_it_is_well_formed_and_escaped() -> None:
    svg = chart_svg(Chart("<t> & 'x' \"y\"", "", [line([1.0], [2.0])]), 1, "steps <n>")
    root = ElementTree.fromstring(svg)
    assert root.attrib["aria-label"] == "<t> & 'x' \"y\""
    assert next(e.text for e in root.iter("title")) == "a <b> & c"


@pytest.mark.parametrize("value", [0.0, 5.0, -3.0, 1e-12, 1e30])
@pytest.mark.parametrize("scale", ["linear", "log"])
def test_a_constant_line_can_be_drawn(value: float, scale: str) -> None:
    svg = chart_svg(Chart("t", "", [line([1, 2], [value, value])], scale), 2)  # type: ignore[arg-type]
    assert "nan" not in svg and "inf" not in svg
    assert all(0 <= y <= HEIGHT for _, y in points_of(svg))


def test_corners_of_the_area() -> None:
    area = Area((0.0, 10.0), (-1.0, 1.0))
    assert area.at_x(10.0) > area.at_x(0.0) and area.at_y(1.0) < area.at_y(-1.0)
