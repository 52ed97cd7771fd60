"""Gymnasium environments as simulators: exact restoring, tangent space, and refusals."""

import collections
import random
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

from pgtoolkit.envs.adapters.gymnasium.simulator import GymnasiumSimulator
from pgtoolkit.envs.adapters.simulation.central_differences import CentralDifferences
from pgtoolkit.envs.adapters.simulation.simulator import Precision
from pgtoolkit.errors import RequestError

DOUBLE, SINGLE = np.dtype(np.float64), np.dtype(np.float32)
Step = tuple[NDArray[Any], float, bool, bool, dict[str, Any]]


class Cart(gymnasium.Env[NDArray[Any], NDArray[Any]]):
    """``v' = 0.9 v + a``, ``x' = x + 0.1 v'``, reward ``-x'^2``. State in one array."""

    observation_space = Box(-np.inf, np.inf, (2,), np.float64)
    action_space = Box(-1.0, 1.0, (1,), np.float32)
    matrix = np.array([[1.0, 0.09], [0.0, 0.9]])
    state: Any

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[NDArray[Any], Any]:
        super().reset(seed=seed)
        self.state = self.np_random.normal(size=2)
        return self.state, {}

    def step(self, action: NDArray[Any]) -> Step:
        self.state = self.matrix @ self.state + np.array([0.1, 1.0]) * action[0]
        return self.state, -(float(self.state[0]) ** 2), False, False, {}


class Exchanging(Cart):
    """A Cart whose state only ``get_state()`` and ``set_state()`` can access."""

    def __init__(self, dtype: Any = np.float64) -> None:
        self.hidden: Any = [collections.deque(maxlen=1)]
        self.dtype = dtype

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[NDArray[Any], Any]:
        super().reset(seed=seed)
        self.set_state(vars(self).pop("state").astype(self.dtype))
        return self.get_state(), {}

    def get_state(self) -> NDArray[Any]:
        state: NDArray[Any] = self.hidden[0][0]
        return state

    def set_state(self, state: NDArray[Any]) -> None:
        self.hidden[0].append(state)

    def step(self, action: NDArray[Any]) -> Step:
        matrix, push = self.matrix.astype(self.dtype), np.array([0.1, 1.0], self.dtype)
        after = matrix @ self.get_state() + push * self.dtype(action[0])
        self.set_state(after)
        return after, -(float(after[0]) ** 2), False, False, {}


class Odd(Cart):
    """A state of numbers of all types, some of which are absent at times; all affect the steps."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[NDArray[Any], Any]:
        super().reset(seed=seed)
        self.state = (0, float(self.np_random.normal()))
        self.count, self.flag = 0, False
        self.last: Any = None
        self.pair: list[Any] = [np.float32(0.1), 7]
        vars(self).pop("late", None)
        return self._see(), {}

    def step(self, action: NDArray[Any]) -> Step:
        last = 0.0 if self.last is None else float(self.last[0])
        self.count, self.flag = self.count + 1, not self.flag
        self.late = getattr(self, "late", np.int64(0)) + 2
        position, velocity = self.state
        velocity = 0.9 * velocity + float(action[0]) - 0.1 * last + 0.01 * self.late
        position = np.float64(position) + (0.1 if self.flag else 0.2) * velocity * self.pair[0]
        self.state, self.last = (position, velocity), np.array(action, dtype=np.float64)
        self.pair = [np.float32(0.9) * self.pair[0], self.pair[1] - 1]
        return self._see(), float(position) * self.pair[1], self.count >= 12, False, {}

    def _see(self) -> NDArray[Any]:
        return np.array(self.state, dtype=np.float64)


class Delayed(Cart):
    """Actions are delayed by a deque."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[NDArray[Any], Any]:
        self.queue = collections.deque([np.zeros(1)] * 2)
        return super().reset(seed=seed)

    def step(self, action: NDArray[Any]) -> Step:
        self.queue.append(action)
        return super().step(self.queue.popleft())


class Noisy(Cart):
    def step(self, action: NDArray[Any]) -> Step:
        return super().step(action + 0.01 * self.np_random.normal())


class Stateless(Cart):
    """A Cart with its state in a deque; no other attribute changes."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[NDArray[Any], Any]:
        super().reset(seed=seed)
        self.box = collections.deque([vars(self).pop("state")])
        return self.box[0], {}

    def step(self, action: NDArray[Any]) -> Step:
        self.box[0] = self.matrix @ self.box[0] + action[0]
        return self.box[0], 0.0, False, False, {}


class Constant(Cart):
    """No attribute changes."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[NDArray[Any], Any]:
        return np.zeros(2), {}

    def step(self, action: NDArray[Any]) -> Step:
        return np.zeros(2), 0.0, False, False, {}


class Changed(Cart):
    """A Cart with some attributes changed."""

    def __init__(self, **changes: Any) -> None:
        for name, value in changes.items():
            setattr(self, name, value)


class Truncating(Cart):
    def step(self, action: NDArray[Any]) -> Step:
        observation, reward, *_ = super().step(action)
        return observation, reward, False, True, {}


class Asserting(Cart):
    def step(self, action: NDArray[Any]) -> Step:
        assert self.action_space.contains(action)
        return super().step(action)


def simulator(env: gymnasium.Env[Any, Any], limit: int | None = 20) -> GymnasiumSimulator:
    return GymnasiumSimulator(lambda: env, max_episode_steps=limit)


def assert_plays_alike(found: GymnasiumSimulator, env: Any, dtype: Any, steps: int) -> None:
    """Compares two episodes of the simulator, stepped in turns, with the plain environment."""
    rng = np.random.default_rng(3)
    low, high = found.action_space.low, found.action_space.high
    starts = [found.reset(seed) for seed in (4, 5)]
    saved = np.stack([start[0] for start in starts])
    actions = rng.uniform(1.2 * low, 1.2 * high, (steps, 2, len(low))).astype(dtype)
    rows: list[list[tuple[Any, ...]]] = [[], []]
    for action in actions:
        outcome = found.step(saved, action)
        saved = outcome.saved
        for row in (0, 1):
            rows[row].append(tuple(part[row].tobytes() for part in outcome[1:]))
    for row, seed in enumerate((4, 5)):
        observation, _ = env.reset(seed=seed)
        assert np.asarray(observation, dtype=np.float64).tobytes() == starts[row][1].tobytes()
        for action, simulated in zip(actions[:, row], rows[row], strict=True):
            observation, reward, terminated, *_ = env.step(action)
            plain = (np.asarray(observation, dtype=np.float64), np.float64(reward))
            expected = (*(part.tobytes() for part in plain), np.bool_(terminated).tobytes())
            assert simulated == expected


@pytest.mark.parametrize("name", ["Pendulum-v1", "MountainCarContinuous-v0"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gymnasium_s_environments_to_the_bit_over_200_steps(name: str, dtype: Any) -> None:
    found = GymnasiumSimulator(lambda: gymnasium.make(name))
    assert found.max_episode_steps == gymnasium.spec(name).max_episode_steps
    assert_plays_alike(found, gymnasium.make(name).unwrapped, dtype, 200)


def test_precision_is_found_in_the_numbers() -> None:
    pendulum = GymnasiumSimulator(lambda: gymnasium.make("Pendulum-v1")).precision
    assert pendulum == Precision(state=DOUBLE, observation=SINGLE, reward=DOUBLE)
    car = GymnasiumSimulator(lambda: gymnasium.make("MountainCarContinuous-v0")).precision
    assert car == Precision(state=SINGLE, observation=SINGLE, reward=DOUBLE)
    single = simulator(Exchanging(np.float32)).precision
    assert (single.state, single.observation) == (SINGLE, SINGLE)


@pytest.mark.parametrize("env", [Cart(), Exchanging()])
def test_the_jacobians_of_a_linear_environment_are_exact(env: Cart) -> None:
    found = simulator(env)
    saved, _ = found.reset(0)
    jacobian = CentralDifferences(found)(saved[None], np.array([[0.3]]))
    truth = np.concatenate([Cart.matrix, [[0.1], [1.0]]], axis=1)
    np.testing.assert_allclose(jacobian.state[0], truth, rtol=0, atol=1e-8)
    np.testing.assert_allclose(jacobian.observation[0], truth, rtol=0, atol=1e-8)


def test_the_jacobians_in_single_precision() -> None:
    found = simulator(Exchanging(np.float32))
    saved, _ = found.reset(0)
    jacobian = CentralDifferences(found)(saved[None], np.array([[0.3]]))
    truth = np.concatenate([Cart.matrix, [[0.1], [1.0]]], axis=1)
    # Values below 4 are rounded by less than 1.2e-7, several times a step, over 2^-8.
    np.testing.assert_allclose(jacobian.state[0], truth, rtol=0, atol=4 * 1.2e-7 * 2**8)


def test_the_mountain_car_s_jacobian() -> None:
    found = GymnasiumSimulator(lambda: gymnasium.make("MountainCarContinuous-v0"))
    saved, _ = found.reset(0)
    for _ in range(5):
        saved = found.step(saved[None], np.array([[0.5]])).saved[0]
    jacobian = CentralDifferences(found)(saved[None], np.array([[0.5]]))
    slope = 0.0025 * 3 * np.sin(3 * saved[0])
    truth = np.array([[1 + slope, 1.0, 0.0015], [slope, 1.0, 0.0015]])
    np.testing.assert_allclose(jacobian.state[0], truth, rtol=0, atol=1e-4)
    np.testing.assert_allclose(jacobian.observation[0], truth, rtol=0, atol=1e-4)
    # The reward is an event's, less what the control costs.
    np.testing.assert_allclose(jacobian.reward[0], [0, 0, -0.1], rtol=0, atol=1e-8)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numbers_of_all_kinds_survive(dtype: Any) -> None:
    assert_plays_alike(simulator(Odd()), Odd(), dtype, 12)


def test_what_matters_beside_the_state_is_differentiated_and_nothing_else() -> None:
    found = simulator(Odd())
    # Of the attributes: state (2), last (1) and the first of pair; late, count and flag are whole.
    assert found.tangent_size == 4
    # Pendulum's last_u is for its picture.
    assert GymnasiumSimulator(lambda: gymnasium.make("Pendulum-v1")).tangent_size == 2


def test_wrappers_stay_but_for_time_limits() -> None:
    inner = gymnasium.wrappers.TimeLimit(Cart(), 30)
    outer = gymnasium.wrappers.RescaleAction(inner, np.float32(-2.0), np.float32(2.0))
    found = GymnasiumSimulator(lambda: gymnasium.wrappers.TimeLimit(outer, 40))
    assert found.max_episode_steps == 30
    saved, _ = found.reset(0)
    for _ in range(50):
        outcome = found.step(saved[None], np.array([[1.0]]))
        pushed = Cart.matrix @ saved[:2] + np.array([0.1, 1.0]) * 0.5
        np.testing.assert_allclose(outcome.observation[0], pushed, rtol=0, atol=1e-6)
        saved = outcome.saved[0]


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (Constant(), "cannot be saved and restored.*get_state.*--differentiate model"),
        (Truncating(), "truncates episodes by itself.*--adapter-kwargs"),
        (Asserting(), "float64 action .* raises AssertionError"),
        (Changed(action_space=Discrete(2)), "the action_space of Changed is Discrete"),
        (Changed(action_space=Box(-1, 1, (1, 1))), "one-dimensional Box"),
        (Changed(action_space=Box(0, 5, (1,), np.int64)), "one-dimensional Box"),
        (Changed(observation_space=Box(-1, 1, (2, 2))), "FlattenObservation"),
    ],
)
def test_what_cannot_be_differenced_is_refused(env: Cart, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        GymnasiumSimulator(lambda: gymnasium.wrappers.TimeLimit(env, 20))


def test_hidden_global_randomness_is_refused() -> None:
    class Global(Cart):
        def step(self, action: NDArray[Any]) -> Step:
            return super().step(action + 1e-6 * random.random())

    with pytest.raises(RequestError, match="random"):
        simulator(Global())


def test_a_time_limit_is_needed_and_a_given_one_replaces_the_environment_s_own() -> None:
    with pytest.raises(RequestError, match="no time limit, and a differentiable"):
        simulator(Cart(), None)
    with pytest.raises(RequestError, match="at least 1"):
        simulator(Cart(), 0)
    found = simulator(Truncating(), 7)
    assert found.max_episode_steps == 7
    saved, _ = found.reset(0)
    assert not found.step(saved[None], np.zeros((1, 1))).terminated[0]


def test_a_state_may_change_its_shape() -> None:
    class Growing(Cart):
        def step(self, action: NDArray[Any]) -> Step:
            step = super().step(action)
            if action[0] > 5:
                self.state = np.zeros(3)
            return step

    found = simulator(Growing())
    saved, _ = found.reset(0)
    size = found.saved_size
    after = found.step(saved[None], np.array([[6.0]])).saved
    assert after.shape[1] > size
    found.step(saved[None], np.array([[0.0]]))
    assert found.env.unwrapped.state.shape == (2,)  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", [Delayed, Noisy, Stateless])
def test_deques_and_random_generators_are_state(kind: type[Cart]) -> None:
    assert_plays_alike(simulator(kind()), kind(), np.float64, 40)


def test_a_log_that_grows_is_no_state() -> None:
    class Logging(Cart):
        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            self.log: list[float] = []
            return super().reset(seed=seed)

        def step(self, action: NDArray[Any]) -> Step:
            step = super().step(action)
            self.log.append(step[1])
            return step

    assert_plays_alike(simulator(Logging()), Logging(), np.float64, 40)


def test_actions_and_states_are_left_alone() -> None:
    class InPlace(Cart):
        def step(self, action: NDArray[Any]) -> Step:
            np.clip(action, -1, 1, out=action)
            self.state *= 0.9
            self.state += action
            return self.state, 0.0, False, False, {}

    found = simulator(InPlace())
    saved = np.stack([found.reset(seed)[0] for seed in (0, 1)])
    action, before = np.full((2, 1), 3.0), saved.copy()
    first = found.step(saved, action)
    again = found.step(saved, action)
    assert (action == 3).all() and (saved == before).all()
    assert first.observation.tobytes() == again.observation.tobytes()
