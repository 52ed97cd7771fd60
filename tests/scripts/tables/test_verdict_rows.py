"""The verdict's errors: known truths of the problems, what counts as an error, and the file."""

import math
from pathlib import Path

import pytest

from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.errors import RequestError
from pgtoolkit.estimators.horizon_study import Measurement, measure_horizon
from pgtoolkit.scripts.tables.verdict_problems import Problem, Quadratic, problems
from pgtoolkit.scripts.tables.verdict_rows import (
    Outcome,
    is_false_alarm,
    is_silent,
    is_wrong,
    outcome,
    policy_of,
    study,
    table,
)

PROBLEMS = problems()


def measure(problem: Problem, trajectories: int, seed: int = 0) -> dict[str, Measurement]:
    rows = measure_horizon(
        DifferentiableVectorEnv(problem.env, trajectories),
        policy_of(problem),
        problem.horizon,
        trajectories=trajectories,
        estimators=("score_function", "pathwise"),
        gamma=1.0,
        seed=seed,
    )
    return {row.estimator: row for row in rows}


@pytest.mark.parametrize("name", ["EarlyEnd", "Wall, the true gradient is about 0"])
def test_the_bias_is_that_of_the_problem(name: str) -> None:
    """Squared bias over signal with 40,000 trajectories: its interval holds the exact share."""
    problem = PROBLEMS[name]()
    row = measure(problem, 40_000)["pathwise"]
    assert row.bias_low < problem.bias_share * row.signal < row.bias_high
    assert row.bias_low > 0.5 * problem.bias_share * row.signal


@pytest.mark.parametrize("name", ["Quadratic", "Tie", "Tie, k 3 % lower", "Chaos, H = 20"])
def test_the_ratio_is_that_of_the_problem(name: str) -> None:
    """With 40,000 trajectories the paired interval holds the exact ratio."""
    problem = PROBLEMS[name]()
    row = measure(problem, 40_000)["pathwise"]
    assert row.ratio_low < problem.ratio < row.ratio_high
    assert row.ratio == pytest.approx(problem.ratio, rel=0.25)


def made(ratio: float, bias_share: float) -> Problem:
    return Problem(Quadratic(), 1, 0.0, 1.0, ratio, bias_share)


BETTER, WORSE = made(ratio=0.5, bias_share=0.0), made(ratio=2.0, bias_share=0.0)
TIE, BIASED = made(ratio=1.0, bias_share=0.0), made(ratio=0.1, bias_share=0.6)
NOTHING = made(ratio=math.nan, bias_share=0.0)


@pytest.mark.parametrize(
    ("problem", "found", "wrong", "silent", "alarm"),
    [
        (BETTER, Outcome("pathwise", False, False), False, False, False),
        (BETTER, Outcome("score function", False, False), True, False, False),
        (BETTER, Outcome("score function", True, False), True, False, True),
        (BETTER, Outcome("undecided", False, False), False, False, False),
        (WORSE, Outcome("pathwise", False, True), True, False, False),
        (TIE, Outcome("pathwise", False, False), True, False, False),
        (TIE, Outcome("undecided", False, False), False, False, False),
        (BIASED, Outcome("pathwise", False, False), True, True, False),
        (BIASED, Outcome("pathwise", False, True), False, False, False),
        (BIASED, Outcome("score function", True, False), False, False, False),
        (BIASED, Outcome("undecided", False, False), False, True, False),
        (NOTHING, Outcome("no gradient", False, False), False, False, False),
        (NOTHING, Outcome("score function", False, False), True, False, False),
    ],
)
def test_what_counts_as_an_error(
    problem: Problem, found: Outcome, wrong: bool, silent: bool, alarm: bool
) -> None:
    """Wrong, silent and false alarm, by truth and outcome."""
    assert is_wrong(problem, found) == wrong
    assert is_silent(problem, found) == silent
    assert is_false_alarm(problem, found) == alarm


@pytest.mark.parametrize(
    ("name", "choice", "cautioned"),
    [
        ("Wall, the true gradient has the other sign", "pathwise", True),
        ("Step", "score function", False),
        ("Tie", "undecided", False),
        ("NoEffect", "no gradient", False),
        ("EarlyEnd", "score function", False),
    ],
)
def test_the_verdict_is_right_on_problems_with_a_known_answer(
    name: str, choice: str, cautioned: bool
) -> None:
    """Five batches of 1000 trajectories of each."""
    problem = PROBLEMS[name]()
    for seed in range(5):
        found = outcome(problem, 1000, seed)
        assert (found.choice, found.cautioned) == (choice, cautioned)


def test_a_study_goes_on_from_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the file holds is not measured again, and another number of trajectories is refused."""
    file, some = tmp_path / "outcomes.json", {"Step": PROBLEMS["Step"]}
    first = study(some, 20, 2, file)
    assert study(some, 20, 3, file)["Step"][:2] == first["Step"]
    monkeypatch.setattr("pgtoolkit.scripts.tables.verdict_rows.outcome", None)
    again = study(some, 20, 3, file)
    assert len(again["Step"]) == 3
    with pytest.raises(RequestError, match="20 trajectories"):
        study(some, 30, 3, file)
    lines = table(some, again).splitlines()
    assert len(lines) == 3 and lines[2].startswith("| Step |")
