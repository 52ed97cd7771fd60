"""Whether saving and restoring an environment is exact: a rehearsal, and its repetition.

Shapes: ``S`` saved numbers, ``A`` action and ``O`` observation dimensions.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from pgtoolkit.envs.adapters.gymnasium.pytree_numbers import flatten
from pgtoolkit.envs.adapters.gymnasium.state_slots import SavedNumbers
from pgtoolkit.envs.adapters.simulation.simulator import Array, Outcome, Simulator
from pgtoolkit.errors import RequestError, single_line
from pgtoolkit.gymnasium_types import AnyEnv

EPISODES, STEPS = 3, 16

# Steps of another episode, between two steps that are repeated.
_DISTURBANCE = 3

# Bounds beyond it stand for infinity.
_HUGE = 1e6

_CONTAINERS = (deque, dict, list, tuple, set, np.ndarray, np.random.Generator)

# Gymnasium's own, which change no step unless the step is random.
_NOT_STATE = ("_np_random", "metadata")

ADVICE = (
    "Give the class get_state(self), which returns all that its future depends on as an array or "
    "a tuple of arrays and numbers (return np.array([self.position, self.velocity])), and "
    "set_state(self, state), which puts it back (self.position, self.velocity = state); or let a "
    "learned model give the gradient: --differentiate model (MuJoCo: --differentiate mujoco)"
)


class Played(NamedTuple):
    """One step of an episode."""

    action: NDArray[np.floating]
    """``[A]``, in single or in double precision."""
    observation: Array
    """``[O]``."""
    reward: float
    terminated: bool


class Rehearsed(NamedTuple):
    """A step that was played, between what was saved before and after it, ``[S]`` each."""

    before: Array
    played: Played
    after: Array


def play(env: AnyEnv, action_space: Box, observe: Callable[[Played | None], None]) -> None:
    """Some episodes of random actions, in double and single precision by turns.

    Args:
        env: is reset with seeds, and steps on undisturbed.
        action_space: its own.
        observe: called with None after each reset, and after each step.

    Raises:
        RequestError: a step raises an exception.
    """
    rng = np.random.default_rng(0)
    for seed in range(EPISODES):
        env.reset(seed=seed)
        observe(None)
        for number in range(STEPS):
            action = _random_action(action_space, rng)
            given = action if number % 2 == 0 else action.astype(np.float32)
            observation, reward, terminated, truncated = _step(env, given)
            copied = np.array(observation, dtype=np.float64)
            observe(Played(given, copied, float(reward), bool(terminated)))
            if terminated or truncated:
                break


def rehearse(env: AnyEnv, action_space: Box, numbers: SavedNumbers) -> list[Rehearsed]:
    """Plays, and saves the environment on the way."""
    found: list[Rehearsed] = []
    saved = [np.zeros(numbers.size)]

    def observe(played: Played | None) -> None:
        saved.append(np.array(numbers.capture()))
        if played is not None:
            found.append(Rehearsed(saved[-2], played, saved[-1]))

    play(env, action_space, observe)
    return found


def prove(simulator: Simulator, env: AnyEnv, rehearsal: list[Rehearsed]) -> None:
    """Repeats each step of the rehearsal from its saved state, each after another episode.

    Args:
        simulator: restores and steps the environment.
        env: which one.
        rehearsal: of the same environment.

    Raises:
        RequestError: a repetition differs.
    """
    rng = np.random.default_rng(1)
    for seed, step in enumerate(rehearsal, start=EPISODES):
        env.reset(seed=seed)
        for _ in range(_DISTURBANCE):
            *_, terminated, truncated = _step(env, _random_action(simulator.action_space, rng))
            if terminated or truncated:
                break
        repeated = simulator.step(step.before[None], step.played.action[None])
        different = _differences(step, repeated)
        if different:
            raise RequestError(_refusal(env, different))


def require_numbers(env: AnyEnv, numbers: SavedNumbers) -> None:
    """Raises if there is no floating-point number in the environment that could be its state.

    Raises:
        RequestError: says how to give access to it.
    """
    if numbers.are_floats.any():
        return
    name = type(env.unwrapped).__name__
    raise RequestError(
        f"the state of {name} cannot be saved and restored: it has no get_state() and set_state(), "
        f"and no attribute that changes is a floating-point number or an array of them. {ADVICE}"
    )


def _differences(step: Rehearsed, repeated: Outcome) -> list[str]:
    pairs = {
        "observation": (step.played.observation, repeated.observation[0]),
        "reward": (step.played.reward, repeated.reward[0]),
        "terminated": (step.played.terminated, repeated.terminated[0]),
        "next state": (step.after, repeated.saved[0]),
    }
    return [
        name
        for name, (first, again) in pairs.items()
        if np.asarray(first).tobytes() != np.asarray(again).tobytes()
    ]


def _refusal(env: AnyEnv, different: list[str]) -> str:
    base = env.unwrapped
    left_out = [
        f"{name} ({type(value).__name__})"
        for name, value in vars(base).items()
        if name not in _NOT_STATE and isinstance(value, _CONTAINERS) and flatten(value) is None
    ]
    hint = f" Attributes that were not saved: {', '.join(left_out)}." if left_out else ""
    return (
        f"a step of {type(base).__name__} that is repeated from the state that was saved before it "
        f"gives another {' and '.join(different)}: either what was saved is not its whole state, "
        f"or its steps are random, which finite differences cannot differentiate.{hint} {ADVICE}"
    )


def _random_action(space: Box, rng: np.random.Generator) -> Array:
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    bounded_below, bounded_above = low > -_HUGE, high < _HUGE
    lowest = np.where(bounded_below, low, np.where(bounded_above, high - 2, -1.0))
    highest = np.where(bounded_above, high, np.maximum(lowest + 2, 1.0))
    action: Array = rng.uniform(lowest, highest)
    return action


def _step(env: AnyEnv, action: NDArray[np.floating]) -> tuple[Any, Any, Any, Any]:
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
