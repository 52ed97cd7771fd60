"""A cart on its track, for the environments that balance something on one."""

import math

from pgtoolkit.envs.rendering import canvas as drawing
from pgtoolkit.envs.rendering.canvas import Canvas, Point

HINGE_HEIGHT = 0.24


def cart_on_track(x: float, extent: float, base: float) -> tuple[Canvas, Point]:
    """The cart at ``x`` on a track with a mark at every half metre, and a green one at 0.

    The view moves along when the cart would leave it.

    Args:
        x: position of the cart, in metres.
        extent: half the width of the picture, in metres.
        base: height of the track in the picture.

    Returns:
        The picture, and the point in it at which the pole is hinged.
    """
    room = extent - 0.6
    view = x - min(max(x, -room), room)
    picture = drawing.canvas(extent=extent)
    picture = drawing.segment(picture, (-extent, base), (extent, base), 0.03, drawing.FAINT)
    for tick in range(math.ceil(2 * (view - extent)), math.floor(2 * (view + extent)) + 1):
        at, colour = tick / 2 - view, drawing.FAINT if tick else drawing.GREEN
        picture = drawing.segment(picture, (at, base - 0.12), (at, base - 0.04), 0.025, colour)
    at = x - view
    for wheel in (at - 0.2, at + 0.2):
        picture = drawing.disc(picture, (wheel, base + 0.08), 0.08, drawing.INK)
    body = base + HINGE_HEIGHT
    picture = drawing.segment(picture, (at - 0.24, body), (at + 0.24, body), 0.2, drawing.INK)
    return picture, (at, body)


def rod(picture: Canvas, start: Point, angle: float, length: float) -> tuple[Canvas, Point]:
    """The picture with a rod at an angle from upright, positive to the right, and its end."""
    end = (start[0] + length * math.sin(angle), start[1] + length * math.cos(angle))
    picture = drawing.segment(picture, start, end, 0.09, drawing.BLUE)
    picture = drawing.disc(picture, start, 0.08, drawing.INK)
    return drawing.disc(picture, start, 0.04, drawing.PAPER), end
