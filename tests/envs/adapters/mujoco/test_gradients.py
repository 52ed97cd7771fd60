"""Derivatives of MuJoCo environments, compared with differences of the plain environments."""

import functools
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.mujoco.hopper_v5 import HopperEnv
from gymnasium.wrappers import TimeLimit
from numpy.typing import NDArray

from pgtoolkit.envs.adapters.mujoco.batches import MuJoCoBatchSimulator, batch_step, loop_step
from pgtoolkit.envs.adapters.mujoco.derivatives import ChainedTransitions, can_chain
from pgtoolkit.envs.adapters.mujoco.simulator import MuJoCoSimulator
from pgtoolkit.envs.adapters.mujoco.snapshot import import_mujoco, quiet_loading
from pgtoolkit.envs.adapters.simulation.central_differences import CentralDifferences, Steps
from pgtoolkit.envs.adapters.simulation.simulator import Array, Linearization, Linearizer

NAMES = (
    "Ant",
    "HalfCheetah",
    "Hopper",
    "Humanoid",
    "HumanoidStandup",
    "InvertedDoublePendulum",
    "InvertedPendulum",
    "Pusher",
    "Reacher",
    "Swimmer",
    "Walker2d",
)
OPTIONS: dict[str, dict[str, Any]] = {
    "Ant": {
        "forward_reward_weight": 2.0,
        "ctrl_cost_weight": 0.3,
        "contact_cost_weight": 0.1,
        "healthy_reward": 0.4,
        "main_body": "aux_1",
        "healthy_z_range": (0.55, 0.7),
        "contact_force_range": (-0.5, 0.2),
        "exclude_current_positions_from_observation": False,
    },
    "HalfCheetah": {
        "forward_reward_weight": 2.0,
        "ctrl_cost_weight": 0.3,
        "exclude_current_positions_from_observation": False,
    },
    "Hopper": {
        "healthy_reward": 0.4,
        "healthy_z_range": (1.24, 9.0),
        "healthy_angle_range": (-0.02, 0.02),
        "healthy_state_range": (-2.0, 2.0),
        "exclude_current_positions_from_observation": False,
    },
    "Humanoid": {
        "contact_cost_weight": 1e-3,
        "contact_cost_range": (-np.inf, 0.5),
        "healthy_z_range": (1.38, 2.0),
        "include_cvel_in_observation": False,
        "include_cfrc_ext_in_observation": False,
    },
    "HumanoidStandup": {
        "uph_cost_weight": 2.0,
        "ctrl_cost_weight": 0.3,
        "impact_cost_weight": 1e-3,
        "impact_cost_range": (-np.inf, 1.0),
        "include_cinert_in_observation": False,
        "include_qfrc_actuator_in_observation": False,
    },
    "InvertedDoublePendulum": {"healthy_reward": 3.0},
    "Pusher": {"reward_near_weight": 2.0, "reward_dist_weight": 3.0, "reward_control_weight": 0.5},
    "Reacher": {"reward_dist_weight": 3.0, "reward_control_weight": 0.5},
    "Swimmer": {"forward_reward_weight": 2.0, "exclude_current_positions_from_observation": False},
    "Walker2d": {"healthy_reward": 0.4, "healthy_z_range": (1.2, 2.0)},
}


def plain(name: str, **options: Any) -> gymnasium.Env[Any, Any]:
    with quiet_loading():
        return gymnasium.make(f"{name}-v5", **options)


@functools.cache
def simulator(name: str) -> MuJoCoSimulator:
    return MuJoCoSimulator(lambda: plain(name))


def batches(of: MuJoCoSimulator, threads: int = 1) -> MuJoCoBatchSimulator:
    assert of.readout is not None
    return MuJoCoBatchSimulator(of, of.readout, threads)


def fast(name: str) -> Linearizer:
    """The linearizer that the adapter chooses."""
    batched = batches(simulator(name))
    return ChainedTransitions(batched) if can_chain(batched) else CentralDifferences(batched)


def actions_for(pure: MuJoCoSimulator, count: int, seed: int) -> Array:
    """Random actions within 0.9 of the range, so that differences stay within the bounds."""
    high = pure.action_space.high.astype(np.float64)
    return np.random.default_rng(seed).uniform(-0.9, 0.9, (count, len(high))) * high


def states(pure: MuJoCoSimulator, count: int) -> Array:
    """Every third state of an episode with random actions."""
    saved = pure.reset(0)[0]
    found = []
    for index, action in enumerate(actions_for(pure, 3 * count, seed=5)):
        saved = pure.step(saved[None], action[None]).saved[0]
        if index % 3 == 2:
            found.append(saved)
    return np.stack(found)


def close(found: Linearization, expected: Linearization, tolerance: float) -> bool:
    """Whether Jacobians agree, relative to the largest entry of each part and state."""
    for a, b in zip(found[:3], expected[:3], strict=True):
        a, b = (x.reshape(len(x), -1) for x in (a, b))
        if not np.all(np.abs(a - b).max(1) <= tolerance * (np.abs(b).max(1) + 1e-3)):
            return False
    return True


def return_gradient(
    pure: MuJoCoSimulator, linearize: Linearizer, seed: int, actions: Array
) -> tuple[Array, NDArray[np.float64]]:
    """Gradient of the return by all actions, by the adjoint recursion, and the disagreements."""
    saved, steps = pure.reset(seed)[0][None], []
    for action in actions:
        steps.append(linearize(saved, action[None]))
        saved = pure.step(saved, action[None]).saved
    gradient, adjoint = np.zeros_like(actions), np.zeros(pure.tangent_size)
    for t in reversed(range(len(actions))):
        both = steps[t].reward[0] + adjoint @ steps[t].state[0]
        adjoint, gradient[t] = np.split(both, [pure.tangent_size])
    return gradient, np.array([step.disagreement[0] for step in steps])


def differenced_return(
    env: gymnasium.Env[Any, Any], seed: int, actions: Array, steps: int | None = None
) -> Array:
    """Central differences of the environment's own return by the first actions, or by all."""

    def total(changed: Array) -> float:
        env.reset(seed=seed)
        return sum(float(env.step(action)[1]) for action in changed)

    gradient, size = np.zeros_like(actions[:steps]), 1e-6
    for index in np.ndindex(*gradient.shape):
        move = np.zeros_like(actions)
        move[index] = size
        gradient[index] = (total(actions + move) - total(actions - move)) / (2 * size)
    return gradient


@pytest.mark.parametrize("name", [name for name in NAMES if name != "HumanoidStandup"])
def test_gradient_of_an_eight_step_return(name: str) -> None:
    """It equals differences to 1e-5 of the largest entry. The slow humanoid takes four steps."""
    pure = simulator(name)
    actions = actions_for(pure, 4 if name == "Humanoid" else 8, seed=0)
    gradient, _ = return_gradient(pure, fast(name), 0, actions)
    expected = differenced_return(plain(name), 0, actions)
    assert np.abs(gradient - expected).max() <= 1e-5 * np.abs(expected).max()
    assert bool(np.abs(expected).max() > 0) is (name != "InvertedPendulum")


@pytest.mark.parametrize("seed", [0, 3])
def test_gradient_of_a_humanoid_that_lies(seed: int) -> None:
    """PGS stops at contact forces of four digits, so that a step jumps with its iterations.

    With the ordinary step, seed 0 is wrong by 2e-4. Without the derivative by the solver's warm
    start, seed 3 is wrong by 6e-5 (mujoco 4.0).
    """
    pure = simulator("HumanoidStandup")
    actions = actions_for(pure, 8, seed=100 + seed)
    gradient, _ = return_gradient(pure, fast("HumanoidStandup"), seed, actions)
    expected = differenced_return(plain("HumanoidStandup"), seed, actions, steps=2)
    assert np.abs(gradient[:2] - expected).max() <= 1e-5 * np.abs(expected).max()


def test_the_reward_of_an_event_has_no_gradient() -> None:
    """InvertedPendulum-v5 pays 1 while the pole is up: the reward's gradient is exactly 0."""
    pure = simulator("InvertedPendulum")
    found = fast("InvertedPendulum")(states(pure, 3), actions_for(pure, 3, seed=1))
    assert np.all(found.reward == 0)
    assert np.abs(found.state[:, :, -1]).max() > 1e-3


def test_without_what_the_step_before_left_the_gradient_is_wrong() -> None:
    """The test of the return would notice a missing derivative by Ant's earlier torso position."""
    pure = simulator("Ant")
    actions = actions_for(pure, 8, seed=0)
    exact, _ = return_gradient(pure, fast("Ant"), 0, actions)

    def without_torso(saved: Array, action: Array) -> Linearization:
        found = fast("Ant")(saved, action)
        found.reward[:, pure.tangent_size - 1] = 0
        return found

    wrong, _ = return_gradient(pure, without_torso, 0, actions)
    assert np.abs(wrong - exact).max() > 0.01 * np.abs(exact).max()


@pytest.mark.parametrize("options", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_readouts_are_what_the_environments_return(name: str, options: bool) -> None:
    """Tested with the default options, and with every option changed that a readout uses."""
    pure = MuJoCoSimulator(lambda: plain(name, **(OPTIONS.get(name, {}) if options else {})))
    saved = states(pure, 6)
    actions = 1.5 * actions_for(pure, 6, seed=2)
    expected, found = pure.step(saved, actions), batches(pure).step(saved, actions)
    assert np.allclose(found.observation, expected.observation, rtol=1e-12, atol=1e-12)
    assert np.allclose(found.reward, expected.reward, rtol=1e-12, atol=1e-12)
    assert np.abs(pure.displacement(found.saved, expected.saved)).max() < 1e-12


@pytest.mark.parametrize("name", NAMES)
def test_batches_give_the_derivatives_of_the_environments_own_steps(name: str) -> None:
    pure = simulator(name)
    saved, actions = states(pure, 2), actions_for(pure, 2, seed=3)
    expected = CentralDifferences(pure)(saved, actions)
    assert close(CentralDifferences(batches(pure))(saved, actions), expected, 1e-7)


@pytest.mark.parametrize("name", ["HalfCheetah", "Pusher"])
def test_chained_transitions_are_the_derivatives_of_whole_steps(name: str) -> None:
    """Compared to 1e-6 with differences of a quarter of the step size.

    The smaller step is needed because third derivatives are large in contact.
    """
    pure, small = simulator(name), 2.0**-22
    saved, actions = states(pure, 12), actions_for(pure, 12, seed=3)
    steps = Steps(state=small, observation=small, reward=small)
    expected = CentralDifferences(batches(pure), steps)(saved, actions)
    found = fast(name)(saved, actions)
    assert np.all(found.disagreement < 1e-3)
    assert close(found, expected, 1e-6)


def test_who_can_be_chained() -> None:
    """``mjd_transitionFD`` does not support the Runge-Kutta integrator of the other models."""
    chained = {name for name in NAMES if can_chain(batches(simulator(name)))}
    assert chained == {"HalfCheetah", "Pusher"}


def test_a_solver_that_stops_early_is_not_chained() -> None:
    """``mjd_transitionFD`` has no derivative by the solver's warm start."""

    def make() -> gymnasium.Env[Any, Any]:
        env = plain("HalfCheetah")
        inner: Any = env.unwrapped
        inner.model.opt.solver = import_mujoco().mjtSolver.mjSOL_PGS
        return env

    assert not can_chain(batches(MuJoCoSimulator(make)))


@pytest.mark.parametrize("name", ["HalfCheetah", "Hopper", "Reacher"])
def test_an_action_beyond_its_bounds_has_no_effect_but_on_its_cost(name: str) -> None:
    pure = simulator(name)
    saved, actions = states(pure, 2), np.full((2, pure.action_space.shape[0]), 1.5)
    found = fast(name)(saved, actions)
    by_action = found.state[:, :, pure.tangent_size :]
    assert np.abs(by_action).max() == 0
    assert np.all(found.reward[:, pure.tangent_size :] < -1e-4)


def test_a_touchdown_is_flagged() -> None:
    """Flagged where Hopper's foot ends a step 1e-7 m above the ground, but not at 1 cm."""
    pure = simulator("Hopper")
    saved, _ = pure.reset(0)
    saved[pure.snapshot.qpos] = [0, 1.4, 0, -0.5, -0.5, 0.1]  # no joint at its limit
    saved[pure.snapshot.qvel] = [0, -1, 0, 0, 0, 0]
    height = pure.snapshot.qpos.start + 1

    def at(value: float) -> Array:
        moved = saved[None].copy()
        moved[0, height] = value
        return moved

    def speed(value: float) -> float:
        after = pure.step(at(value), np.zeros((1, 3))).saved[0]
        return float(after[pure.snapshot.qvel][1])

    touching, clear = 1.0, 1.4
    for _ in range(50):
        middle = (touching + clear) / 2
        free = abs(speed(middle) - speed(1.4)) < 1e-9
        touching, clear = (touching, middle) if free else (middle, clear)
    states = np.concatenate([at(clear + 1e-7), at(clear + 1e-2), at(touching - 1e-2)])
    found = fast("Hopper")(states, np.zeros((3, 3)))
    assert found.disagreement[0] > 0.05
    assert np.all(found.disagreement[1:] < 1e-3)


def test_a_subclass_with_a_reward_of_its_own_takes_its_own_steps() -> None:
    class Backwards(HopperEnv):
        def step(self, action: Any) -> Any:
            observation, reward, *rest = HOPPER_STEP(self, action)
            return observation, -reward, *rest

    pure = MuJoCoSimulator(lambda: TimeLimit(Backwards(), 100))
    assert pure.readout is None
    saved, actions = states(simulator("Hopper"), 1), actions_for(pure, 1, seed=3)
    own = np.concatenate([saved, np.zeros((1, pure.saved_size - saved.shape[1]))], axis=1)
    found = CentralDifferences(pure)(own, actions)
    expected = fast("Hopper")(saved, actions)
    assert np.allclose(found.reward, -expected.reward, atol=1e-7)
    assert np.allclose(found.state, expected.state, atol=1e-7)


@pytest.mark.parametrize("name", ["Ant", "Hopper"])
def test_threads_change_nothing(name: str) -> None:
    pure = simulator(name)
    saved, actions = np.repeat(states(pure, 4), 8, axis=0), actions_for(pure, 32, seed=3)
    one, three = (batches(pure, threads).step(saved, actions) for threads in (1, 3))
    for a, b in zip(one, three, strict=True):
        assert np.array_equal(a, b)


def test_rollout_and_the_loop_are_the_same_simulation() -> None:
    pure = simulator("HalfCheetah")
    saved, actions = states(pure, 4), actions_for(pure, 4, seed=3)
    both: list[Callable[..., Any]] = [batch_step, loop_step]
    rolled, looped = (make(pure.snapshot, 5, (), 1)(saved, actions) for make in both)
    for name in ("qpos", "qvel", "act"):
        assert np.array_equal(rolled[name], looped[name])


def test_differences_leave_the_solver_and_its_options_alone() -> None:
    for name in ("HalfCheetah", "Reacher", "Swimmer"):
        pure = simulator(name)
        fast(name)(states(pure, 1), actions_for(pure, 1, seed=0))
        fresh: Any = plain(name).unwrapped
        for option in (n for n in dir(fresh.model.opt) if not n.startswith("_")):
            used = getattr(pure.env.model.opt, option)
            assert np.array_equal(used, getattr(fresh.model.opt, option)), (name, option)


HOPPER_STEP: Any = HopperEnv.step
