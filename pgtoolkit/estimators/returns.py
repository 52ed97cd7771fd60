"""Returns and advantages of windows ``[T, N]``, time-major.

All of them come from one recursion. Let ``d_t = terminated_t or truncated_t``, and
``v_t = 0 if terminated_t else V(next_obs_t)``, where ``next_obs`` is the observation *before* any
reset. Then

    ``G_t = r_t + gamma * (v_t if d_t else (1 - lambda) v_t + lambda G_{t+1})``,  ``G_T = v_{T-1}``.

``v_t`` is the *bootstrap*: the value function's estimate of the return after step ``t``, used where
the recursion stops. It is 0 on termination, and ``V(next_obs)`` on truncation and at the window's
end. Steps that are not valid follow a step with ``d_t`` true or the end of a segment, so they
change no other step; the caller must mask them in the result.

A *segment* (:attr:`Window.segment_end <pgtoolkit.rollouts.window.Window.segment_end>`) is a part of
a trajectory at whose end the recursion stops.
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
        gamma: discount factor.
        lambda_: 0 is one-step TD, 1 is Monte Carlo with a bootstrap at the window's end.
        segment_end: ``[T, N]`` bool, further steps at which the recursion stops with a bootstrap.
            None means only ends of episodes and of the window.

    Raises:
        ValueError: the shapes differ.
    """
    check_shape("reward", reward, None, None)
    check_same_shape(
        reward=reward, next_value=next_value, terminated=terminated, truncated=truncated
    )
    value = torch.where(terminated, torch.zeros_like(next_value), next_value)
    stops = terminated | truncated
    if segment_end is not None:
        stops[:-1] |= segment_end[:-1]  # the recursion starts with the last step's bootstrap anyway
    following, result = value[-1], []
    for t in range(reward.shape[0] - 1, -1, -1):
        mixed = (1 - lambda_) * value[t] + lambda_ * following
        following = reward[t] + gamma * torch.where(stops[t], value[t], mixed)
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

    The sum ``sum_k (gamma lambda)^k delta_{t+k}`` of TD errors equals the TD(lambda) return minus
    the value, and is computed that way.

    Args:
        reward: ``[T, N]``.
        value: ``[T, N]`` ``V(obs)``.
        next_value: ``[T, N]``; this and the rest as in :func:`td_lambda_returns`.
        terminated: ``[T, N]`` bool.
        truncated: ``[T, N]`` bool.
        gamma: discount factor.
        lambda_: weight of longer returns.
        segment_end: ``[T, N]`` bool, or None.

    Raises:
        ValueError: the shapes differ.
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

    ``sum_{k >= t} gamma^(k-t) r_k``. If ``next_value`` is given, it is the bootstrap on truncation
    and at the ends of segments and of the window; otherwise there is none.

    Args:
        reward: ``[T, N]``; the rest as in :func:`td_lambda_returns`.
        terminated: ``[T, N]`` bool.
        truncated: ``[T, N]`` bool.
        gamma: discount factor.
        next_value: ``[T, N]`` ``V(next_obs)``, or None.
        segment_end: ``[T, N]`` bool, or None.
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


def soft_reward(
    reward: Tensor, next_entropy: Tensor, terminated: Tensor, *, gamma: float, temperature: Tensor
) -> Tensor:
    """``r + gamma alpha H(pi(. | s'))``, no entropy where an episode terminated; ``[T, N]``.

    The returns of these rewards are values of actions in the sense of ``Q(s, a) = E[r + gamma
    (Q(s', a') + alpha H(pi(. | s')))]`` (Haarnoja et al. 2018, eq. 3): the entropy belongs to the
    state in which the next action is drawn. No action is drawn in a terminal state; after a
    truncation, one would have been.

    Args:
        reward: ``[T, N]``.
        next_entropy: ``[T, N]`` of the policy at ``next_obs``, or an estimate such as ``-log pi``.
        terminated: ``[T, N]`` bool.
        gamma: discount factor.
        temperature: ``alpha``, the worth of one nat, a scalar.

    Raises:
        ValueError: the shapes differ.
    """
    check_same_shape(reward=reward, next_entropy=next_entropy, terminated=terminated)
    return reward + gamma * temperature * torch.where(terminated, 0.0, next_entropy)


def window_returns(window: Window, next_value: Tensor, *, gamma: float, lambda_: float) -> Tensor:
    """:func:`td_lambda_returns` of a window's segments ``[T, N]``.

    Minus ``V(obs)``, they are the generalised advantage estimates.

    Args:
        window: gives rewards, ends of episodes and ends of segments.
        next_value: ``[T, N]`` ``V(next_obs)``.
        gamma: discount factor.
        lambda_: 0 is one-step TD, 1 is Monte Carlo with a bootstrap at each segment's end.
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
    """Number of earlier steps of the same segment, for each step ``[T, N]``.

    A segment starts at the window's start and after each step where ``segment_end`` ``[T, N]`` is
    true.
    """
    check_shape("segment_end", segment_end, None, None)
    step = _step_index(segment_end)
    starts = torch.cat([torch.zeros_like(segment_end[:1]), segment_end[:-1]])
    return step - torch.where(starts, step, torch.zeros_like(step)).cummax(0).values


def steps_to_end(segment_end: Tensor) -> Tensor:
    """Number of later steps of the same segment, for each step ``[T, N]``.

    Args:
        segment_end: ``[T, N]`` bool, the last step of each segment; true in the last row.
    """
    check_shape("segment_end", segment_end, None, None)
    step, last = _step_index(segment_end), len(segment_end) - 1
    ends = torch.where(segment_end, step, last)
    return ends.flip(0).cummin(0).values.flip(0) - step


def _step_index(like: Tensor) -> Tensor:
    """``t`` at each step ``[T, N]``."""
    return torch.arange(like.shape[0], device=like.device).unsqueeze(1).expand_as(like)


def segment_discount(segment_end: Tensor, gamma: float) -> Tensor:
    """``gamma^k`` ``[T, N]`` in float64, with ``k`` the number of earlier steps of the segment."""
    length = torch.arange(len(segment_end), dtype=torch.float64, device=segment_end.device)
    power = torch.as_tensor(gamma, dtype=torch.float64) ** length
    if not bool(segment_end[:-1].any()):
        return power.unsqueeze(1).expand_as(segment_end)
    return power[steps_since_start(segment_end)]


def segment_returns(returns: Tensor, segment_end: Tensor) -> Tensor:
    """The discounted return of the whole segment, at each of its steps ``[T, N]``.

    Args:
        returns: ``[T, N]`` reward-to-go.
        segment_end: ``[T, N]`` bool, the last step of each segment.
    """
    check_same_shape(returns=returns, segment_end=segment_end)
    start = _step_index(segment_end) - steps_since_start(segment_end)
    return returns.gather(0, start)
