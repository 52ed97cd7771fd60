"""Laws of the coverage table: their moments, and how hits are counted."""

import math

import pytest
import torch

from pgtoolkit.scripts.tables.coverage_rows import (
    SIZES,
    Law,
    cell,
    coverage,
    coverage_laws,
    coverage_rows,
    table,
)

LAWS = coverage_laws()

# Their fourth moments are so large that a sample variance tells nothing.
HEAVY = ("log-normal, s = 1.5", "log-normal with random sign, s = 1.5", "Student's t, 3 degrees")


@pytest.mark.parametrize("name", LAWS)
def test_the_moments_of_the_laws_are_right(name: str) -> None:
    """Mean and variance of 400,000 draws, within 5 of their standard errors."""
    law = LAWS[name]
    draws = law.draw(400_000, torch.Generator().manual_seed(0))
    squares = (draws - draws.mean(0)).square().sum(1)
    error = float(squares.std()) / math.sqrt(len(squares))
    if name not in HEAVY:
        assert abs(float(squares.mean()) - law.variance) < 5 * error
    signal = float(draws.mean(0).square().sum()) - law.variance / len(draws)
    spread = 4 * law.signal * law.variance / len(draws) + 2 * (law.variance / len(draws)) ** 2
    assert abs(signal - law.signal) < 5 * math.sqrt(spread)


def test_a_batch_without_variance_has_no_interval_to_count() -> None:
    found = coverage("zero", Law(lambda n, g: torch.zeros(n, 2).double(), 0.0, 0.0), 8, 5, seed=0)
    assert found.variance_shown == found.signal_shown == 0
    assert math.isnan(found.variance_covered) and cell(0.0, math.nan) == "none"


def test_hits_are_counted_among_the_intervals_that_are_given() -> None:
    """Normal gradients in 200 dimensions: the interval of N = 64 holds V = 200, and not 400."""
    right, wrong = (
        Law(lambda n, g: torch.randn(n, 200, generator=g, dtype=torch.float64), v, 0.0)
        for v in (200.0, 400.0)
    )
    assert coverage("right", right, 64, 20, seed=0).variance_covered > 0.7
    assert coverage("wrong", wrong, 64, 20, seed=0).variance_covered == 0


def test_the_table_has_a_line_for_each_law_and_two_columns_for_each_size() -> None:
    laws = {name: LAWS[name] for name in list(LAWS)[:2]}
    lines = table(list(coverage_rows(laws, 3, seed=0))).splitlines()
    assert len(lines) == 4
    assert all(line.count("|") == 2 + 2 * len(SIZES) for line in lines)
