"""The table of the MuJoCo adapter's gradients."""

import dataclasses

import numpy as np
import pytest

from pgtoolkit.scripts.tables.mujoco_rows import (
    LYING,
    RESET,
    MuJoCoCase,
    Start,
    measure,
    starts_of,
    table,
)

CASE = MuJoCoCase("Ant-v5", "reset", 0, 2e-6, 3e-8, 0.0, 1e-3, 1e-7, True, 2.0)


@pytest.mark.parametrize("start", [RESET, Start("running", 3, 0.9)])
def test_a_smooth_environment_is_right(start: Start) -> None:
    case = measure("Reacher-v5", start, seed=1, horizon=3)
    assert case.outcome == "right" and case.error < 1e-7
    assert case.same_return and case.flagged_steps == 0
    assert 0 < case.reference_error < 1e-7
    assert case.gradient_size > 1e-2


def test_a_start_without_torque_is_without_random_actions() -> None:
    assert LYING.scale == 0 and LYING in starts_of("Humanoid-v5")
    assert LYING not in starts_of("Ant-v5")


def test_an_error_above_1e_5_is_wrong_unless_it_is_flagged() -> None:
    bad = dataclasses.replace(CASE, error=2e-5)
    assert CASE.outcome == "right" and bad.outcome == "wrong"
    assert dataclasses.replace(bad, flagged_steps=0.125).outcome == "flagged"
    assert dataclasses.replace(bad, error=np.nan).outcome == "wrong"


def test_a_row_has_the_largest_errors_and_counts_of_its_cases() -> None:
    cases = [
        CASE,
        dataclasses.replace(CASE, seed=1, error=2e-4, flagged_steps=0.25),
        dataclasses.replace(CASE, seed=2, error=2e-3, reference_error=0.0),
        dataclasses.replace(CASE, env="Hopper-v5", error=0.0),
    ]
    ant, hopper = table(cases)
    assert ant == ["`Ant-v5`", "reset", "2e-03", "3e-08", "8%", "1, 1, 1"]
    assert hopper == ["`Hopper-v5`", "reset", "0", "3e-08", "0%", "1, 0, 0"]
