"""``collect`` on environments that return NumPy arrays, into arrays that are filled in place."""

import itertools
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from torch import Tensor

from pgtoolkit.errors import EnvFaultError
from pgtoolkit.finite import require_finite_rows, require_finite_steps
from pgtoolkit.networks.normalizer import SINGLE, exact_dtype
from pgtoolkit.policies.numpy_policy import Act, numpy_actor
from pgtoolkit.policies.policy import Policy
from pgtoolkit.rollouts.given_action import given_action
from pgtoolkit.rollouts.success import FINAL_INFO, IS_SUCCESS, UNKNOWN, step_successes
from pgtoolkit.rollouts.window import Window

MAX_NUMPY_BATCH = 64
"""Most environments for which the policy acts in NumPy; torch is faster for more."""

NOT_TAKEN = "not_taken"
"""Key of a step's ``info``: ``[N]`` bool, environments whose step did not happen, because they
failed or were taken out before. Their next step is the first of an episode, if there is one."""

NO_FINAL_OBSERVATION = (
    "an episode has ended, the vector environment has reset it in the same step, and info has no "
    '"final_obs": the last observation is lost, whose value belongs to the return. Put it there, '
    "as Gymnasium's vector environments do, or reset in the next step (AutoresetMode.NEXT_STEP)"
)

Mask = NDArray[np.bool_]
"""``[N]``."""


def require_rows(
    num_envs: int, reward: Any, terminated: Any, truncated: Any
) -> tuple[NDArray[Any], Mask, Mask]:
    """What a vector environment's step returns, as arrays ``[N]``; flags become booleans.

    Rewards become float32; those beyond its range become infinite.

    Raises:
        EnvFaultError: one of them has another shape.
    """
    rows = np.asarray(reward), np.asarray(terminated, bool), np.asarray(truncated, bool)
    for name, row in zip(("rewards", "terminated", "truncated"), rows, strict=True):
        if row.shape != (num_envs,):
            raise EnvFaultError(
                f"the vector environment's step returned {name} of the shape {list(row.shape)}: "
                f"return one entry for each of its {num_envs} environments, [{num_envs}]"
            )
    with np.errstate(over="ignore"):  # infinite rewards are refused at the end of the step
        return rows[0].astype(SINGLE, copy=False), *rows[1:]


class StepBuffers:
    """Arrays ``[T, N, ...]`` by name, each allocated when its first row is stored.

    Args:
        num_steps: ``T``.
        obs_dtype: the dtype of observations.
    """

    def __init__(self, num_steps: int, obs_dtype: np.dtype[Any]) -> None:
        self.num_steps, self.obs_dtype = num_steps, obs_dtype
        self.arrays: dict[str, NDArray[Any]] = {}

    def put(self, step: int, **rows: NDArray[Any]) -> None:
        """Copies rows ``[N, ...]`` of one step, because environments may reuse their arrays.

        Booleans and signed integers keep their dtype. Observations are converted to ``obs_dtype``,
        everything else to float32.
        """
        for name, row in rows.items():
            if name not in self.arrays:
                self.arrays[name] = np.empty((self.num_steps, *row.shape), self._dtype(name, row))
            self.arrays[name][step] = row

    def _dtype(self, name: str, row: NDArray[Any]) -> np.dtype[Any]:
        if name.endswith("obs"):
            return self.obs_dtype
        return row.dtype if row.dtype.kind in "bi" else SINGLE

    def tensors(self, device: torch.device) -> dict[str, Tensor]:
        """The arrays as tensors on the device."""
        return {name: torch.from_numpy(x).to(device) for name, x in self.arrays.items()}


def collect_arrays(
    env: Any,
    policy: Policy,
    noise: Tensor,
    mode: AutoresetMode,
    obs: NDArray[Any],
    needs_reset: Mask,
    episode_start: Mask,
) -> tuple[Window, NDArray[Any], Mask, Mask]:
    """Steps the environments ``T`` times, with actions that are in their action space.

    Observations are kept in the dtype that the policy's normaliser reads. Those after the last step
    keep more digits if the environment gave them, as :func:`exact_observations` does.

    Args:
        env: a vector environment that returns NumPy arrays.
        policy: acts on every step.
        noise: ``[T, N, A]`` of every action.
        mode: the environment's autoreset mode.
        obs: ``[N, O]`` the observation to act on.
        needs_reset: ``[N]`` the next step only resets the environment.
        episode_start: ``[N]`` the next step is the first of an episode.

    Returns:
        The window, then ``obs``, ``needs_reset`` and ``episode_start`` after its last step.

    Raises:
        NonFiniteError: an action, a reward or an observation, also one after a reset, is not
            finite.
    """
    act, give = choose_actor(policy, env.num_envs), given_action(env.single_action_space)
    num_steps, noise_array = len(noise), noise.cpu().numpy()
    success = np.full(noise.shape[:2], UNKNOWN, np.int8)
    dtype = policy.normalizer.input_dtype
    buffers, next_inputs = StepBuffers(num_steps, dtype), StepBuffers(num_steps, dtype)
    obs, after = obs.astype(dtype), obs
    for t, eps in enumerate(noise_array):
        pre_action, action = act(obs, eps)
        if not np.isfinite(action).all():
            require_finite_buffers(buffers, next_inputs, t)
            require_finite_rows({"action": torch.from_numpy(action)}, t)
        after, reward, terminated, truncated, info = env.step(give(action))
        reward, terminated, truncated = require_rows(env.num_envs, reward, terminated, truncated)
        terminated, truncated = terminated & ~needs_reset, truncated & ~needs_reset
        done = terminated | truncated
        any_done, next_obs, valid, first = bool(done.any()), after, ~needs_reset, done
        if mode is AutoresetMode.SAME_STEP and any_done:
            next_obs = before_reset(after, done, info)
        if NOT_TAKEN in info:
            # The segment then ends before this step, with the value of the observation there; the
            # episode ends without being counted, because it is not done.
            not_taken: Mask = info[NOT_TAKEN]
            next_obs, valid, first = np.array(next_obs), valid & ~not_taken, first | not_taken
            next_obs[not_taken] = obs[not_taken]
        buffers.put(t, obs=obs, next_obs=next_obs, pre_action=pre_action, action=action)
        buffers.put(t, reward=reward, terminated=terminated, truncated=truncated)
        buffers.put(t, valid=valid, episode_start=episode_start)
        if IS_SUCCESS in info or FINAL_INFO in info:
            found = step_successes(info, done)
            success[t] = success[t] if found is None else found
        if mode is AutoresetMode.DISABLED and any_done:
            after, _ = env.reset(options={"reset_mask": done})
        obs, episode_start = np.array(after, dtype), first
        next_inputs.put(t, obs=obs)
        if not np.isfinite(reward).all():  # told while its episode is still known
            require_finite_buffers(buffers, next_inputs, t + 1)
        if mode is AutoresetMode.NEXT_STEP:
            needs_reset, episode_start = done, needs_reset
    require_finite_buffers(buffers, next_inputs, num_steps)
    fields = buffers.tensors(noise.device)
    log_prob = policy(fields["obs"]).log_prob_of_pre_action(fields["pre_action"])
    successes = torch.from_numpy(success).to(noise.device)
    window = Window(**fields, noise=noise, log_prob=log_prob, success=successes)
    return window, exact_observations(after), needs_reset, episode_start


def exact_observations(obs: Any) -> NDArray[Any]:
    """A copy in the :func:`exact_dtype <pgtoolkit.networks.normalizer.exact_dtype>` of the array.

    It is a copy, because environments may reuse their arrays.
    """
    array = np.asarray(obs)
    return np.array(array, exact_dtype(array.dtype))


def require_finite_buffers(buffers: StepBuffers, next_inputs: StepBuffers, num_steps: int) -> None:
    """Raises on the earliest reward or observation that is not finite.

    Args:
        buffers: rewards, and observations before a reset.
        next_inputs: observations after any reset, which the policy acts on next.
        num_steps: how many steps have been stored.

    Raises:
        NonFiniteError: names the tensor, the step and the environment.
    """
    if num_steps == 0:
        return
    names = ("reward", "next_obs")
    reward, next_obs = (torch.from_numpy(buffers.arrays[n][:num_steps]) for n in names)
    after_reset = torch.from_numpy(next_inputs.arrays["obs"][:num_steps])
    observation = torch.stack([next_obs, after_reset], -1)
    require_finite_steps({"reward": reward, "observation": observation})


def choose_actor(policy: Policy, num_envs: int) -> Act:
    """The policy's action, computed in NumPy for small batches if possible, and else in torch."""
    actor = numpy_actor(policy) if num_envs <= MAX_NUMPY_BATCH else None
    if actor is not None:
        return actor
    tensors = itertools.chain(policy.parameters(), policy.buffers())
    device = next(x.device for x in tensors)

    def act(obs: NDArray[Any], noise: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        distribution = policy(torch.from_numpy(obs).to(device))
        pre_action = distribution.pre_action(torch.from_numpy(noise).to(device))
        return pre_action.cpu().numpy(), distribution.squash(pre_action).cpu().numpy()

    return act


def before_reset(after: NDArray[Any], done: Mask, info: dict[str, Any]) -> NDArray[Any]:
    """The observations ``[N, O]`` before the resets of a step, for autoreset SAME_STEP.

    Args:
        after: ``[N, O]`` the observations after the resets.
        done: ``[N]`` bool, true where the episode ended.
        info: the step's ``info``; ``info["final_obs"]`` has the last observations of those
            episodes.

    Raises:
        EnvFaultError: an episode ended, and its last observation is missing.
    """
    if "final_obs" not in info:
        if done.any():
            raise EnvFaultError(NO_FINAL_OBSERVATION)
        return after
    next_obs = np.array(after)
    next_obs[done] = np.stack(list(info["final_obs"][done]))
    return next_obs
