"""``collect`` on environments that speak NumPy: buffers that are filled in place."""

from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from torch import Tensor

from pgtoolkit.finite import require_finite_rows, require_finite_steps
from pgtoolkit.policies.numpy_policy import Act, numpy_actor
from pgtoolkit.policies.policy import Policy
from pgtoolkit.rollouts.window import Window

SMALL = 64
"""Up to so many environments the policy acts in NumPy, if it can."""

Flags = NDArray[np.bool_]


class Buffers:
    """``[T, N, ...]`` arrays, each made when its first row comes."""

    def __init__(self, num_steps: int) -> None:
        self.num_steps = num_steps
        self.arrays: dict[str, NDArray[Any]] = {}

    def put(self, step: int, **rows: NDArray[Any]) -> None:
        """Copies rows ``[N, ...]``, floats as float32: environments may reuse their arrays."""
        for name, row in rows.items():
            if name not in self.arrays:
                kind = row.dtype if row.dtype.kind in "bi" and name != "reward" else np.float32
                kind = np.float32 if name.endswith("obs") else kind
                self.arrays[name] = np.empty((self.num_steps, *row.shape), kind)
            self.arrays[name][step] = row

    def tensors(self, device: torch.device) -> dict[str, Tensor]:
        return {name: torch.from_numpy(x).to(device) for name, x in self.arrays.items()}


def collect_arrays(
    env: Any,
    policy: Policy,
    noise: Tensor,
    mode: AutoresetMode,
    obs: NDArray[Any],
    needs_reset: Flags,
    first: Flags,
) -> tuple[Window, NDArray[Any], Flags, Flags]:
    """Steps the environments ``T`` times; the window, and where it ended.

    Args:
        env: a vector environment.
        policy: acts on every step.
        noise: ``[T, N, A]`` of every action.
        mode: of the environment's autoreset.
        obs: ``[N, O]`` to act on.
        needs_reset: ``[N]`` the next step only resets it.
        first: ``[N]`` the next step is the first of an episode.
    """
    act = choose_actor(policy, env.num_envs)
    buffers, arrays = Buffers(len(noise)), noise.cpu().numpy()
    fresh = Buffers(len(noise))
    for t, eps in enumerate(arrays):
        pre_action, action = act(obs, eps)
        if not np.isfinite(action).all():
            require_finite(buffers, fresh, t)
            require_finite_rows({"action": torch.from_numpy(action)}, t)
        after, reward, terminated, truncated, info = env.step(action)
        terminated, truncated = terminated & ~needs_reset, truncated & ~needs_reset
        done = terminated | truncated
        ended, next_obs = bool(done.any()), after
        if mode is AutoresetMode.SAME_STEP and ended:
            next_obs = before_reset(after, done, info)
        buffers.put(t, obs=obs, next_obs=next_obs, pre_action=pre_action, action=action)
        buffers.put(t, reward=reward, terminated=terminated, truncated=truncated)
        buffers.put(t, valid=~needs_reset, first=first)
        if mode is AutoresetMode.DISABLED and ended:
            after, _ = env.reset(options={"reset_mask": done})
        obs, first = np.array(after, np.float32), done
        fresh.put(t, obs=obs)
        if mode is AutoresetMode.NEXT_STEP:
            needs_reset, first = done, needs_reset
    require_finite(buffers, fresh, len(arrays))
    found = buffers.tensors(noise.device)
    log_prob = policy(found["obs"]).log_prob_of_pre_action(found["pre_action"])
    return Window(**found, noise=noise, log_prob=log_prob), obs, needs_reset, first


def require_finite(buffers: Buffers, fresh: Buffers, num_steps: int) -> None:
    """Raises on the earliest reward or observation, also one after a reset, that is not finite."""
    if num_steps == 0:
        return
    names = ("reward", "next_obs")
    reward, next_obs = (torch.from_numpy(buffers.arrays[n][:num_steps]) for n in names)
    after = torch.from_numpy(fresh.arrays["obs"][:num_steps])
    observation = torch.stack([next_obs, after], -1)
    require_finite_steps({"reward": reward, "observation": observation})


def choose_actor(policy: Policy, num_envs: int) -> Act:
    """NumPy for small batches of a policy that it knows, else torch."""
    actor = numpy_actor(policy) if num_envs <= SMALL else None
    if actor is not None:
        return actor
    device = next(policy.parameters()).device

    def act(obs: NDArray[Any], noise: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        distribution = policy(torch.from_numpy(obs).to(device))
        pre_action = distribution.pre_action(torch.from_numpy(noise).to(device))
        return pre_action.cpu().numpy(), distribution.squash(pre_action).cpu().numpy()

    return act


def before_reset(after: NDArray[Any], done: Flags, info: dict[str, Any]) -> NDArray[Any]:
    """SAME_STEP: where an episode ended, its last observation instead of the reset one."""
    if "final_obs" not in info:
        return after
    next_obs = np.array(after)
    next_obs[done] = np.stack(list(info["final_obs"][done]))
    return next_obs
