"""Checks that an environment can be saved and restored: records steps, then repeats each of them.

Shapes: ``S`` saved numbers, ``A`` action and ``O`` observation dimensions.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from pgtoolkit.envs.adapters.gymnasium.pytree_numbers import flatten
from pgtoolkit.envs.adapters.gymnasium.state_slots import StateSlots
from pgtoolkit.envs.adapters.simulation.simulator import Array, Outcome, Simulator
from pgtoolkit.errors import RequestError, single_line
from pgtoolkit.gymnasium_types import AnyEnv

NUM_EPISODES, MAX_STEPS = 3, 16
"""Recorded episodes, and the most steps recorded in each."""

INTERVENING_STEPS = 3
"""Steps of another episode that are taken before a recorded step is repeated."""

INFINITE_BOUND = 1e6
"""Bounds of an action space at least this large are treated as infinite."""

UNSAVED_TYPES = (deque, dict, list, tuple, set, np.ndarray, np.random.Generator)
"""Types of attributes that the error message lists if they could not be saved."""

IGNORED_ATTRIBUTES = ("_np_random", "metadata")
"""Attributes of every Gymnasium environment, which the error message does not list."""

STATE_ADVICE = (
    "Give the class get_state(self), which returns all that its future depends on as an array or "
    "a tuple of arrays and numbers (return np.array([self.position, self.velocity])), and "
    "set_state(self, state), which puts it back (self.position, self.velocity = state); or let a "
    "learned model give the gradient: --differentiate model (MuJoCo: --differentiate mujoco)"
)


class StepResult(NamedTuple):
    """One step of an episode."""

    action: NDArray[np.floating]
    """``[A]``, float32 or float64."""
    observation: Array
    """``[O]``: the observation after the step."""
    reward: float
    terminated: bool


class RecordedStep(NamedTuple):
    """A step with the states that were saved before and after it."""

    before: Array
    """``[S]``."""
    result: StepResult
    after: Array
    """``[S]``."""


def play_episodes(
    env: AnyEnv, action_space: Box, observe: Callable[[StepResult | None], None]
) -> None:
    """Plays a few episodes with random actions, alternately in double and single precision.

    Args:
        env: reset with the seeds 0, 1, ... and stepped.
        action_space: the action space of the environment.
        observe: called with None after each reset, and with the result after each step.

    Raises:
        RequestError: a step raises an exception.
    """
    rng = np.random.default_rng(0)
    for seed in range(NUM_EPISODES):
        env.reset(seed=seed)
        observe(None)
        for number in range(MAX_STEPS):
            action = _random_action(action_space, rng)
            given = action if number % 2 == 0 else action.astype(np.float32)
            observation, reward, terminated, truncated = _step(env, given)
            copied = np.array(observation, dtype=np.float64)
            observe(StepResult(given, copied, float(reward), bool(terminated)))
            if terminated or truncated:
                break


def record_steps(env: AnyEnv, action_space: Box, slots: StateSlots) -> list[RecordedStep]:
    """Plays a few episodes and saves the environment's state before and after each step."""
    found: list[RecordedStep] = []
    saved = [np.zeros(slots.size)]

    def observe(result: StepResult | None) -> None:
        saved.append(np.array(slots.capture()))
        if result is not None:
            found.append(RecordedStep(saved[-2], result, saved[-1]))

    play_episodes(env, action_space, observe)
    return found


def verify_steps(simulator: Simulator, env: AnyEnv, recorded: list[RecordedStep]) -> None:
    """Repeats each recorded step from its saved state and compares the results bit by bit.

    Before each repetition the environment takes steps of another episode, so that state which is
    not restored shows.

    Args:
        simulator: restores and steps the environment.
        env: the environment of the simulator.
        recorded: steps of the same environment.

    Raises:
        RequestError: a repetition differs.
    """
    rng = np.random.default_rng(1)
    for seed, step in enumerate(recorded, start=NUM_EPISODES):
        env.reset(seed=seed)
        for _ in range(INTERVENING_STEPS):
            *_, terminated, truncated = _step(env, _random_action(simulator.action_space, rng))
            if terminated or truncated:
                break
        repeated = simulator.step(step.before[None], step.result.action[None])
        different = _differences(step, repeated)
        if different:
            raise RequestError(_replay_error(env, different))


def require_float_state(env: AnyEnv, slots: StateSlots) -> None:
    """Raises if no slot of the environment holds a floating-point number.

    Raises:
        RequestError: says how to give access to the state.
    """
    if slots.are_floats.any():
        return
    name = type(env.unwrapped).__name__
    raise RequestError(
        f"the state of {name} cannot be saved and restored: it has no get_state() and set_state(), "
        "and no attribute that changes is a floating-point number or an array of them. "
        f"{STATE_ADVICE}"
    )


def _differences(step: RecordedStep, repeated: Outcome) -> list[str]:
    """Names of the parts that are not equal to the bit."""
    pairs = {
        "observation": (step.result.observation, repeated.observation[0]),
        "reward": (step.result.reward, repeated.reward[0]),
        "terminated": (step.result.terminated, repeated.terminated[0]),
        "next state": (step.after, repeated.saved[0]),
    }
    return [
        name
        for name, (first, again) in pairs.items()
        if np.asarray(first).tobytes() != np.asarray(again).tobytes()
    ]


def _replay_error(env: AnyEnv, different: list[str]) -> str:
    base = env.unwrapped
    left_out = [
        f"{name} ({type(value).__name__})"
        for name, value in vars(base).items()
        if name not in IGNORED_ATTRIBUTES
        and isinstance(value, UNSAVED_TYPES)
        and flatten(value) is None
    ]
    hint = f" Attributes that were not saved: {', '.join(left_out)}." if left_out else ""
    return (
        f"a step of {type(base).__name__} that is repeated from the state that was saved before it "
        f"gives another {' and '.join(different)}: either what was saved is not its whole state, "
        f"or its steps are random, which finite differences cannot differentiate.{hint} "
        f"{STATE_ADVICE}"
    )


def _random_action(space: Box, rng: np.random.Generator) -> Array:
    """A uniform action. An infinite bound is replaced by one at least 2 from the other bound."""
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    bounded_below, bounded_above = low > -INFINITE_BOUND, high < INFINITE_BOUND
    lowest = np.where(bounded_below, low, np.where(bounded_above, high - 2, -1.0))
    highest = np.where(bounded_above, high, np.maximum(lowest + 2, 1.0))
    action: Array = rng.uniform(lowest, highest)
    return action


def _step(env: AnyEnv, action: NDArray[np.floating]) -> tuple[Any, Any, Any, Any]:
    """Steps with a copy of the action; the info is dropped."""
    try:
        observation, reward, terminated, truncated, _ = env.step(action.copy())
    except Exception as error:
        raise RequestError(
            f"a step of {type(env.unwrapped).__name__} with the {action.dtype} action "
            f"{single_line(action)} raises {type(error).__name__}: {single_line(error)}. "
            "Differences need steps at any finite action, in double precision as well: clip it, do "
            "not refuse"
        ) from error
    return observation, reward, terminated, truncated
