"""Ordinary environments as they come, made fit for a vector environment.

Gymnasium's vector environments take what an environment returns as it is. They write into an array
that the environment may keep, they stack infos whose shapes may change from step to step, and a
wrong shape or type becomes an exception deep inside Gymnasium or NumPy.
"""

import inspect
from typing import Any, final

import gymnasium
import numpy as np
from gymnasium.spaces import Dict
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker
from numpy.typing import NDArray

from pgtoolkit.envs.numpy_env import NumpyEnv
from pgtoolkit.envs.registry.allowed_actions import allows_nothing, with_allowed_actions
from pgtoolkit.envs.registry.observation_check import mismatch
from pgtoolkit.envs.registry.ordinary import without_checking_wrappers
from pgtoolkit.errors import RequestError, single_line
from pgtoolkit.gymnasium_types import AnyEnv
from pgtoolkit.networks.flat_rows import needs_flattening
from pgtoolkit.networks.parts import ACTION_MASK
from pgtoolkit.rollouts.success import IS_SUCCESS

RESET_FORM = "write reset(self, *, seed=None, options=None) that returns (observation, info)"

STEP_FORM = "return (observation, reward, terminated, truncated, info)"

NUMBERS = (float, int, np.floating, np.integer, np.bool_)
"""Types of rewards that a vector environment takes; ``isinstance`` is fastest with a tuple."""

TRUTH_VALUES = (bool, np.bool_, int, np.integer)

StepResult = tuple[Any, Any, Any, Any, dict[str, Any]]


@final
class InterfaceError(RequestError):
    """An environment returned something else than Gymnasium's interface says."""


def guard(env: AnyEnv, name: str) -> AnyEnv:
    """The environment, checked and with results that a vector environment can keep.

    The wrappers of the environment are changed in place: Gymnasium's own checkers are taken out,
    because :class:`Interface` and :class:`Guard` check the same at every step and cost less.

    Args:
        env: a new environment with its wrappers, before its observations are flattened.
        name: the environment's name, for messages.

    Raises:
        RequestError: ``reset`` does not take a seed and options.
    """
    if isinstance(without_checking_wrappers(env), NumpyEnv):
        return env
    return Guard(_with_interface(env, name), name)


def require_interface(env: AnyEnv, name: str) -> None:
    """Resets the environment and takes one step, for users that step it without a :class:`Guard`.

    Raises:
        RequestError: one of them does not return what Gymnasium's interface says.
    """
    checked = with_allowed_actions(guard(env, name))
    checked.action_space.seed(0)
    checked.reset(seed=0)
    checked.step(checked.action_space.sample())


@final
class Interface(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Checks that ``reset`` and ``step`` are called and return as Gymnasium's interface says.

    It is the innermost wrapper, because all others rely on the interface.

    Raises:
        RequestError: ``reset`` does not take a seed and options.
    """

    def __init__(self, env: AnyEnv, name: str) -> None:
        super().__init__(env)
        self._name = name
        _require_reset_arguments(env, name)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        result: Any = self.env.reset(seed=seed, options=options)
        if not isinstance(result, tuple) or len(result) != 2:
            raise _interface_error(self._name, f"reset returns {_describe(result)}", RESET_FORM)
        obs, info = result
        if not isinstance(info, dict):
            if info is not None:
                found = f"reset returns {_describe(info)} as its info"
                raise _interface_error(self._name, found, RESET_FORM)
            info = {}
        return obs, info

    def step(self, action: Any) -> StepResult:
        result: Any = self.env.step(action)
        if type(result) is tuple and len(result) == 5 and type(result[4]) is dict:
            return result
        if not isinstance(result, tuple | list) or len(result) != 5:
            raise _interface_error(self._name, f"step returns {_describe(result)}", STEP_FORM)
        obs, reward, terminated, truncated, info = result
        return obs, reward, terminated, truncated, info if isinstance(info, dict) else {}


@final
class Guard(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Checks observations, rewards and ends, copies observations, and leaves infos out.

    Observations that are flattened outside of it are not copied, because flattening copies. Infos
    end here, because no agent reads them, but for the step's ``is_success``.
    """

    def __init__(self, env: AnyEnv, name: str) -> None:
        super().__init__(env)
        self._name = name
        self._space = env.observation_space
        self._is_kept = not needs_flattening(self._space)
        self._shape = self._space.shape if self._is_kept else None
        self._dtype = np.dtype(self._space.dtype) if self._is_kept else None
        self._has_mask = isinstance(self._space, Dict) and ACTION_MASK in self._space.spaces

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        obs, _ = self.env.reset(seed=seed, options=options)
        found = self._checked(obs)
        if self._has_mask:
            self._require_allowed(obs)
        return found, {}

    def step(self, action: Any) -> StepResult:
        # The forms that are right already are passed by with the least work.
        obs, reward, terminated, truncated, info = self.env.step(action)
        if type(reward) is not float:
            reward = _number(self._name, reward)
        if type(terminated) is not bool:
            terminated = _flag(self._name, "terminated", terminated)
        if type(truncated) is not bool:
            truncated = _flag(self._name, "truncated", truncated)
        kept = self._with_success(info) if info and IS_SUCCESS in info else {}
        found = self._checked(obs)
        if self._has_mask and not (terminated or truncated):
            self._require_allowed(obs)
        return found, reward, terminated, truncated, kept

    def _with_success(self, info: dict[str, Any]) -> dict[str, Any]:
        """An info with ``is_success`` as a bool alone; without it if it is None."""
        value = info[IS_SUCCESS]
        if value is None:
            return {}
        return {IS_SUCCESS: _flag(self._name, "info['is_success']", value)}

    def _require_allowed(self, obs: Any) -> None:
        """Raises where no action is allowed to go on; at an end nobody reads the mask."""
        if allows_nothing(self.env.action_space, np.asarray(obs[ACTION_MASK])):
            found = f"the part {ACTION_MASK!r} of the observation allows no action"
            raise _interface_error(self._name, found, "allow one, or end the episode there")

    def _checked(self, obs: Any) -> Any:
        """A copy of the observation if it is kept as it is, else the observation itself."""
        if type(obs) is np.ndarray and obs.dtype is self._dtype and obs.shape == self._shape:
            return obs.copy()
        found = mismatch(self._space, obs)
        if found:
            advice = "return what observation_space says, or change the space"
            raise _interface_error(self._name, found, advice)
        return self._converted(obs) if self._is_kept else obs

    def _converted(self, obs: Any) -> NDArray[Any]:
        """A new array of the space's kind of numbers; integers stay what they are.

        Raises:
            RequestError: that would change the numbers.
        """
        assert self._dtype is not None, "only observations that are kept are converted"
        given, dtype = np.array(obs), self._dtype
        if np.can_cast(given.dtype, dtype, "same_kind"):
            return given
        with np.errstate(invalid="ignore"):
            converted = given.astype(dtype)
        if not np.array_equal(converted, given):
            found = f"the observation is of {given.dtype} where the space has {dtype}"
            raise _interface_error(self._name, found, "give the space the dtype of the numbers")
        return converted


def _with_interface(env: AnyEnv, name: str) -> AnyEnv:
    """The environment with an :class:`Interface` innermost and without Gymnasium's checkers."""
    if isinstance(env, OrderEnforcing | PassiveEnvChecker):
        return _with_interface(env.env, name)
    if not isinstance(env, gymnasium.Wrapper):
        return Interface(env, name)
    env.env = _with_interface(env.env, name)
    return env


def _require_reset_arguments(env: AnyEnv, name: str) -> None:
    try:
        inspect.signature(env.reset).bind(seed=0, options=None)
    except TypeError as error:
        found = f"reset does not take the arguments seed and options ({error})"
        raise _interface_error(name, found, RESET_FORM) from error
    except ValueError:  # written in C, without a signature
        return


def _number(name: str, reward: Any) -> float:
    """A reward as one number.

    Raises:
        RequestError: it is not one number.
    """
    if isinstance(reward, NUMBERS):
        return reward  # type: ignore[return-value]  # NumPy's numbers serve as floats
    found = f"step returns {_describe(reward)} as its reward"
    try:
        array = np.asarray(reward)
    except (TypeError, ValueError):  # a tensor on a GPU, lists of different lengths
        array = np.empty(0, np.object_)
    if array.dtype.kind not in "biuf" or array.size == 0:
        raise _interface_error(name, found, "return one number, float(reward)")
    if array.size > 1:
        advice = (
            "return one number, such as a weighted sum of the objectives (for MO-Gymnasium "
            '--gym-wrappers \'{"mo_gymnasium.wrappers:LinearReward": {"weight": [...]}}\')'
        )
        raise _interface_error(name, found, advice)
    return float(array.reshape(()))


def _flag(name: str, which: str, value: Any) -> bool:
    """``terminated`` or ``truncated`` as a bool.

    Raises:
        RequestError: it is not one truth value.
    """
    if isinstance(value, TRUTH_VALUES):
        return bool(value)
    array = np.asarray(value)
    if array.dtype.kind not in "biuf" or array.size != 1:
        found = f"step returns {_describe(value)} as {which}"
        raise _interface_error(name, found, "return True or False")
    return bool(array.reshape(()))


def _describe(value: Any) -> str:
    """What a function returned, in words: ``4 values`` or ``None`` or ``an array [2]``."""
    if isinstance(value, tuple):
        old = " (the interface of the old Gym)" if len(value) == 4 else ""
        return f"{len(value)} value{'s' * (len(value) != 1)}{old}"
    if isinstance(value, np.ndarray):
        return f"an array {list(value.shape)}"
    if value is None or isinstance(value, str | bool | int | float):
        return repr(value)
    return f"a {type(value).__name__}"


def _interface_error(name: str, found: str, advice: str) -> InterfaceError:
    return InterfaceError(
        f"{name}: {single_line(found)}: {advice} (`pgtoolkit check-env` lists all that is wrong)"
    )
