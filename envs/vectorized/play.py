"""Resets and steps of one environment that never raise for what the environment does."""

from collections.abc import Mapping
from typing import Any, NamedTuple, final

import gymnasium
import numpy as np

from pgtoolkit.envs.registry.ordinary import time_limit
from pgtoolkit.envs.vectorized.causes import Failure, failure_of
from pgtoolkit.gymnasium_types import AnyEnv
from pgtoolkit.rollouts.success import IS_SUCCESS

Start = dict[str, Any]
"""What determines an episode, as JSON can hold it: ``seed``, or ``generator``, the state of the
environment's generator before a reset without a seed."""


@final
class NewEpisode(NamedTuple):
    """The result of a reset."""

    observation: Any
    start: Start


Answer = tuple[Any, Any, bool, bool, NewEpisode | Failure | None, bool | None]
"""Observation, reward, terminated, truncated of a step; then the reset if the episode ended, and
``is_success`` of the step's info, None where it has none."""


@final
class EnvFacts(NamedTuple):
    """What a vector environment knows of one environment."""

    observation_space: gymnasium.Space[Any]
    action_space: gymnasium.Space[Any]
    metadata: dict[str, Any]
    render_mode: str | None
    time_limit: int | None
    resume: str


def facts_of(env: AnyEnv) -> EnvFacts:
    """Spaces, metadata, time limit, and how the environment can be resumed."""
    return EnvFacts(
        env.observation_space,
        env.action_space,
        dict(env.metadata),
        env.render_mode,
        time_limit(env),
        getattr(env, "resume", "new episodes"),
    )


def play_step(env: AnyEnv, action: Any) -> Answer | Failure:
    """One step, and the reset after it if the episode ended (autoreset SAME_STEP)."""
    try:
        obs, reward, terminated, truncated, info = env.step(action)
        success = info.get(IS_SUCCESS)
    except BaseException as error:
        return failure_of(error)
    if terminated or truncated:
        return obs, reward, terminated, truncated, play_reset(env, None, None), success
    return obs, reward, terminated, truncated, None, success


def play_reset(
    env: AnyEnv, seed: int | None, options: dict[str, Any] | None
) -> NewEpisode | Failure:
    """A reset, with what determines the episode that it starts."""
    try:
        start = start_of(env, seed)
        return NewEpisode(env.reset(seed=seed, options=options)[0], start)
    except BaseException as error:
        return failure_of(error)


def start_of(env: AnyEnv, seed: int | None) -> Start:
    """The start of the episode that ``env.reset(seed=seed)`` will begin."""
    generator = getattr(env.unwrapped, "_np_random", None)
    if seed is not None or not isinstance(generator, np.random.Generator):
        return {"seed": seed, "generator": None}
    return {"seed": None, "generator": _plain(generator.bit_generator.state)}


def _plain(value: Any) -> Any:
    """A bit generator's state without arrays."""
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def get_state(env: AnyEnv) -> dict[str, Any] | None:
    """The environment's ``state_dict()``; None if it has none."""
    save = getattr(env, "state_dict", None)
    return None if save is None else save()


def set_state(env: AnyEnv, state: dict[str, Any]) -> Any:
    """Puts a result of :func:`get_state` back; returns the observation to act on."""
    loaded: Any = env
    return loaded.load_state_dict(state)


def call(env: AnyEnv, name: str, arguments: tuple[Any, ...]) -> Any:
    """Calls a method of the environment or of a wrapper, or returns an attribute."""
    found = env.get_wrapper_attr(name)
    return found(*arguments) if callable(found) else found
