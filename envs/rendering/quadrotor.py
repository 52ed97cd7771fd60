"""A quadrotor in perspective, drawn with flat shapes."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pgtoolkit.envs.rendering import canvas
from pgtoolkit.envs.rendering.canvas import Canvas, Colour, Point

Vector = NDArray[np.float64]

CAMERA_DISTANCE, AZIMUTH, ELEVATION = 6.0, math.radians(-60.0), math.radians(25.0)
"""The camera's position seen from the origin, at which it looks, in m and rad."""
GROUND_HEIGHT, HALF_FLOOR, TILE_SIZE = -1.3, 1.25, 0.5
"""The height of the floor, half its width, and the distance of its lines, in m."""
VIEW_HALF_WIDTH = 1.2
"""The view follows a quadrotor that is further than this from the origin, in m."""
POLE_COLOUR: Colour = (176, 208, 190)


def draw_quadrotor(
    position: Sequence[float], rotation: Sequence[Sequence[float]], arm: float
) -> NDArray[np.uint8]:
    """The quadrotor over a tiled floor, its shadow, and the target at the origin as a green ring.

    The view follows the quadrotor when it would leave the picture.

    Args:
        position: the centre's coordinates, in metres.
        rotation: the rotation matrix, by rows, from body axes to the world's.
        arm: the rotors are at ``(±arm, ±arm)`` in body axes, the first two in front, in metres.
    """
    centre, turn = np.asarray(position), np.asarray(rotation)
    view = centre - np.clip(centre, -VIEW_HALF_WIDTH, VIEW_HALF_WIDTH)
    picture = _floor(canvas.blank(extent=1.8), view)
    shadow = project(np.array([centre[0], centre[1], GROUND_HEIGHT]) - view)[0]
    picture = canvas.disc(picture, shadow, 0.12, canvas.LIGHT)
    target, foot = project(-view)[0], project(np.array([0.0, 0.0, GROUND_HEIGHT]) - view)[0]
    picture = canvas.segment(picture, target, foot, 0.012, POLE_COLOUR)
    picture = canvas.ring(picture, target, 0.12, 0.035, canvas.GREEN)
    return _body(picture, centre - view, turn, arm).rgb()


def project(point: Vector) -> tuple[Point, float]:
    """A world point's position in the picture, and the scale of perspective there.

    The camera looks at the origin. A point at or behind it is drawn as if just in front of it.
    """
    sideways = np.array([-math.sin(AZIMUTH), math.cos(AZIMUTH), 0.0])
    level = math.cos(ELEVATION)
    towards = np.array([level * math.cos(AZIMUTH), level * math.sin(AZIMUTH), math.sin(ELEVATION)])
    upwards = np.cross(towards, sideways)
    scale = CAMERA_DISTANCE / max(CAMERA_DISTANCE - float(point @ towards), 0.2)
    return (scale * float(point @ sideways), scale * float(point @ upwards)), scale


def _floor(picture: Canvas, view: Vector) -> Canvas:
    """Draws the floor's lines, which are fixed in the world while the view moves."""
    height = GROUND_HEIGHT - view[2]
    for axis in (0, 1):
        first = math.ceil((view[axis] - HALF_FLOOR) / TILE_SIZE)
        last = math.floor((view[axis] + HALF_FLOOR) / TILE_SIZE)
        for number in range(first, last + 1):
            ends = np.full((2, 3), height)
            ends[:, axis], ends[:, 1 - axis] = (
                number * TILE_SIZE - view[axis],
                (-HALF_FLOOR, HALF_FLOOR),
            )
            start, end = project(ends[0])[0], project(ends[1])[0]
            picture = canvas.segment(picture, start, end, 0.012, canvas.LIGHT)
    return picture


def _body(picture: Canvas, centre: Vector, turn: Vector, arm: float) -> Canvas:
    """Draws the four arms and their rotors, the front two in red."""
    hubs = [centre + arm * turn @ [x, y, 0.0] for x, y in ((1, 1), (1, -1), (-1, 1), (-1, -1))]
    colours = [canvas.RED, canvas.RED, canvas.BLUE, canvas.BLUE]
    middle, near = project(centre)
    for hub in hubs:
        picture = canvas.segment(picture, middle, project(hub)[0], 0.06 * near, canvas.DARK)
    picture = canvas.disc(picture, middle, 0.09 * near, canvas.DARK)
    # From the farthest rotor to the nearest, because the near ones cover the far ones.
    for hub, colour in sorted(
        zip(hubs, colours, strict=True), key=lambda pair: project(pair[0])[1]
    ):
        picture = _rotor(picture, hub, turn, 0.75 * arm, colour)
    return picture


def _rotor(picture: Canvas, hub: Vector, turn: Vector, radius: float, colour: Colour) -> Canvas:
    """Draws the circle that the rotor's blades sweep, as a polygon above the arm."""
    top = hub + 0.06 * turn[:, 2]
    rim = [
        project(top + radius * turn @ [math.cos(angle), math.sin(angle), 0.0])[0]
        for angle in np.linspace(0.0, 2 * math.pi, 17)
    ]
    picture = canvas.segment(picture, project(hub)[0], project(top)[0], 0.03, canvas.DARK)
    for start, end in itertools.pairwise(rim):
        picture = canvas.segment(picture, start, end, 0.035, colour)
    return canvas.disc(picture, project(top)[0], 0.03, colour)
