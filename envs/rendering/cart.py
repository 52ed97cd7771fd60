"""A cart on its track, for the environments that balance rods on one."""

import math

from pgtoolkit.envs.rendering import canvas
from pgtoolkit.envs.rendering.canvas import Canvas, Point

HINGE_HEIGHT = 0.24
"""The height of the hinge above the track, in metres."""


def cart_on_track(x: float, extent: float, base: float) -> tuple[Canvas, Point]:
    """Draws the cart at ``x`` on a track with a mark every half metre, the one at 0 in green.

    The view follows the cart when it would leave the picture.

    Args:
        x: position of the cart, in metres.
        extent: half the width of the picture, in metres.
        base: height of the track in the picture.

    Returns:
        The picture, and the position of the hinge in it.
    """
    half_width = extent - 0.6
    view = x - min(max(x, -half_width), half_width)
    picture = canvas.blank(extent=extent)
    picture = canvas.segment(picture, (-extent, base), (extent, base), 0.03, canvas.LIGHT)
    for tick in range(math.ceil(2 * (view - extent)), math.floor(2 * (view + extent)) + 1):
        at, colour = tick / 2 - view, canvas.LIGHT if tick else canvas.GREEN
        picture = canvas.segment(picture, (at, base - 0.12), (at, base - 0.04), 0.025, colour)
    at = x - view
    for wheel in (at - 0.2, at + 0.2):
        picture = canvas.disc(picture, (wheel, base + 0.08), 0.08, canvas.DARK)
    body = base + HINGE_HEIGHT
    picture = canvas.segment(picture, (at - 0.24, body), (at + 0.24, body), 0.2, canvas.DARK)
    return picture, (at, body)


def rod(picture: Canvas, start: Point, angle: float, length: float) -> tuple[Canvas, Point]:
    """Draws a rod at an angle from upright, positive to the right.

    Returns:
        The picture, and the rod's upper end in it.
    """
    end = (start[0] + length * math.sin(angle), start[1] + length * math.cos(angle))
    picture = canvas.segment(picture, start, end, 0.09, canvas.BLUE)
    picture = canvas.disc(picture, start, 0.08, canvas.DARK)
    return canvas.disc(picture, start, 0.04, canvas.BACKGROUND), end
