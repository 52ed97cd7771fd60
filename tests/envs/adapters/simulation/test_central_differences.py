"""Central differences and their disagreement."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box
from numpy.typing import NDArray

from pgtoolkit.envs.adapters.simulation.central_differences import (
    DOUBLE_STEP,
    MAX_ERROR,
    SINGLE_STEP,
    CentralDifferences,
    Parts,
    Steps,
    step_sizes_for,
)
from pgtoolkit.envs.adapters.simulation.simulator import Array, Outcome, Precision, Simulator
from pgtoolkit.errors import RequestError

DOUBLE, SINGLE = np.dtype(np.float64), np.dtype(np.float32)
Function = Callable[[Array, Array], tuple[Array, Array, Array]]


class Functional(Simulator):
    """A simulator whose step is a given function of states and actions ``[K, *]``."""

    max_episode_steps = 10

    def __init__(
        self, function: Function, size: int, actions: int = 1, precision: np.dtype = DOUBLE
    ) -> None:
        self.function, self.saved_size, self.tangent_size = function, size, size
        self.action_space = Box(-1, 1, (actions,))
        self.precision = Precision(state=precision, observation=precision, reward=precision)
        self.calls = 0

    def reset(self, seed: int) -> tuple[Array, Array]:
        raise NotImplementedError

    def step(self, saved: Array, action: NDArray[np.floating]) -> Outcome:
        self.calls += 1
        after, observation, reward = self.function(saved, np.asarray(action, dtype=np.float64))
        return Outcome(after, observation, reward, np.zeros(len(saved), dtype=bool))

    def perturb(self, saved: Array, tangent: Array) -> Array:
        return saved + tangent

    def displacement(self, saved: Array, origin: Array) -> Array:
        return saved - origin


class Circle(Functional):
    """A point on the unit circle, stored as (cos, sin), with a one-dimensional tangent space."""

    def __init__(self, function: Function) -> None:
        super().__init__(function, 2)
        self.tangent_size = 1

    def perturb(self, saved: Array, tangent: Array) -> Array:
        angle = np.arctan2(saved[:, 1], saved[:, 0]) + tangent[:, 0]
        return np.stack([np.cos(angle), np.sin(angle)], axis=1)

    def displacement(self, saved: Array, origin: Array) -> Array:
        along = saved[:, 1] * origin[:, 0] - saved[:, 0] * origin[:, 1]
        angle: Array = np.arctan2(along, (saved * origin).sum(1))[:, None]
        return angle


def scalar(reward: Callable[[Array], Array]) -> CentralDifferences:
    """Differences of a state that adds up its actions, with the given reward of the state."""

    def step(state: Array, action: Array) -> tuple[Array, Array, Array]:
        return state + action, state, reward(state[:, 0])

    return CentralDifferences(Functional(step, 1))


def at(differences: CentralDifferences, *states: float) -> Any:
    saved = np.array(states)[:, None]
    return differences(saved, np.zeros((len(states), 1)))


@pytest.mark.parametrize("precision", [DOUBLE, SINGLE])
def test_a_linear_system_s_jacobians_are_its_matrices(precision: np.dtype) -> None:
    rng = np.random.default_rng(0)
    a, b, c, q = (rng.normal(size=shape) for shape in ((3, 3), (3, 2), (4, 3), (5,)))

    def step(state: Array, action: Array) -> tuple[Array, Array, Array]:
        def rounded(x: Array) -> Array:
            return x.astype(precision).astype(np.float64)

        after = rounded(state @ a.T + action @ b.T)
        both = np.concatenate([state, action], axis=1)
        return after, rounded(after @ c.T), rounded(both @ q)

    differences = CentralDifferences(Functional(step, 3, 2, precision))
    found = differences(rng.normal(size=(6, 3)), rng.normal(size=(6, 2)))
    # Single precision: values below 16 are rounded by less than 5e-7, over a step of 2^-8.
    tolerance = 1e-8 if precision == DOUBLE else 5e-7 / SINGLE_STEP
    jacobian = np.concatenate([a, b], axis=1)
    for part, truth in ((found.state, jacobian), (found.observation, c @ jacobian)):
        assert part.shape == (6, *truth.shape)
        np.testing.assert_allclose(part, np.tile(truth, (6, 1, 1)), rtol=0, atol=tolerance)
    np.testing.assert_allclose(found.reward, np.tile(q, (6, 1)), rtol=0, atol=tolerance)
    assert found.disagreement.shape == (6,)
    assert found.disagreement.max() < 1e-3


def test_all_moves_of_all_states_are_one_call_and_two_if_the_steps_differ() -> None:
    differences = scalar(np.sin)
    at(differences, 0.0, 1.0, 2.0)
    simulator: Any = differences.simulator
    assert simulator.calls == 1
    CentralDifferences(simulator, Steps(state=1e-6, observation=1e-3, reward=1e-6))(
        np.zeros((2, 1)), np.zeros((2, 1))
    )
    assert simulator.calls == 3


def test_the_derivative_of_a_rotation_has_one_dimension_not_two() -> None:
    def step(state: Array, action: Array) -> tuple[Array, Array, Array]:
        turned = Circle.perturb(circle, state, 0.5 * action)
        return turned, turned, turned[:, 1]

    circle = Circle(step)
    angle = np.array([0.3, 3.1, -2.0])
    saved = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    found = CentralDifferences(circle)(saved, np.full((3, 1), 0.2))
    np.testing.assert_allclose(found.state, np.tile([[[1.0, 0.5]]], (3, 1, 1)), atol=1e-9)
    np.testing.assert_allclose(found.reward[:, 0], np.cos(angle + 0.1), atol=1e-9)
    np.testing.assert_allclose(found.observation[:, 0, 1], -0.5 * np.sin(angle + 0.1), atol=1e-9)


def test_steps_follow_the_precision_of_each_part() -> None:
    steps = step_sizes_for(Precision(state=DOUBLE, observation=SINGLE, reward=np.dtype(np.float16)))
    assert steps == Steps(state=DOUBLE_STEP, observation=SINGLE_STEP, reward=SINGLE_STEP)


@pytest.mark.parametrize("step", [0.0, -1e-3, float("nan"), float("inf")])
def test_steps_that_are_not_positive_are_refused(step: float) -> None:
    with pytest.raises(RequestError, match="step for the reward"):
        Steps(state=1e-6, observation=1e-6, reward=step)


@pytest.mark.parametrize("precision", [DOUBLE, SINGLE])
def test_actions_at_a_bound_have_the_inner_derivative_and_those_beyond_none(
    precision: np.dtype,
) -> None:
    def step(state: Array, action: Array) -> tuple[Array, Array, Array]:
        clipped = np.clip(action, -1, 1)
        return state + clipped, state, (clipped**2).sum(1)

    differences = CentralDifferences(Functional(step, 1, precision=precision))
    near = 1 - differences.steps.reward / 3
    action = np.array([-1.0, -near, near, 1.0, 1.1, -1.1])[:, None]
    found = differences(np.zeros((6, 1)), action)
    # One-sided where the bound is: an error of a step.
    truth, tolerance = 2 * np.array([-1, -near, near, 1, 0, 0]), 2 * differences.steps.reward
    np.testing.assert_allclose(found.reward[:, 1], truth, rtol=0, atol=tolerance)
    np.testing.assert_allclose(found.state[:4, 0, 1], 1.0, rtol=0, atol=1e-8)
    assert found.disagreement.max() < 0.01


def test_actions_without_bounds() -> None:
    def step(state: Array, action: Array) -> tuple[Array, Array, Array]:
        return state + action, state, np.sin(action[:, 0])

    simulator = Functional(step, 1)
    simulator.action_space = Box(-np.inf, np.inf, (1,))
    found = CentralDifferences(simulator)(np.zeros((1, 1)), np.array([[0.5]]))
    np.testing.assert_allclose(found.reward, [[0.0, np.cos(0.5)]], rtol=0, atol=1e-8)
    assert found.disagreement[0] < 1e-3


def test_smooth_functions_agree_at_stationary_points_as_well() -> None:
    for reward in (np.sin, np.square, np.ones_like, lambda x: 1e6 + x**4, lambda x: 1e-6 * x**2):
        assert at(scalar(reward), 0.0, 0.7, -2.0).disagreement.max() < 1e-3


@pytest.mark.parametrize("reward", [np.abs, np.floor, lambda x: np.maximum(x, 0.0)])
def test_a_kink_or_a_jump_within_reach_is_found(reward: Callable[[Array], Array]) -> None:
    near = at(scalar(reward), 0.0, DOUBLE_STEP / 3, -DOUBLE_STEP / 3).disagreement
    assert near.min() > 0.1
    # As far as the second step size, on one of the two sides.
    beside = at(scalar(reward), -4 * DOUBLE_STEP, 4 * DOUBLE_STEP).disagreement
    assert beside.max() > 0.1
    assert at(scalar(reward), 0.3, -0.3).disagreement.max() < 1e-3


def beside(offset: float) -> Callable[[Array], Array]:
    """``x`` with a jump of 1e-9 at ``offset``, which changes derivatives at 0 by up to 1e-3."""
    return lambda x: x + 1e-9 * (x > offset)


@pytest.mark.parametrize("offset", [-0.9, -0.2, 0.1, 0.6])
def test_a_small_jump_within_the_step_is_passed_by_with_a_shorter_one(offset: float) -> None:
    """The jump is too small for the longer step's test, but not for that of the shorter."""
    differences = scalar(beside(offset * DOUBLE_STEP))
    saved = np.zeros((1, 1))
    first = differences.differences(saved, saved, differences.steps)
    assert abs(first.reward[0, 0] - 1) == pytest.approx(1e-9 / (2 * DOUBLE_STEP), rel=1e-3)
    assert first.disagreement[0] < 0.05 and first.error[0] > 1e-5
    found = differences(saved, saved)
    np.testing.assert_allclose(found.reward[0, 0], 1.0, rtol=0, atol=1e-7)
    assert found.error[0] < MAX_ERROR
    assert found.disagreement[0] == first.disagreement[0]


def test_a_small_jump_within_every_step_is_an_error() -> None:
    found = at(scalar(beside(0.0)), 0.0)
    assert found.error[0] > 1e-5


def test_only_rows_with_an_error_are_computed_again() -> None:
    differences = scalar(beside(DOUBLE_STEP / 2))
    simulator: Any = differences.simulator
    smooth = at(differences, 0.5, -0.5)
    assert simulator.calls == 1 and smooth.error.max() < MAX_ERROR
    found = at(differences, 0.5, 0.0, -0.5)
    assert simulator.calls == 3
    assert np.array_equal(found.reward[[0, 2]], smooth.reward)


def test_single_precision_has_no_shorter_step() -> None:
    def step(state: Array, action: Array) -> tuple[Array, Array, Array]:
        return state + action, state, (state[:, 0] + (state[:, 0] > 1e-3)).astype(np.float32)

    simulator = Functional(step, 1, precision=SINGLE)
    CentralDifferences(simulator)(np.zeros((1, 1)), np.zeros((1, 1)))
    assert simulator.calls == 1


def test_jacobians_computed_elsewhere_are_tested_in_the_same_way() -> None:
    differences = scalar(np.sin)
    saved = np.array([[0.3], [0.3]])
    own = differences(saved, np.zeros((2, 1)))
    reward = own.reward[:, None].copy()
    reward[1] *= 1 + 1e-4
    tested = differences.test(saved, np.zeros((2, 1)), Parts(own.state, own.observation, reward))
    assert tested.disagreement[0] == own.disagreement[0]
    assert tested.error[0] < MAX_ERROR
    assert 0.7e-4 < tested.error[1] < 1.0e-4  # along a direction of components 0.8 to 1


def test_the_worst_part_counts() -> None:
    def step(state: Array, action: Array) -> tuple[Array, Array, Array]:
        return 1e3 * state + action, 1e3 * state, np.abs(state[:, 0])

    found = CentralDifferences(Functional(step, 1))(np.zeros((1, 1)), np.zeros((1, 1)))
    assert found.disagreement[0] > 0.1


def test_a_simulation_that_breaks_spoils_its_own_row_without_a_warning() -> None:
    def broken(x: Array) -> Array:
        return np.where(x > 1, np.inf, x)

    found = at(scalar(broken), 0.0, 2.0, 0.5)
    assert np.isfinite(found.reward[[0, 2]]).all() and not np.isfinite(found.reward[1]).any()
    assert not found.disagreement[1] < 1.0
    assert found.disagreement[[0, 2]].max() < 1e-3


def test_stairs_disagree() -> None:
    """A rounded function has the derivative 0 at almost every point, which is flagged."""
    stairs = scalar(lambda x: np.round(3 * x, 2))
    assert at(stairs, 0.4013, 0.7031, -2.0021).disagreement.min() == 1.0
    assert at(scalar(np.ones_like), 0.4013).disagreement.max() < 1e-6


def test_a_simulator_that_never_rounds_has_no_stairs() -> None:
    """There a number that stood still and moves further away is near a contact that closes."""
    rounded = scalar(lambda x: np.round(3 * x, 2))
    assert at(rounded, 0.4013).disagreement[0] == 1.0
    rounded.simulator.may_round = False
    assert at(rounded, 0.4013).disagreement[0] < 0.05  # the tolerance of a flag
