"""What is read from a run's scalars."""

import math

import pytest

from pgtoolkit.scripts.comparison.scalars import Scalars, median_snr


@pytest.mark.parametrize(
    ("scalars", "expected"),
    [
        ({"gradient/critic/variance": 1, "gradient/critic/snr": 3}, 3.0),
        ({"gradient/critic/variance": 1}, None),
        ({"eval/mean_reward": 1}, None),
        (
            {
                "gradient/critic/variance": 1,
                "gradient/critic/snr": 3,
                "gradient/pathwise/variance": 1,
                "gradient/pathwise/snr": 5,
                "gradient/pathwise/followed": 1,
            },
            5.0,
        ),
        (
            {
                "gradient/critic/variance": 1,
                "gradient/critic/snr": 3,
                "gradient/pathwise/variance": 1,
                "gradient/pathwise/snr": 5,
            },
            None,
        ),
    ],
)
def test_the_snr_is_that_of_the_gradient_that_is_followed(
    scalars: dict[str, float], expected: float | None
) -> None:
    """The only one measured, or the one that is marked; none where neither says it."""
    found: Scalars = {tag: ([1], [value]) for tag, value in scalars.items()}
    assert median_snr(found) == expected


def test_the_snr_is_the_median_of_the_finite_ones() -> None:
    """A measurement whose variance was 0 has an infinite SNR."""
    values = [1.0, math.inf, 4.0, math.nan, 2.0]
    scalars: Scalars = {
        "gradient/pathwise/variance": ([1], [1.0]),
        "gradient/pathwise/snr": (list(range(5)), values),
    }
    assert median_snr(scalars) == 2.0
