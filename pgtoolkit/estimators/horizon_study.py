"""The gradient laboratory: how good is each estimator of one policy's gradient, at one horizon?

One policy, ``N`` trajectories from fresh starts, every estimator on the *same* trajectories and for
the *same* objective. A trajectory is the first ``H`` steps of one episode, fewer if it ends before.
Its objective is the discounted reward of these steps and nothing beyond them::

    J_H = sum_{k < H} gamma^k r_k

There is no value function, no normalisation and no division by ``H``: the variance is that of the
gradient of the return itself, fit to be held against closed forms. It includes what the start
states contribute.

- ``score_function``: ``sum_k gamma^k (G_k - b_k) dlog pi_k``, with ``G_k`` the reward-to-go and
  ``b_k`` the mean of the other trajectories' of its half at the same step;
- ``pathwise``: the derivative through the environment;
- ``mixed``: a weighted mean of the two, by cross-fitted weights
(:mod:`pgtoolkit.estimators.mixing`).

The trajectories are in two halves, which share no baseline: the weights of one are fitted on the
other, so ``mixed`` is exactly as unbiased as the two.
"""

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from typing import final

import torch
from torch import Tensor

from pgtoolkit.diagnostics.per_trajectory import GradientRecorder
from pgtoolkit.diagnostics.statistics import GradientStatistics, gradient_difference
from pgtoolkit.errors import RequestError
from pgtoolkit.estimators.catalogue import StudyEstimator
from pgtoolkit.estimators.cross_fitting import leave_one_out_by_fold
from pgtoolkit.estimators.mixing import cross_fitted_weight, mix_gradients
from pgtoolkit.estimators.returns import reward_to_go
from pgtoolkit.estimators.surrogates import (
    action_gradient,
    matched_score_weight,
    pathwise_surrogate,
    score_function_surrogate,
    window_objective,
)
from pgtoolkit.gymnasium_types import AnyVectorEnv
from pgtoolkit.policies.policy import Policy
from pgtoolkit.rollouts.rollout import OnTensors, collect, start, unroll
from pgtoolkit.rollouts.window import FIELDS, Window, first_episodes, map_window
from pgtoolkit.seeding import stream, stream_seed

Estimator = StudyEstimator


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """Statistics of one estimator's gradient. A number that does not exist is NaN.

    They are of the gradient of the return itself, not divided by the horizon; ``_low`` and
    ``_high`` are the ends of 95 % intervals. If the gradient is not finite, all of them are NaN.
    """

    estimator: Estimator
    horizon: int
    trajectories: int
    mean_length: float
    """Steps that a trajectory really has: less than the horizon where episodes end before it."""
    seconds: float
    """Wall time of this horizon, all estimators together."""
    variance: float
    """Trace of the covariance of one trajectory's gradient."""
    variance_low: float
    variance_high: float
    signal: float
    """Squared norm of the mean gradient, unbiased; may be negative."""
    signal_low: float
    signal_high: float
    snr: float
    """Signal over variance."""
    noise_scale: float
    """Variance over signal: the trajectories that an update needs for an SNR of 1."""
    effective_dimension: float
    detectability: float
    """How many standard deviations the signal stands above none."""
    largest_share: float
    """Part of the squared spread that one trajectory makes up: near 1, variance and interval are
    not to be trusted."""
    bias: float
    """Squared norm of the mean difference from the score function on the same trajectories,
    unbiased; like the next three, NaN for the score function itself."""
    bias_low: float
    bias_high: float
    bias_z: float
    """How far it stands above no bias, on the scale of a normal variable."""


OWN = (
    "variance",
    "variance_low",
    "variance_high",
    "signal",
    "signal_low",
    "signal_high",
    "snr",
    "noise_scale",
    "effective_dimension",
    "detectability",
    "largest_share",
)

BIAS = {
    "bias": "signal",
    "bias_low": "signal_low",
    "bias_high": "signal_high",
    "bias_z": "significance",
}
"""A measurement's number, and the statistic of the matched difference that it is."""


def statistics_of(
    gradients: Mapping[str, Tensor], score_function: Mapping[str, Tensor]
) -> dict[str, float]:
    """The statistics in a :class:`Measurement`.

    Args:
        gradients: ``{parameter name: [N, *shape]}`` by the estimator.
        score_function: by the score function, on the same trajectories; the same object if that is
            the estimator.

    Raises:
        RequestError: fewer than three trajectories.
    """
    if not all(bool(gradient.isfinite().all()) for gradient in gradients.values()):
        return dict.fromkeys((*OWN, *BIAS), math.nan)
    own = GradientStatistics.of(gradients)
    numbers = {name: float(getattr(own, name)) for name in OWN}
    if gradients is score_function:
        return numbers | dict.fromkeys(BIAS, math.nan)
    difference = GradientStatistics.of(gradient_difference(score_function, gradients))
    return numbers | {name: float(getattr(difference, source)) for name, source in BIAS.items()}


Gradients = dict[str, Tensor]
"""``{parameter name: [N, *shape]}``, a gradient for every trajectory."""


def measure_horizon(
    env: AnyVectorEnv,
    policy: Policy,
    horizon: int,
    *,
    trajectories: int,
    estimators: Sequence[Estimator],
    gamma: float,
    seed: int,
) -> list[Measurement]:
    """Measures each estimator at one horizon, all on the same trajectories.

    The result depends on these arguments alone, not on what was measured before. Neither the policy
    nor its observation normaliser changes.

    Args:
        env: any vector environment. For other estimators than the score function it must be
            differentiable, on tensors, of ``trajectories`` environments; else it may have fewer,
            and runs as many batches of episodes as it takes.
        policy: acts by its samples.
        horizon: ``H``.
        trajectories: ``N``, at least 3, and 6 for ``mixed``.
        estimators: which to report, in this order.
        gamma: the discount of the objective.
        seed: of the starts, of the environment's noise and of the actions.

    Raises:
        NonFiniteError: an action, a reward or an observation is not finite. A *gradient* that is
            not is a finding, and reported as NaN.
        RequestError: too few trajectories, or an environment without a gradient.
    """
    began = time.perf_counter()
    generator = stream(seed, f"noise, horizon {horizon}", next(policy.parameters()).device)
    noise = policy.draw_noise(horizon, trajectories, generator=generator)
    start_seed = stream_seed(seed, f"starts, horizon {horizon}")
    gradients: dict[str, Gradients] = {}
    if set(estimators) <= {"score_function"}:
        window = sample(env, policy, noise, seed=start_seed)
    else:
        window = sample_with_graph(env, policy, noise, seed=start_seed)
        # The first of them, because it frees the graph.
        gradients["pathwise"] = pathwise_gradients(policy, window, gamma)
        window = window.detach()
    score_function = gradients["score_function"] = score_gradients(policy, window, gamma)
    if "mixed" in estimators:
        gradients["mixed"] = mixed_gradients(score_function, gradients["pathwise"])
    found = {name: statistics_of(gradients[name], score_function) for name in estimators}
    length = float(window.valid.sum(0).double().mean())
    seconds = time.perf_counter() - began
    return [
        Measurement(
            estimator=name,
            horizon=horizon,
            trajectories=trajectories,
            mean_length=length,
            seconds=seconds,
            **found[name],
        )
        for name in estimators
    ]


def sample(env: AnyVectorEnv, policy: Policy, noise: Tensor, *, seed: int) -> Window:
    """``N`` trajectories from fresh starts, without a graph; steps after an end are not valid.

    Args:
        env: of any number of environments; batches of them run until there are ``N``.
        policy: acts.
        noise: ``[H, N, A]``.
        seed: of the first batch's environments, whose generators the next batches go on with.
    """
    size, count = env.num_envs, noise.shape[1]
    # The last batch is filled up with noise that is used already, and cut off again.
    filled = noise[:, torch.arange(count + -count % size, device=noise.device) % count]
    windows = []
    for number, batch in enumerate(torch.split(filled, size, dim=1)):
        rollout_state = start(env, seed=seed if number == 0 else None, device=noise.device)
        windows.append(collect(env, policy, rollout_state, batch)[0])
    return first_episodes(map_window(lambda x: x[:, :count], _side_by_side(windows)))


def sample_with_graph(env: AnyVectorEnv, policy: Policy, noise: Tensor, *, seed: int) -> Window:
    """The same with the graph, for an environment of ``N`` environments.

    Raises:
        RequestError: the environment is not one on tensors.
    """
    if not isinstance(env, OnTensors):
        raise RequestError(
            "this environment has no gradient, so only the score function can be measured on it: "
            "leave the other estimators out, or give a differentiable environment"
        )
    return first_episodes(unroll(env, policy, start(env, seed=seed, device=noise.device), noise)[0])


def score_gradients(policy: Policy, window: Window, gamma: float) -> Gradients:
    """By the score function, with reward-to-go and a leave-one-out baseline at every step."""
    nothing = torch.zeros_like(window.reward)
    reward = torch.where(window.valid, window.reward, nothing)
    returns = reward_to_go(reward, window.terminated, window.truncated, gamma=gamma)
    weight = matched_score_weight(
        window, nothing, leave_one_out_by_fold(returns, window.valid), gamma
    )
    recorder = GradientRecorder(policy)
    with recorder.recording():
        surrogate = score_function_surrogate(policy, window, weight)
    return recorder.per_trajectory(surrogate)


def pathwise_gradients(policy: Policy, window: Window, gamma: float) -> Gradients:
    """By the action gradient; frees the window's graph.

    Zero where no differentiable path joins actions and objective. Who trains is refused there; here
    it is what was asked: the derivative of a step function is zero, and the bias test tells.
    """
    objective = window_objective(window, torch.zeros_like(window.reward), gamma)
    try:
        weight = action_gradient(objective, window)
    except RequestError:
        weight = torch.zeros_like(window.pre_action)
    recorder = GradientRecorder(policy)
    with recorder.recording():
        surrogate = pathwise_surrogate(policy, window.detach(), weight)
    return recorder.per_trajectory(surrogate)


def mixed_gradients(score_function: Gradients, pathwise: Gradients) -> Gradients:
    """By cross-fitted weights; as pathwise where that is not finite."""
    if not all(bool(gradient.isfinite().all()) for gradient in pathwise.values()):
        return pathwise
    weight = cross_fitted_weight(score_function, pathwise)
    return mix_gradients(score_function, pathwise, weight)


def _side_by_side(windows: list[Window]) -> Window:
    """Joins plain windows of as many steps along their trajectories."""
    columns = {field.name: [getattr(w, field.name) for w in windows] for field in FIELDS}
    return Window(**{k: torch.cat(v, 1) for k, v in columns.items() if v[0] is not None})
