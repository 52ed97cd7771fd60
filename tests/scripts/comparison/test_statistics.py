"""Interquartile mean and bootstrap interval against closed forms."""

import itertools

import numpy as np
import pytest
import scipy.stats

from pgtoolkit.scripts.comparison.statistics import (
    bootstrap_generator,
    bootstrap_interval,
    interquartile_mean,
)


@pytest.mark.parametrize(
    ("values", "mean"),
    [
        ([7.0], 7.0),
        ([1.0, 2.0, 6.0], 3.0),  # floor(3 / 4) = 0 are left out
        ([100.0, 1.0, 2.0, -50.0], 1.5),
        ([-9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 900.0], 4.5),  # 2 at either end
    ],
)
def test_the_interquartile_mean_leaves_out_a_quarter_at_either_end(
    values: list[float], mean: float
) -> None:
    assert interquartile_mean(np.array(values)) == pytest.approx(mean, rel=1e-15)


def test_the_interquartile_mean_is_that_of_scipy_along_the_first_axis() -> None:
    """scipy.stats.trim_mean is what the reference implementation calls."""
    for count in range(1, 14):
        values = np.random.default_rng(count).normal(size=(count, 3))
        expected = scipy.stats.trim_mean(values, 0.25, axis=0)
        np.testing.assert_allclose(interquartile_mean(values), expected, rtol=1e-13)


def test_one_value_has_no_interval() -> None:
    assert np.isnan(bootstrap_interval(np.array([3.0]), bootstrap_generator())).all()


def test_the_interval_of_equal_values_is_that_value() -> None:
    assert bootstrap_interval(np.full(5, 2.5), bootstrap_generator()) == (2.5, 2.5)


def test_the_interval_of_two_values_is_their_range() -> None:
    """Each resample's mean is one of a, (a + b) / 2, b with probabilities 1/4, 1/2, 1/4."""
    assert bootstrap_interval(np.array([1.0, 4.0]), bootstrap_generator()) == (1.0, 4.0)


def test_the_interval_is_the_one_over_all_resamples() -> None:
    """Of four values there are 256 equally likely resamples, whose quantiles are exact.

    The share of the drawn resamples below an end has a standard error of
    sqrt(0.025 * 0.975 / 10,000) = 0.16 %: each end lies between the exact quantiles at five of
    these on either side.
    """
    values = np.array([0.0, 1.0, 10.0, 100.0])
    resamples = np.array(list(itertools.product(values, repeat=4)))
    means = np.sort(resamples, axis=1)[:, 1:3].mean(axis=1)
    error = 5 * np.sqrt(0.025 * 0.975 / 10_000)
    for end, share in zip(
        bootstrap_interval(values, bootstrap_generator()), (0.025, 0.975), strict=True
    ):
        low, high = np.quantile(means, [max(0.0, share - error), min(1.0, share + error)])
        assert low <= end <= high


def test_the_interval_is_the_same_at_each_call_and_turns_with_the_values() -> None:
    """Shifted and scaled values have the shifted and scaled interval."""
    values = np.random.default_rng(0).normal(size=10)
    first = bootstrap_interval(values, bootstrap_generator())
    assert bootstrap_interval(values, bootstrap_generator()) == first
    scaled = bootstrap_interval(3 * values - 7, bootstrap_generator())
    np.testing.assert_allclose(scaled, 3 * np.array(first) - 7, rtol=1e-12)
