"""Numbers as text for people."""

import math


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
