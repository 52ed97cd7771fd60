"""A line chart as inline SVG; colours are classes of the page's style sheet."""

import html
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from pgtoolkit.formatting import format_number, nice_step

Array = NDArray[np.float64]

Scale = Literal["linear", "log"]

WIDTH, HEIGHT = 440, 250
LEFT, RIGHT, TOP, BOTTOM = 58, 20, 10, 34
"""Margins around the area of the lines, in the unit of ``WIDTH``. Half of ``300k`` is to the right
of the area, in the larger letters of a narrow window too."""

MAX_POINTS = 400
"""Points of a line; of a longer one the least and the greatest of each stretch are drawn."""

DOTTED_POINTS = 12
"""A line of so many points or fewer has a dot at each."""

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@final
class Line(NamedTuple):
    """One line of a chart."""

    label: str
    style: str
    """Class of the style sheet, such as ``c0``."""
    x: Array
    y: Array
    low: Array
    """Lower end of the interval at each point; NaN where there is none."""
    high: Array


@final
class Chart(NamedTuple):
    """One quantity of runs over environment steps."""

    title: str
    note: str
    """What is good and what is bad; empty where that goes without saying."""
    lines: Sequence[Line]
    scale: Scale = "linear"
    references: Sequence[tuple[float, str]] = ()
    """Values that are marked by a horizontal line, with its text."""


def chart_svg(chart: Chart, steps: float, x_label: str = "environment steps") -> str:
    """The chart as an SVG element.

    Args:
        chart: at least one of its lines has a value. On the scale ``log`` values are their log10.
        steps: the greatest number of steps of all charts, which have one range.
        x_label: what is counted.
    """
    known = [line for line in chart.lines if np.isfinite(line.y).any()]
    ys = np.concatenate([a for line in known for a in (line.y, line.low, line.high)])
    marks = np.array([value for value, _ in chart.references])
    x_range = 0.0, rounded_up(steps)
    y_range = limits(np.concatenate([ys[np.isfinite(ys)], marks]), chart.scale)
    area = Area(x_range, y_range)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escaped(chart.title)}">',
        *_grid(area, chart.scale, x_label),
        *(_reference(area, value, text) for value, text in chart.references),
        *(_band(area, line) for line in known),
        *(_line(area, line) for line in known),
        "</svg>",
    ]
    return "\n".join(part for part in parts if part)


@final
class Area(NamedTuple):
    """The area of the lines, and the values at its edges."""

    x: tuple[float, float]
    y: tuple[float, float]

    def at_x(self, value: float) -> float:
        share = (value - self.x[0]) / (self.x[1] - self.x[0])
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def at_y(self, value: float) -> float:
        share = (value - self.y[0]) / (self.y[1] - self.y[0])
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    def point(self, x: float, y: float) -> str:
        return f"{self.at_x(x):.1f},{self.at_y(y):.1f}"


def rounded_up(steps: float) -> float:
    """The end of the x axis: the next tick, where that is not far."""
    if steps <= 0:
        return 1.0
    ticks = nice_ticks(0.0, 1.06 * steps, 4)
    return max(steps, ticks[-1])


def padded(low: float, high: float, share: float) -> tuple[float, float]:
    """The range, widened by a share of it; one of no width gets the width of its value, or 1."""
    width = high - low
    if width <= 0:
        width = abs(high) or 1.0
        return low - width / 2, high + width / 2
    return low - share * width, high + share * width


def limits(values: Array, scale: Scale) -> tuple[float, float]:
    """The range of the y axis; a logarithmic one has whole decades in it."""
    low, high = float(values.min()), float(values.max())
    if scale == "log" and math.floor(high) - math.ceil(low) < 1:
        return math.floor(low), math.ceil(high) if math.ceil(high) > low else math.floor(low) + 1
    return padded(low, high, 0.05)


def nice_ticks(low: float, high: float, count: int) -> list[float]:
    """About so many multiples of 1, 2 or 5 times a power of ten between two values."""
    step = nice_step(high - low, count)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def tick_text(value: float, scale: Scale) -> str:
    """``10⁻³`` on a logarithmic axis; ``50k``, ``1.5M`` or a number on a linear one."""
    if scale == "log":
        return f"10{str(round(value)).translate(SUPERSCRIPTS)}"
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 10 * unit or (abs(value) >= unit and (value / unit * 10).is_integer()):
            return f"{value / unit:g}{letter}"
    return format_number(value) if value else "0"


def _grid(area: Area, scale: Scale, x_label: str) -> list[str]:
    """Grid lines and the numbers at them."""
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    ticks = nice_ticks(*area.y, 5)
    if scale == "log":
        step = max(1, math.ceil((area.y[1] - area.y[0]) / 6))
        decades = range(math.ceil(area.y[0]), math.floor(area.y[1]) + 1)
        ticks = [float(d) for d in decades if d % step == 0] or [float(d) for d in decades]
    parts = []
    for value in ticks:
        y = area.at_y(value)
        text = tick_text(value, scale)
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    for value in nice_ticks(*area.x, 4):
        x = area.at_x(value)
        parts.append(
            f'<text x="{x:.1f}" y="{bottom + 15}" text-anchor="middle">'
            f"{tick_text(value, 'linear')}</text>"
        )
    parts.append(f'<line class="axis" x1="{LEFT}" y1="{bottom}" x2="{right}" y2="{bottom}"/>')
    middle = (LEFT + right) / 2
    label = escaped(x_label)
    parts.append(f'<text x="{middle}" y="{HEIGHT - 4}" text-anchor="middle">{label}</text>')
    return parts


def _reference(area: Area, value: float, text: str) -> str:
    y = area.at_y(value)
    return (
        f'<line class="mark" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>'
        f'<text class="mark" x="{WIDTH - RIGHT}" y="{y - 4:.1f}" text-anchor="end">'
        f"{escaped(text)}</text>"
    )


def _band(area: Area, line: Line) -> str:
    """The interval, where both ends are known at neighbouring points."""
    known = np.isfinite(line.low) & np.isfinite(line.high)
    parts = []
    for stretch in _stretches(known):
        x, low, high = line.x[stretch], line.low[stretch], line.high[stretch]
        if len(x) == 1:
            ends = f"{area.at_y(low[0]):.1f}", f"{area.at_y(high[0]):.1f}"
            at = f"{area.at_x(x[0]):.1f}"
            parts.append(
                f'<line class="bar {line.style}" x1="{at}" y1="{ends[0]}" x2="{at}" '
                f'y2="{ends[1]}"/>'
            )
            continue
        there = [area.point(*pair) for pair in zip(x, high, strict=True)]
        back = [area.point(*pair) for pair in zip(x[::-1], low[::-1], strict=True)]
        parts.append(f'<polygon class="band {line.style}" points="{" ".join(there + back)}"/>')
    return "".join(parts)


def _line(area: Area, line: Line) -> str:
    """The line, broken where values are missing; points alone where there are few."""
    title = f"<title>{escaped(line.label)}</title>"
    parts = []
    for stretch in _stretches(np.isfinite(line.y)):
        x, y = line.x[stretch], line.y[stretch]
        points = " ".join(area.point(*pair) for pair in zip(*thinned(x, y), strict=True))
        parts.append(f'<polyline class="line {line.style}" points="{points}">{title}</polyline>')
    finite = np.isfinite(line.y)
    if finite.sum() <= DOTTED_POINTS:
        for x, y in zip(line.x[finite], line.y[finite], strict=True):
            at = area.at_x(x), area.at_y(y)
            parts.append(
                f'<circle class="dot {line.style}" cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="2.6">'
                f"{title}</circle>"
            )
    return "".join(parts)


def _stretches(known: NDArray[np.bool_]) -> list[slice]:
    """The stretches of neighbouring points that are known."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], known, [False]]).astype(np.int8)))
    return [slice(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def thinned(x: Array, y: Array) -> tuple[Array, Array]:
    """At most ``MAX_POINTS`` points: of each stretch of equal length the least and the greatest."""
    if len(x) <= MAX_POINTS:
        return x, y
    keep: set[int] = {0, len(x) - 1}
    for part in np.array_split(np.arange(len(x)), MAX_POINTS // 2 - 1):
        keep |= {int(part[y[part].argmin()]), int(part[y[part].argmax()])}
    index = np.array(sorted(keep))
    return x[index], y[index]


def escaped(text: str) -> str:
    """The text for HTML; characters that it cannot hold are shown as escapes."""
    plain = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return html.escape(plain)
