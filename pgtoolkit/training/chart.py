"""A small line chart with a logarithmic axis, as an RGB array: needs Pillow only."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pgtoolkit.estimators.catalogue import CATALOGUE, rgb

WIDTH, HEIGHT = 400, 280

LEFT, RIGHT, TOP, BOTTOM = 48, 14, 48, 44

COLOURS = {name: rgb(estimator.colour) for name, estimator in CATALOGUE.items()}

Font = ImageFont.ImageFont | ImageFont.FreeTypeFont

TEXT, GRID, BACKGROUND = (60, 60, 60), (225, 225, 225), (255, 255, 255)


def step_chart(curves: Mapping[str, Sequence[float]], *, title: str) -> np.ndarray:
    """Draws curves over steps 1..T on a log axis; ``[H, W, 3]`` uint8. Zeros are left out."""
    positive = [v for curve in curves.values() for v in curve if v > 0 and math.isfinite(v)]
    low, high = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)))
    high = max(high, low + 1)
    steps = max(len(curve) for curve in curves.values())
    image = Image.new("RGB", (WIDTH, HEIGHT), BACKGROUND)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(13)
    _draw_axes(draw, font, low, high, steps)
    draw.text((8, 6), title, TEXT, font)
    offset = 8
    for name, curve in curves.items():
        colour = COLOURS.get(name, TEXT)
        points = [
            (_x(t, steps), _y(math.log10(value), low, high))
            for t, value in enumerate(curve)
            if value > 0 and math.isfinite(value)
        ]
        draw.line(points, colour, 2, joint="curve")
        label = CATALOGUE[name].label if name in CATALOGUE else name
        draw.text((offset, 25), label, colour, font)
        offset += int(draw.textlength(label, font)) + 24
    return np.asarray(image)


def _x(step: int, steps: int) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * step / max(steps - 1, 1)


def _y(exponent: float, low: int, high: int) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (exponent - low) / (high - low)


def _draw_axes(draw: ImageDraw.ImageDraw, font: Font, low: int, high: int, steps: int) -> None:
    for exponent in range(low, high + 1, max(1, math.ceil((high - low) / 8))):
        y = _y(exponent, low, high)
        draw.line([(LEFT, y), (WIDTH - RIGHT, y)], GRID)
        draw.text((LEFT - 8, y), f"1e{exponent}", TEXT, font, anchor="rm")
    for step in range(0, steps, max(1, math.ceil(steps / 8))):
        draw.text((_x(step, steps), HEIGHT - BOTTOM + 6), str(step + 1), TEXT, font, anchor="mt")
    draw.text(
        ((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10), "step of the window", TEXT, font, anchor="mb"
    )
