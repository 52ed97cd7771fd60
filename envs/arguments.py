"""Checks of the numbers that a user gives to an environment, a wrapper or a policy.

``owner`` is the name of the class or function that takes the argument; messages begin with it.
"""

import math

from pgtoolkit.errors import RequestError


def require_finite(owner: str, **arguments: float) -> None:
    """Raises unless every argument is a finite number.

    Raises:
        RequestError: names the first argument that is not.
    """
    for name, value in arguments.items():
        try:
            finite = math.isfinite(value)
        except TypeError:
            finite = False
        if not finite:
            raise RequestError(f"{owner}'s {name} is {value!r}: it must be a finite number")


def require_at_least(owner: str, least: float, **arguments: float) -> None:
    """Raises unless every argument is at least ``least``.

    Raises:
        RequestError: names the first argument that is smaller, or NaN.
    """
    for name, value in arguments.items():
        if not value >= least:
            raise RequestError(f"{owner}'s {name} is {value}: it must be at least {least}")


def require_above(owner: str, bound: float, **arguments: float) -> None:
    """Raises unless every argument is greater than ``bound``.

    Raises:
        RequestError: names the first argument that is not.
    """
    for name, value in arguments.items():
        if not value > bound:
            raise RequestError(f"{owner}'s {name} is {value}: it must be above {bound}")


def require_fraction(owner: str, **arguments: float) -> None:
    """Raises unless every argument is from 0 to 1.

    Raises:
        RequestError: names the first argument that is not.
    """
    for name, value in arguments.items():
        if not 0 <= value <= 1:
            raise RequestError(f"{owner}'s {name} is {value}: it must be from 0 to 1")


MAX_INTEGER = 100_000
"""Largest number of steps that an argument may be."""


def positive_integer(owner: str, name: str, value: float, most: int = MAX_INTEGER) -> int:
    """The argument as an int.

    Raises:
        RequestError: it is not a whole number from 1 to ``most``.
    """
    require_finite(owner, **{name: value})
    if int(value) != value or value < 1:
        raise RequestError(f"{owner}'s {name} is {value}: it must be an integer, at least 1")
    if value > most:
        raise RequestError(f"{owner}'s {name} is {value}: it must be at most {most:,}")
    return int(value)
