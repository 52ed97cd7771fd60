"""What a diagnosis keeps of the scalars that it reads."""

import math
from pathlib import Path

import pytest

from pgtoolkit.training.checkpoint import load_checkpoint, save_checkpoint
from pgtoolkit.training.history import EARLY, RECENT, History, Series, followed_of, watched


def test_a_series_keeps_the_first_and_the_last_values_and_the_highest() -> None:
    series = Series()
    for i in range(200):
        series.add(-abs(i - 70.0), 10 * i)
    assert series.early == [-70.0 + i for i in range(EARLY)]
    assert list(series.recent) == [70.0 - i for i in range(200 - RECENT, 200)]
    assert list(series.steps) == [10 * i for i in range(200 - RECENT, 200)]
    assert (series.highest, series.highest_step) == (0.0, 700)
    assert series.median(3) == -128.0


def test_of_two_highest_values_the_later_one_counts() -> None:
    """As the best policy's file has it."""
    series = Series()
    for step, value in ((1, 3.0), (2, 1.0), (3, 3.0), (4, 2.0)):
        series.add(value, step)
    assert series.highest_step == 3


def test_values_that_are_not_finite_and_other_tags_are_left_out() -> None:
    history = History()
    scalars = {"train/std": math.nan, "train/approx_kl": math.inf, "train/loss": 1.0}
    assert history.add(scalars | {"train/explained_variance": 0.5}, 10) == {
        "train/explained_variance"
    }
    assert history.now("train/explained_variance") == 0.5
    assert history.now("train/std") is None and history.get("train/loss") is None


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("gradient/pathwise/variance", True),
        ("gradient/anything/largest_share", True),
        ("gradient/pathwise/variance_low", False),
        ("gradient/pathwise/parameter/torso.0.weight", False),
        ("gradient/by_step/pathwise", False),
        ("train/value_loss", False),
        ("train/std", True),
    ],
)
def test_which_tags_are_read(tag: str, expected: bool) -> None:
    assert watched(tag) == expected


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (["gradient/pathwise/variance"], "pathwise"),
        (["gradient/mine/variance", "train/std"], "mine"),
        (["gradient/pathwise/variance", "gradient/score_function/variance"], None),
        (
            [
                "gradient/pathwise/variance",
                "gradient/score_function/variance",
                "gradient/pathwise/followed",
            ],
            "pathwise",
        ),
        (["train/std"], None),
    ],
)
def test_the_followed_estimator_is_the_marked_one_or_the_only_one(
    tags: list[str], expected: str | None
) -> None:
    assert followed_of(tags) == expected


def test_estimators_are_those_of_the_latest_measurement() -> None:
    history = History()
    both = {"gradient/pathwise/variance": 1.0, "gradient/score_function/variance": 2.0}
    history.add(both | {"gradient/score_function/followed": 1.0}, 10)
    assert set(history.estimators()) == {"pathwise", "score_function"}
    history.add({"gradient/score_function/variance": 2.0}, 20)
    assert history.estimators() == ["score_function"]


def test_a_history_survives_a_checkpoint(tmp_path: Path) -> None:
    history = History()
    for i in range(70):
        history.add({"gradient/pathwise/variance": 1 / (i + 1), "train/std": i / 7}, 64 * i)
    save_checkpoint(tmp_path / "state", history.state_dict())
    loaded = History()
    loaded.load_state_dict(load_checkpoint(tmp_path / "state"))
    for one in (history, loaded):
        one.add({"gradient/pathwise/variance": 3.0, "train/std": 0.1}, 4480)
    assert loaded.state_dict() == history.state_dict()
    assert loaded.series == history.series and loaded.followed == "pathwise"
