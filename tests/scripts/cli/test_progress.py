"""The progress line of a run that trains."""

from collections import deque

from pgtoolkit.scripts.cli.progress import describe
from pgtoolkit.training.loop import Progress


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
