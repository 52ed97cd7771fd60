"""Differences between the agents of a comparison, against the textbook's formulas."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from pgtoolkit.scripts.comparison.differences import (
    as_dicts,
    difference,
    differences,
    differences_text,
    welch_interval,
)
from pgtoolkit.scripts.comparison.results import RunResult
from pgtoolkit.scripts.comparison.rows import Row


def run(seed: int, value: float) -> RunResult:
    given = {"seed": seed, "returns": [value], "steps": 100, "cut_off": 0, "versions": {}}
    fields = {f.name: given.get(f.name) for f in dataclasses.fields(RunResult)}
    fields |= {"curve_steps": [], "curve_returns": []}
    return RunResult(**fields)  # type: ignore[arg-type]


def row(label: str, *values: float, env: str = "E") -> Row:
    runs = [run(seed, value) for seed, value in enumerate(values)]
    return Row(label, label, env, 3, 1, 100, {}, runs)


def test_a_difference_has_welchs_interval() -> None:
    """By hand: means 4 and 1, variances 4 and 1, n = 3 and 4."""
    ours, theirs = np.array([2.0, 4.0, 6.0]), np.array([0.0, 0.0, 2.0, 2.0])
    first, second = 4 / 3, theirs.var(ddof=1) / 4
    df = (first + second) ** 2 / (first**2 / 2 + second**2 / 3)
    half = stats.t.ppf(0.975, df) * math.sqrt(first + second)
    found = welch_interval(ours, theirs)
    np.testing.assert_allclose(found, (3 - half, 3 + half), rtol=1e-12)


def test_the_interval_covers_the_true_difference_as_often_as_it_says() -> None:
    """Three seeds a side with unequal spreads; within four standard errors."""
    generator, count = np.random.default_rng(0), 2000
    covered = 0
    for _ in range(count):
        low, high = welch_interval(1 + generator.normal(size=3), 3 * generator.normal(size=3))
        covered += low <= 1 <= high
    assert abs(covered / count - 0.95) < 4 * math.sqrt(0.95 * 0.05 / count)


def test_the_share_of_pairs_counts_a_tie_half() -> None:
    found = difference(row("a", 1.0, 3.0), row("b", 1.0, 2.0))
    assert found.greater == (0.5 + 0 + 1 + 1) / 4
    assert found.mean == 0.5


@pytest.mark.parametrize("values", [(500.0,), (500.0, 500.0)])
def test_one_seed_has_no_interval_and_equal_ones_none_of_a_width(values: tuple[float, ...]) -> None:
    found = difference(row("a", *values), row("b", *[400.0] * len(values)))
    assert found.mean == 100
    if len(values) == 1:
        assert math.isnan(found.interval.low) and "[no interval]" in found.text
    else:
        assert found.interval == (100, 100)


def test_agents_are_compared_on_the_same_environment_alone() -> None:
    rows = [row("a", 1.0, 2.0), row("b", 0.0, 1.0), row("c", 3.0, 4.0), row("a", 5.0, env="F")]
    pairs = [(x.first, x.second, x.env) for x in differences(rows)]
    assert pairs == [("a", "b", "E"), ("a", "c", "E"), ("b", "c", "E")]
    text = differences_text(rows)
    assert text.startswith("a - b on E: 1 [") and "greater in 88% of the pairs" in text
    assert differences_text(rows[:1]) == ""
    assert [len(found["against"]) for found in as_dicts(rows)] == [2, 1, 0, 0]
