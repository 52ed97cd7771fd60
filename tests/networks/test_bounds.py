"""Bounds of action spaces: which count, which are none, and which are refused by number."""

import logging
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from pgtoolkit.errors import RequestError
from pgtoolkit.networks.bounds import NO_BOUND, action_bounds, finite_bounds, tanh_bounds

INF = float("inf")
MAX = float(np.finfo(np.float32).max)


def box(low: list[float], high: list[float], dtype: Any = np.float32) -> Box:
    return Box(np.array(low, dtype), np.array(high, dtype), dtype=dtype)


def test_the_limit_is_where_squares_overflow_in_float32() -> None:
    below = np.nextafter(np.float32(NO_BOUND), np.float32(0))
    with np.errstate(over="ignore"):
        assert np.isfinite(np.square(below)) and np.isinf(np.square(np.float32(NO_BOUND)))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_ordinary_bounds_are_those_of_the_space(dtype: Any) -> None:
    low, high = action_bounds(box([-2, 0.25, -INF], [3, 0.5, 1], dtype))
    assert low.dtype == torch.float32
    assert low.tolist() == [-2, 0.25, -INF] and high.tolist() == [3, 0.5, 1]


Large = tuple[Box, list[float], list[float], str]
LARGE: dict[str, Large] = {
    "1e38": (box([-1e38], [1e38]), [-INF], [INF], "entry 0 has [-1e+38, 1e+38]"),
    "largest float": (
        box([-MAX, 0, -1], [MAX, MAX, 1]),
        [-INF, 0, -1],
        [INF, INF, 1],
        "entry 0 has [-3.4028235e+38, 3.4028235e+38], entry 1 has [0.0, 3.4028235e+38] (",
    ),
    "beyond float32": (
        box([-2, -1e39], [2, 1e39], np.float64),
        [-2, -INF],
        [2, INF],
        "action space entry 1 has [-1e+39, 1e+39] (the first entry is 0)",
    ),
    "largest float16": (
        box([-65504], [65504], np.float16),
        [-INF],
        [INF],
        "entry 0 has [-6.55e+04, 6.55e+04]",
    ),
    "on one side": (box([-1e30], [2]), [-INF], [2], "entry 0 has [-1e+30, 2.0]"),
}


@pytest.mark.parametrize("name", LARGE)
def test_a_bound_too_large_for_float32_is_none_and_is_named(name: str, caplog: Any) -> None:
    space, low, high, message = LARGE[name]
    with caplog.at_level(logging.WARNING, "pgtoolkit"):
        found = action_bounds(space)
    assert found.low.tolist() == low and found.high.tolist() == high
    (record,) = caplog.records
    assert message in record.getMessage()


def test_the_largest_ordinary_bound_counts_without_a_warning(caplog: Any) -> None:
    found = action_bounds(box([-1e19, -INF], [1e19, INF]))
    assert found.high.tolist() == pytest.approx([1e19, INF]) and not caplog.records


REFUSED: dict[str, tuple[Box, str]] = {
    "all beyond": (box([0, 1e30], [1, 1e31]), r"entry 1 has \[1e\+30, 1e\+31\].*TransformAction"),
    "all below": (box([-1e39], [-1e38], np.float64), r"entry 0 has \[-1e\+39, -1e\+38\]"),
    "rounded to one number": (
        box([0, 1.7e9 - 1], [1, 1.7e9 + 1], np.float64),
        r"entry 1 has \[1699999999.0, 1700000001.0\].*RescaleAction",
    ),
    "no room beside a bound": (box([1e9], [INF]), r"entry 0 has \[1e\+09, inf\]"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bounds_that_float32_cannot_follow_are_refused(name: str) -> None:
    space, message = REFUSED[name]
    with pytest.raises(RequestError, match=message):
        action_bounds(space)


@pytest.mark.parametrize(("low", "high"), [(float("nan"), 1.0), (2.0, 1.0), (0.0, float("nan"))])
def test_bounds_in_disorder_are_refused(low: float, high: float) -> None:
    """Gymnasium refuses them itself, but the arrays of a space can be changed afterwards."""
    space = box([-1, -1], [1, 1])
    space.low[1], space.high[1] = low, high
    with pytest.raises(RequestError, match=rf"entry 1 has \[{low}, {high}\]"):
        action_bounds(space)


def test_a_narrow_float32_box_is_what_it_says() -> None:
    """A float32 environment means the few numbers that it names; so does one without width."""
    low, high = action_bounds(box([1, 5, 0], [1 + 2**-20, 5, 1e-42]))
    assert high[0] - low[0] == 2**-20 and low[1] == high[1]


def test_tanh_takes_bounds_everywhere_or_nowhere() -> None:
    assert tanh_bounds(box([-INF, -1e38], [INF, MAX])) is None
    found = tanh_bounds(box([-1, 2], [0, 2]))
    assert found is not None and found.high.tolist() == [0, 2]
    with pytest.raises(RequestError, match=r"entry 1 has \[0.0, inf\], entry 2 .*clipped_gaussian"):
        tanh_bounds(box([-1, 0, -INF], [1, INF, INF]))


def test_a_beta_takes_bounds_on_both_sides() -> None:
    assert finite_bounds(box([-1, 2], [0, 2])).low.tolist() == [-1, 2]
    with pytest.raises(RequestError, match=r"entry 1 has \[-1e\+38, 1.0\].*clipped_gaussian"):
        finite_bounds(box([-1, -1e38], [1, 1]))


def test_a_message_names_a_few_entries_and_counts_the_others() -> None:
    with pytest.raises(RequestError, match=r"entry 3 has \[0.0, inf\] and 6 more \(the first"):
        tanh_bounds(Box(0, np.inf, (10,)))
