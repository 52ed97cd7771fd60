"""Anti-aliased drawing of segments, discs and rings in world coordinates.

A shape is drawn by the signed distance of each pixel from its outline.
"""

import dataclasses
from typing import final

import numpy as np
from numpy.typing import NDArray

Point = tuple[float, float]
Colour = tuple[int, int, int]

BACKGROUND: Colour = (250, 250, 252)
DARK: Colour = (45, 52, 66)
LIGHT: Colour = (214, 219, 228)
BLUE: Colour = (52, 120, 200)
RED: Colour = (214, 73, 62)
GREEN: Colour = (60, 160, 110)


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Canvas:
    """A square picture of the world from ``-extent`` to ``extent`` on both axes, y upwards.

    Drawing functions return a new canvas.
    """

    pixels: NDArray[np.float64]
    """``[size, size, 3]`` from 0 to 255."""
    extent: float

    def rgb(self) -> NDArray[np.uint8]:
        """The picture ``[size, size, 3]``, rounded to bytes."""
        return np.round(self.pixels).astype(np.uint8)


def blank(size: int = 256, extent: float = 1.0, colour: Colour = BACKGROUND) -> Canvas:
    """An empty canvas of ``size`` pixels a side."""
    return Canvas(np.broadcast_to(np.asarray(colour, np.float64), (size, size, 3)), extent)


def segment(on: Canvas, start: Point, end: Point, width: float, colour: Colour) -> Canvas:
    """Draws a line with round ends."""
    x, y = _grid(on)
    along = np.subtract(end, start)
    length_squared = max(float(along @ along), 1e-12)
    from_x, from_y = x - start[0], y - start[1]
    position = np.clip((from_x * along[0] + from_y * along[1]) / length_squared, 0.0, 1.0)
    distance = np.hypot(from_x - position * along[0], from_y - position * along[1])
    return _paint(on, distance - width / 2, colour)


def disc(on: Canvas, centre: Point, radius: float, colour: Colour) -> Canvas:
    """Draws a filled circle."""
    x, y = _grid(on)
    return _paint(on, np.hypot(x - centre[0], y - centre[1]) - radius, colour)


def ring(on: Canvas, centre: Point, radius: float, width: float, colour: Colour) -> Canvas:
    """Draws a circle's outline."""
    x, y = _grid(on)
    from_outline = np.abs(np.hypot(x - centre[0], y - centre[1]) - radius)
    return _paint(on, from_outline - width / 2, colour)


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """The colour at ``share``, clamped to [0, 1], of the way from the first to the second."""
    weight = min(max(share, 0.0), 1.0)
    r, g, b = (round((1 - weight) * a + weight * c) for a, c in zip(first, second, strict=True))
    return r, g, b


def _grid(on: Canvas) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The world coordinates of the pixels' centres, x ``[1, size]`` and y ``[size, 1]``."""
    size = on.pixels.shape[0]
    centres = ((np.arange(size) + 0.5) / size * 2 - 1) * on.extent
    return centres[None, :], -centres[:, None]


def _paint(on: Canvas, distance: NDArray[np.float64], colour: Colour) -> Canvas:
    """Blends the colour into the pixels inside a shape, over a border one pixel wide.

    Args:
        on: the canvas.
        distance: ``[size, size]`` distances from the shape's outline in world units, negative
            inside.
        colour: the shape's colour.
    """
    pixel = 2 * on.extent / on.pixels.shape[0]
    cover = np.clip(0.5 - distance / pixel, 0.0, 1.0)[..., None]
    return Canvas(on.pixels * (1 - cover) + np.asarray(colour, np.float64) * cover, on.extent)
