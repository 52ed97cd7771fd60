"""Unit quaternions ``(w, x, y, z)`` as rotations, with derivatives that are finite everywhere."""

import torch
from torch import Tensor

SERIES_LIMIT = 1e-2
"""Upper limit of the squared half angle for which sine and cosine are computed by their series.

The series below are exact there to the last bit of float64.
"""


def product(left: Tensor, right: Tensor) -> Tensor:
    """Hamilton's product ``[..., 4]``: the rotation by ``right``, followed by that by ``left``."""
    a, b, c, d = left.unbind(-1)
    e, f, g, h = right.unbind(-1)
    return torch.stack(
        [
            a * e - b * f - c * g - d * h,
            a * f + b * e + c * h - d * g,
            a * g - b * h + c * e + d * f,
            a * h + b * g - c * f + d * e,
        ],
        -1,
    )


def exponential(rotation: Tensor) -> Tensor:
    """``(cos h, sin(h) r / |r|)`` with ``h = |r| / 2``: the rotation by the vector ``r``.

    Near 0, where ``|r|`` has no derivative, ``cos h`` and ``sin(h) / h`` are computed by their
    series in ``h^2``.

    Args:
        rotation: ``r`` ``[..., 3]``; its direction is the axis, its length the angle in radians.

    Returns:
        ``[..., 4]`` of unit norm.
    """
    square = (rotation / 2).square().sum(-1, keepdim=True)
    small = square < SERIES_LIMIT
    # The branch that is not chosen must have a finite derivative too: it is multiplied by 0.
    half = torch.sqrt(torch.where(small, torch.ones_like(square), square))
    near_one = 1 - square / 6 * (1 - square / 20 * (1 - square / 42 * (1 - square / 72)))
    near_cosine = 1 - square / 2 * (1 - square / 12 * (1 - square / 30 * (1 - square / 56)))
    scale = torch.where(small, near_one, torch.sin(half) / half)
    cosine = torch.where(small, near_cosine, torch.cos(half))
    return torch.cat([cosine, scale * rotation / 2], -1)


def normalized(q: Tensor) -> Tensor:
    """``q / |q|`` ``[..., 4]``. ``q`` must not be 0."""
    return q / torch.sqrt(q.square().sum(-1, keepdim=True))


def rotation_matrix(q: Tensor) -> Tensor:
    """``R(q)`` ``[..., 3, 3]`` of a unit quaternion: its columns are the rotated axes."""
    w, x, y, z = q.unbind(-1)
    entries = [
        1 - 2 * (y * y + z * z),
        2 * (x * y - w * z),
        2 * (x * z + w * y),
        2 * (x * y + w * z),
        1 - 2 * (x * x + z * z),
        2 * (y * z - w * x),
        2 * (x * z - w * y),
        2 * (y * z + w * x),
        1 - 2 * (x * x + y * y),
    ]
    return torch.stack(entries, -1).view(*q.shape[:-1], 3, 3)


def body_z(q: Tensor) -> Tensor:
    """``R(q) e_z`` ``[..., 3]``, the third column of the rotation matrix."""
    w, x, y, z = q.unbind(-1)
    return torch.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], -1)
