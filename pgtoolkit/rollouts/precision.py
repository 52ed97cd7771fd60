"""Observations whose variation is lost when they are rounded to float32."""

import torch
from torch import Tensor

MAX_ROUNDING = 0.05
"""Share of an entry's range from which on its rounding is reported."""

NOISE = 1e-12
"""Range, relative to the largest absolute value, up to which an entry counts as constant: float64
results differ by so much from rounding alone."""


def rounding_sentence(obs: Tensor) -> str:
    """Says which entry of the observations float32 cannot represent; empty if there is none.

    An entry is named if rounding to float32 moves it by 5 % of its range or more.

    Args:
        obs: ``[M, ...]``. Only float64 observations are rounded.
    """
    if obs.dtype != torch.float64 or len(obs) == 0:
        return ""
    rows = obs.flatten(1)
    size, extent = rows.abs().amax(0), rows.amax(0) - rows.amin(0)
    rounding = (rows - rows.float().double()).abs().amax(0)
    lost = (rounding >= MAX_ROUNDING * extent) & (extent > NOISE * size)
    if not bool(lost.any()):
        return ""
    entry = int(lost.nonzero()[0])
    return (
        f"observation entry {entry} varies by {float(extent[entry]):.3g} around "
        f"{float(rows[0, entry]):.6g}, which float32 cannot represent: use --normalize-observations"
    )
