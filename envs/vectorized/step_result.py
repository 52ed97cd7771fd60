"""The arrays that a step of all environments returns."""

from collections.abc import Iterable
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from pgtoolkit.envs.vectorized.causes import Failure, not_finite
from pgtoolkit.envs.vectorized.play import Answer, NewEpisode
from pgtoolkit.rollouts.numpy_rollout import NOT_TAKEN
from pgtoolkit.rollouts.success import IS_SUCCESS

Mask = NDArray[np.bool_]
Step = tuple[NDArray[Any], NDArray[np.float64], Mask, Mask, dict[str, Any]]


@final
class StepResult:
    """The arrays of one step of all environments.

    Args:
        before: ``[N, ...]`` the observations before it.
        dtype: that of the observations.
    """

    def __init__(self, before: NDArray[Any], dtype: Any) -> None:
        num_envs = len(before)
        self._before = before
        self.observations = np.empty(before.shape, dtype)
        self._reward = np.zeros(num_envs)
        self._terminated = np.zeros(num_envs, np.bool_)
        self._truncated = np.zeros(num_envs, np.bool_)
        self._info: dict[str, Any] = {}

    def put_all(
        self, answers: Iterable[tuple[int, Answer | Failure]]
    ) -> list[tuple[int, Answer | Failure]]:
        """Puts the steps inside of episodes; returns the others."""
        observations, reward, rare = self.observations, self._reward, []
        for i, answer in answers:
            if not isinstance(answer, Failure) and answer[4] is None:
                observations[i] = answer[0]
                reward[i] = answer[1]
                if answer[5] is not None:
                    self._put_success(self._info, i, answer[5])
            else:
                observations[i] = self._before[i]
                rare.append((i, answer))
        return rare

    def is_finite(self) -> bool:
        """Whether all numbers are finite."""
        return bool(np.isfinite(self._reward).all() and np.isfinite(self.observations).all())

    def put_end(self, i: int, answer: Answer) -> NewEpisode | Failure:
        """Puts the last step of an episode; returns the result of the reset after it."""
        final, self._reward[i], self._terminated[i], self._truncated[i], after, success = answer
        assert after is not None, "an episode that ended was reset"
        if "final_obs" not in self._info:
            num_envs = len(self._reward)
            self._info["final_obs"] = np.full(num_envs, None, dtype=object)
            self._info["_final_obs"] = np.zeros(num_envs, np.bool_)
            self._info["final_info"], self._info["_final_info"] = {}, self._info["_final_obs"]
        self._info["final_obs"][i], self._info["_final_obs"][i] = final, True
        if success is not None:
            self._put_success(self._info["final_info"], i, success)
        self.observations[i] = final  # until the new episode's, which a fault may prevent
        return after

    def _put_success(self, info: dict[str, Any], i: int, success: bool) -> None:
        """Puts ``is_success`` of an environment into infos, as Gymnasium's vector ones have it."""
        for name, value in ((IS_SUCCESS, success), (f"_{IS_SUCCESS}", True)):
            if name not in info:
                info[name] = np.zeros(len(self._reward), np.bool_)
            info[name][i] = value

    def skip(self, i: int) -> None:
        """The step was not taken: the observation stays, and the reward is 0."""
        self.observations[i], self._reward[i] = self._before[i], 0.0
        if NOT_TAKEN not in self._info:
            self._info[NOT_TAKEN] = np.zeros(len(self._reward), np.bool_)
        self._info[NOT_TAKEN][i] = True

    def as_step(self) -> Step:
        """What ``step`` returns; the observations are a copy."""
        copied = self.observations.copy()
        return copied, self._reward, self._terminated, self._truncated, self._info


def is_rare(answer: Answer | Failure) -> bool:
    """Whether a step failed or ended an episode."""
    return isinstance(answer, Failure) or answer[4] is not None


def with_finite_numbers(answer: Answer | Failure) -> Answer | Failure:
    """The failure of a step with NaN or infinity, or the step itself."""
    if isinstance(answer, Failure):
        return answer
    if not np.isfinite(answer[1]):
        return not_finite("the reward", answer[1])
    if not np.isfinite(answer[0]).all():
        return not_finite("the observation", answer[0])
    return answer


def with_finite_start(after: NewEpisode | Failure) -> NewEpisode | Failure:
    """The failure of a reset with NaN or infinity, or its result itself."""
    if isinstance(after, Failure) or np.isfinite(after.observation).all():
        return after
    return not_finite("the observation after a reset", after.observation)
