"""Small line charts over the steps of a window, as RGB arrays: need Pillow only."""

import functools
import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pgtoolkit.estimators.catalogue import CATALOGUE, rgb
from pgtoolkit.formatting import format_number, nice_step

WIDTH, HEIGHT = 800, 560

LEFT, RIGHT, TOP, BOTTOM = 128, 28, 96, 88

COLOURS = {name: rgb(estimator.colour) for name, estimator in CATALOGUE.items()}

Font = ImageFont.ImageFont | ImageFont.FreeTypeFont

COLOURS_OF_A_CHART = 64
"""Colours with which its lines and letters look smooth."""

TEXT, GRID, BACKGROUND = (60, 60, 60), (225, 225, 225), (255, 255, 255)


def step_chart(curves: Mapping[str, Sequence[float]], *, title: str) -> np.ndarray:
    """Draws curves over steps 1..T on a log axis; ``[H, W, 3]`` uint8. Zeros are left out."""
    positive = [v for curve in curves.values() for v in curve if v > 0 and math.isfinite(v)]
    low, high = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)))
    high = max(high, low + 1)
    ticks = range(low, high + 1, max(1, math.ceil((high - low) / 8)))
    logs = {
        name: [math.log10(value) if value > 0 else math.nan for value in curve]
        for name, curve in curves.items()
    }
    return _chart(logs, {tick: f"1e{tick}" for tick in ticks}, (low, high), title)


def linear_step_chart(
    curves: Mapping[str, Sequence[float]], *, title: str, ends: tuple[float, float] | None = None
) -> np.ndarray:
    """Draws curves of either sign over steps 1..T on a linear axis; ``[H, W, 3]`` uint8.

    Args:
        curves: by label.
        title: above the chart.
        ends: of the axis. By default those of the curves and 0, rounded outwards to ticks.
    """
    finite = [v for curve in curves.values() for v in curve if math.isfinite(v)]
    low, high = ends or (min(0.0, *finite), max(0.0, *finite))
    step = nice_step((high - low) or 1.0, 4)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = [i * step for i in range(first, max(last, first + 1) + 1)]
    labels = {tick: format_number(tick, 2) for tick in ticks}
    return _chart(curves, labels, (ticks[0], ticks[-1]), title)


def png(image: np.ndarray) -> bytes:
    """A chart ``[H, W, 3]`` as an encoded picture, with as many colours as one has."""
    file = io.BytesIO()
    few = Image.fromarray(image).quantize(COLOURS_OF_A_CHART, Image.Quantize.FASTOCTREE)
    few.save(file, "PNG", compress_level=1)
    return file.getvalue()


def _chart(
    curves: Mapping[str, Sequence[float]],
    ticks: Mapping[float, str],
    ends: tuple[float, float],
    title: str,
) -> np.ndarray:
    """Curves over steps 1..T on an axis with labelled ticks; what is not finite is left out."""
    steps = max(len(curve) for curve in curves.values())
    image = Image.new("RGB", (WIDTH, HEIGHT), BACKGROUND)
    draw, font = ImageDraw.Draw(image), _font()
    _draw_axes(draw, font, ticks, ends, steps)
    draw.text((16, 12), title, TEXT, font)
    offset = 16
    for name, curve in curves.items():
        colour = COLOURS.get(name, TEXT)
        points = [
            (_x(t, steps), _y(value, *ends))
            for t, value in enumerate(curve)
            if math.isfinite(value)
        ]
        draw.line(points, colour, 4, joint="curve")
        label = CATALOGUE[name].label if name in CATALOGUE else name
        draw.text((offset, 50), label, colour, font)
        offset += int(draw.textlength(label, font)) + 48
    return np.asarray(image)


@functools.cache
def _font() -> Font:
    return ImageFont.load_default(26)


def _x(step: int, steps: int) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * step / max(steps - 1, 1)


def _y(value: float, low: float, high: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / (high - low)


def _draw_axes(
    draw: ImageDraw.ImageDraw,
    font: Font,
    ticks: Mapping[float, str],
    ends: tuple[float, float],
    steps: int,
) -> None:
    for tick, label in ticks.items():
        y = _y(tick, *ends)
        draw.line([(LEFT, y), (WIDTH - RIGHT, y)], GRID, 2)
        draw.text((LEFT - 16, y), label, TEXT, font, anchor="rm")
    for step in range(0, steps, max(1, math.ceil(steps / 8))):
        draw.text((_x(step, steps), HEIGHT - BOTTOM + 12), str(step + 1), TEXT, font, anchor="mt")
    draw.text(
        ((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 20), "step of the window", TEXT, font, anchor="mb"
    )
