"""The progress line of a run that trains."""

from collections import deque

import pytest

from pgtoolkit.scripts.cli.progress import ProgressView, describe
from pgtoolkit.training.progress import Progress


def test_a_run_that_has_just_begun_is_training() -> None:
    assert describe(Progress()) == "training"


def test_a_run_without_an_end_of_an_episode_says_so() -> None:
    assert describe(Progress(num_updates=1)) == "no whole episode has ended yet"
    assert describe(Progress(num_updates=1, returns=deque([3.0]))) == "return 3.0"


def test_the_line_ends_with_the_most_serious_finding() -> None:
    """Returns, variances and a few words; nothing is added where there is no finding."""
    progress = Progress(eval_return=-20.0)
    progress.scalars["gradient/pathwise/variance"] = 1234.0
    line = "evaluation -20.0  pathwise variance 1,230"
    assert describe(progress) == line
    for step in range(20):
        progress.diagnosis.observe({"train/saturated_actions": 0.75}, step)
    assert describe(progress) == f"{line}  ! 75% of actions saturated"


def test_a_run_of_less_than_one_window_ends_at_the_windows_steps(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One window is trained at least, and the line does not say 2048/100."""
    view = ProgressView(100)
    view(Progress(num_steps=2048, num_updates=1, window_steps=2048))
    assert capsys.readouterr().out.startswith("2048/2048 steps")


def test_a_run_that_ends_before_its_total_names_the_total(
    capsys: pytest.CaptureFixture[str],
) -> None:
    view = ProgressView(5000)
    view(Progress(num_steps=4096, num_updates=2, window_steps=2048))
    assert capsys.readouterr().out.startswith("4096/5000 steps")
