"""The benchmark of the TensorBoard file."""

import pytest

from pgtoolkit.scripts.benchmarks import writing

SMALL = ["--num-envs", "8", "--n-steps", "8", "--hidden", "8", "--eval-episodes", "1"]


@pytest.mark.parametrize("name", writing.CASES)
def test_the_share_is_that_of_the_writer_in_the_training(name: str) -> None:
    """Short runs of every case: writing is a part of the training, and more than nothing."""
    agent, _, settings = writing.CASES[name]
    row = writing.row_of(name, agent, 128, [*settings, *SMALL], 2)
    assert all(0 < ours < theirs for ours, theirs in zip(row.ours, row.theirs, strict=True))
    assert row.ratio_low is not None and row.ratio is not None and row.ratio_high is not None
    assert 0 < row.ratio_low <= row.ratio <= row.ratio_high < 1
    assert (row.target, row.reached) == (0.02, row.ratio <= 0.02)
