"""The first number that is not finite is found and named."""

import pytest
import torch

from pgtoolkit.errors import NonFiniteError
from pgtoolkit.finite import (
    require_finite,
    require_finite_adjoint,
    require_finite_rows,
    require_finite_steps,
)

BAD = [float("nan"), float("inf"), -float("inf")]


@pytest.mark.parametrize("bad", BAD)
def test_the_earliest_step_is_named(bad: float) -> None:
    """Reward breaks at step 3 of environment 0, the action before it at step 2 of environment 1."""
    action, reward = torch.zeros(5, 3, 2), torch.zeros(5, 3)
    action[2, 1, 1] = action[4, 0, 0] = reward[3, 0] = bad
    for tensors in (
        {"action": action, "reward": reward},
        {"reward": reward, "action": action},
    ):
        with pytest.raises(NonFiniteError) as caught:
            require_finite_steps(tensors)
        assert (caught.value.tensor, caught.value.step, caught.value.env_index) == ("action", 2, 1)
    assert str(caught.value) == "action is not finite at step 2 of the window, environment 1"


def test_within_one_step_the_given_order_decides() -> None:
    """Tensors are given in the order in which they are computed."""
    bad = torch.full((2, 3), float("nan"))
    for order in (("action", "reward"), ("reward", "action")):
        with pytest.raises(NonFiniteError) as caught:
            require_finite_steps(dict.fromkeys(order, bad))
        assert (caught.value.tensor, caught.value.step, caught.value.env_index) == (order[0], 0, 0)


def test_finite_numbers_and_whole_ones_pass() -> None:
    """Choices are integers: they have no infinity."""
    require_finite_steps({"x": torch.zeros(2, 3), "choice": torch.zeros(2, 3, dtype=torch.int64)})
    require_finite("x", torch.zeros(3))


def test_finite_numbers_whose_sum_is_too_large_pass() -> None:
    require_finite_steps({"x": torch.full((2, 3), 3e38)})
    require_finite("x", torch.full((3,), -3e38))


@pytest.mark.parametrize("bad", BAD)
def test_infinities_that_cancel_are_found(bad: float) -> None:
    with pytest.raises(NonFiniteError):
        require_finite("x", torch.tensor([bad, 0.0, -bad]))


@pytest.mark.parametrize("bad", BAD)
def test_the_trajectory_is_named_where_there_is_no_time(bad: float) -> None:
    """The tensor has one entry or one row for each trajectory."""
    values = torch.zeros(4)
    values[2] = bad
    for tensor in (values, torch.stack([torch.zeros(4), values], 1)):
        with pytest.raises(NonFiniteError) as caught:
            require_finite("loss", tensor)
        assert (caught.value.tensor, caught.value.step, caught.value.env_index) == ("loss", None, 2)
    assert str(caught.value) == "loss is not finite, environment 2"


@pytest.mark.parametrize("bad", BAD)
def test_a_gradient_is_named_where_it_began_which_is_its_latest_step(bad: float) -> None:
    """Adjoints run backwards in time: a NaN at step 3 spreads to steps 2, 1 and 0."""
    adjoint = torch.zeros(5, 3, 2)
    require_finite_adjoint("gradient", adjoint)
    adjoint[:4, 2, 1] = bad
    adjoint[:2, 0, 0] = bad
    with pytest.raises(NonFiniteError) as caught:
        require_finite_adjoint("gradient", adjoint)
    assert (caught.value.tensor, caught.value.step, caught.value.env_index) == ("gradient", 3, 2)


@pytest.mark.parametrize("bad", BAD)
def test_one_step_is_checked_in_the_given_order(bad: float) -> None:
    """Observation ``[N, O]`` and reward ``[N]`` of step 7: both break, the first given is named."""
    obs, reward = torch.zeros(3, 2), torch.zeros(3)
    require_finite_rows({"observation": obs, "reward": reward}, 7)
    obs[2, 1] = reward[1] = bad
    for order, env_index in ((("observation", "reward"), 2), (("reward", "observation"), 1)):
        tensors = {"observation": obs, "reward": reward}
        with pytest.raises(NonFiniteError) as caught:
            require_finite_rows({name: tensors[name] for name in order}, 7)
        assert (caught.value.tensor, caught.value.step) == (order[0], 7)
        assert caught.value.env_index == env_index
