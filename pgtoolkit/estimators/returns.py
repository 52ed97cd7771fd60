"""Returns and advantages, time-major, with two flags.

One recursion serves all. With ``d_t = terminated_t or truncated_t`` and
``v_t = 0 if terminated_t else V(next_obs_t)``, where ``next_obs`` is the observation *before* any
reset,

    ``G_t = r_t + gamma * (v_t if d_t else (1 - lambda) v_t + lambda G_{t+1})``,  ``G_T = v_{T-1}``.

So the bootstrap is 0 on termination, ``V(next_obs)`` on truncation and at the window's end, and the
recursion is cut on both. Steps that never happened (``valid`` false) come after a cut: they change
no other step, and whoever reads the result masks them.
"""

import torch
from torch import Tensor

from pgtoolkit.rollouts.window import Window
from pgtoolkit.shapes import check_same_shape, check_shape


def td_lambda_returns(
    reward: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    *,
    gamma: float,
    lambda_: float,
    segment_end: Tensor | None = None,
) -> Tensor:
    """TD(lambda) returns ``G_t`` ``[T, N]`` (Sutton and Barto 2018, eq. 12.18).

    Args:
        reward: ``[T, N]``.
        next_value: ``[T, N]`` ``V(next_obs)``, of the observation before any reset.
        terminated: ``[T, N]`` bool.
        truncated: ``[T, N]`` bool.
        gamma: discount.
        lambda_: 0 is one-step TD, 1 is Monte Carlo with a bootstrap at the window's end.
        segment_end: ``[T, N]`` bool, further steps at which the recursion is cut and bootstrapped;
            None for none beside ends of episodes and of the window.

    Raises:
        ValueError: the shapes differ.
    """
    check_shape("reward", reward, None, None)
    check_same_shape(
        reward=reward, next_value=next_value, terminated=terminated, truncated=truncated
    )
    value = torch.where(terminated, torch.zeros_like(next_value), next_value)
    cut = terminated | truncated
    if segment_end is not None:
        cut[:-1] |= segment_end[:-1]  # after the last step there is nothing to cut off
    following, result = value[-1], []
    for t in range(reward.shape[0] - 1, -1, -1):
        mixed = (1 - lambda_) * value[t] + lambda_ * following
        following = reward[t] + gamma * torch.where(cut[t], value[t], mixed)
        result.append(following)
    return torch.stack(result[::-1])


def gae(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    *,
    gamma: float,
    lambda_: float,
    segment_end: Tensor | None = None,
) -> Tensor:
    """Generalised advantage estimates ``A_t = G_t - V(obs_t)`` ``[T, N]`` (Schulman et al. 2016).

    The sum ``sum_k (gamma lambda)^k delta_{t+k}`` of TD errors is the TD(lambda) return less the
    value, so it is computed as that. ``value`` is ``V(obs)``; the rest as in
    :func:`td_lambda_returns`.
    """
    check_same_shape(reward=reward, value=value)
    returns = td_lambda_returns(
        reward,
        next_value,
        terminated,
        truncated,
        gamma=gamma,
        lambda_=lambda_,
        segment_end=segment_end,
    )
    return returns - value


def reward_to_go(
    reward: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    *,
    gamma: float,
    next_value: Tensor | None = None,
    segment_end: Tensor | None = None,
) -> Tensor:
    """Discounted reward from each step to the end of its episode or of the window ``[T, N]``.

    ``sum_{k >= t} gamma^(k-t) r_k``, with a bootstrap from ``next_value`` at truncation and at the
    window's end if it is given.
    """
    if next_value is None:
        next_value = torch.zeros_like(reward)
    return td_lambda_returns(
        reward,
        next_value,
        terminated,
        truncated,
        gamma=gamma,
        lambda_=1.0,
        segment_end=segment_end,
    )


def window_returns(window: Window, next_value: Tensor, *, gamma: float, lambda_: float) -> Tensor:
    """:func:`td_lambda_returns` of a window ``[T, N]``, cut at its ``segment_end``.

    GAE is these returns less ``V(obs)``.
    """
    return td_lambda_returns(
        window.reward,
        next_value,
        window.terminated,
        window.truncated,
        gamma=gamma,
        lambda_=lambda_,
        segment_end=window.segment_end,
    )


def steps_since_start(segment_end: Tensor) -> Tensor:
    """How many steps of its segment went before each step ``[T, N]``.

    A segment starts at the window's start and after each step where ``segment_end`` is true
    (:attr:`pgtoolkit.rollouts.window.Window.segment_end`).
    """
    check_shape("segment_end", segment_end, None, None)
    step = (
        torch.arange(segment_end.shape[0], device=segment_end.device)
        .unsqueeze(1)
        .expand_as(segment_end)
    )
    starts = torch.cat([torch.zeros_like(segment_end[:1]), segment_end[:-1]])
    return step - torch.where(starts, step, torch.zeros_like(step)).cummax(0).values


def segment_discount(segment_end: Tensor, gamma: float) -> Tensor:
    """``gamma^k`` ``[T, N]`` in float64, with ``k`` counted from the start of each segment."""
    length = torch.arange(len(segment_end), dtype=torch.float64, device=segment_end.device)
    power = torch.as_tensor(gamma, dtype=torch.float64) ** length
    if not bool(segment_end[:-1].any()):
        return power.unsqueeze(1).expand_as(segment_end)
    return power[steps_since_start(segment_end)]


def segment_returns(returns: Tensor, segment_end: Tensor) -> Tensor:
    """The return at the start of each step's segment ``[T, N]``: its whole discounted return.

    Args:
        returns: ``[T, N]`` reward-to-go.
        segment_end: ``[T, N]`` bool, the last step of each segment.
    """
    check_same_shape(returns=returns, segment_end=segment_end)
    step = (
        torch.arange(segment_end.shape[0], device=segment_end.device)
        .unsqueeze(1)
        .expand_as(segment_end)
    )
    return returns.gather(0, step - steps_since_start(segment_end))
