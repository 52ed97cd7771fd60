"""Numbers and axes for people."""

import math
import re

FLAG = re.compile(r"--[a-z][a-z0-9-]*[a-z0-9]")
"""A flag of the command line in a sentence, such as ``--num-envs``."""


def format_number(value: float, digits: int = 3) -> str:
    """A number to so many significant digits: ``12,300``, ``0.00213``, ``1.52e9``.

    NaN and infinity are shown as ``-``.
    """
    if not math.isfinite(value):
        return "-"
    rounded = float(f"{value:.{digits}g}")
    if rounded == 0 or 1e-3 <= abs(rounded) < 1e5:
        return f"{rounded:,.{max(digits, 5)}g}"
    mantissa, exponent = f"{rounded:.{digits - 1}e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def nice_step(width: float, count: int) -> float:
    """The distance between ticks: 1, 2 or 5 times a power of ten, about ``count`` in the width."""
    rough = width / max(count, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
