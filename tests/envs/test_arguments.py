import math

import pytest

from pgtoolkit.envs.arguments import (
    positive_integer,
    require_above,
    require_at_least,
    require_finite,
    require_fraction,
)
from pgtoolkit.errors import RequestError


def test_arguments_that_are_no_numbers_are_refused() -> None:
    require_finite("X", a=1.0, b=2)
    for wrong in (math.nan, math.inf, "1", None, [1.0]):
        with pytest.raises(RequestError, match=r"X's b is .*: it must be a finite number"):
            require_finite("X", a=1.0, b=wrong)  # type: ignore[arg-type]


def test_arguments_below_a_bound_are_refused() -> None:
    require_at_least("X", 0, a=0.0, b=3)
    require_above("X", 0, a=1e-9, b=math.inf)
    for wrong in (-1, math.nan):
        with pytest.raises(RequestError, match=f"X's b is {wrong}: it must be at least 0"):
            require_at_least("X", 0, a=1.0, b=wrong)
    for wrong in (0, math.nan):
        with pytest.raises(RequestError, match=f"X's b is {wrong}: it must be above 0"):
            require_above("X", 0, a=1.0, b=wrong)


def test_arguments_that_are_no_fraction_are_refused() -> None:
    require_fraction("X", a=0.0, b=1.0)
    for wrong in (-0.1, 1.1, math.nan):
        with pytest.raises(RequestError, match=f"X's b is {wrong}: it must be from 0 to 1"):
            require_fraction("X", a=1.0, b=wrong)


def test_numbers_that_are_not_positive_integers_are_refused() -> None:
    assert positive_integer("X", "a", 3.0) == 3
    for wrong in (0, -2, 2.5):
        with pytest.raises(RequestError, match=f"X's a is {wrong}: it must be an integer, at lea"):
            positive_integer("X", "a", wrong)
    with pytest.raises(RequestError, match="X's a is nan: it must be a finite number"):
        positive_integer("X", "a", math.nan)
