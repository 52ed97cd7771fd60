"""The horizon study: statistics of gradient estimators at one horizon, on the same trajectories.

The policy is fixed. ``N`` trajectories start from fresh start states, and every estimator is
measured on the *same* trajectories and for the *same* objective. A trajectory is the first ``H``
steps of one episode, or all of it if it ends earlier. The objective is the discounted reward of
these steps::

    J_H = sum_{k < H} gamma^k r_k

There is no bootstrap, no normalisation and no division by ``H``: the variance is that of the
gradient of the return, which can be compared to closed forms. It includes the variance due to
start states.

- ``score_function``: ``sum_k gamma^k (G_k - b_k) dlog pi_k``, with the reward-to-go ``G_k`` and the
  baseline ``b_k``, the mean reward-to-go at step ``k`` of the other trajectories in the same fold.
- ``pathwise``: the derivative through the environment.
- ``mixed``: a weighted mean of the two with cross-fitted weights
  (:mod:`pgtoolkit.estimators.mixing`).

The trajectories form folds, and no baseline is shared between them. The weights for one fold are
fitted on the others, so ``mixed`` is exactly as unbiased as the two estimators that it mixes.
"""

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import final

import torch
from torch import Tensor

from pgtoolkit.diagnostics.paired import log_variance_ratio
from pgtoolkit.diagnostics.per_trajectory import Gradients, per_trajectory_gradients
from pgtoolkit.diagnostics.statistics import GradientStatistics, gradient_difference
from pgtoolkit.errors import RequestError
from pgtoolkit.estimators.catalogue import CATALOGUE, StudyEstimator
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
from pgtoolkit.rollouts.rollout import TensorVectorEnv, collect, reset, unroll
from pgtoolkit.rollouts.window import (
    Window,
    concatenate_environments,
    first_episodes,
    map_window,
)
from pgtoolkit.seeding import stream, stream_seed

ESTIMATOR_FIELDS = (
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
"""Fields of a :class:`Measurement` that are statistics of the estimator's gradients."""

BIAS_FIELDS = {
    "bias": "signal",
    "bias_low": "signal_low",
    "bias_high": "signal_high",
    "bias_z": "significance",
}
"""Field of a :class:`Measurement` to the statistic of the difference from the score function."""

RATIO_FIELDS = ("ratio", "ratio_low", "ratio_high")
"""Fields of a :class:`Measurement` that compare its variance with the score function's."""

ROUNDING_STEPS = 8.0
"""Rounding errors, in units of the last place, that one step is taken to add to a return."""


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """Statistics of one estimator's gradient at one horizon. A number that does not exist is NaN.

    They are of the gradient of the return, not divided by the horizon. ``_low`` and ``_high`` are
    the ends of 95 % intervals. If the gradient is not finite, all statistics are NaN.
    """

    estimator: StudyEstimator
    horizon: int
    """``H`` in steps."""
    trajectories: int
    """``N``, the number of trajectories."""
    mean_length: float
    """Mean number of steps of a trajectory: less than the horizon if episodes end earlier."""
    ended_early: float
    """Share of trajectories that terminated before the longest one ended. When they do may depend
    on the actions, and a pathwise gradient does not see that."""
    seconds: float
    """Wall time of all estimators together at this horizon."""
    seconds_per_trajectory: float
    """Wall time of this estimator's own work for one trajectory: sampling and its gradient."""
    rounding: float
    """Variance plus signal that may be nothing but rounding of the returns."""
    variance: float
    """Trace of the covariance of one trajectory's gradient."""
    variance_low: float
    variance_high: float
    signal: float
    """Squared norm of the mean gradient, unbiased; may be negative."""
    signal_low: float
    signal_high: float
    snr: float
    """The signal divided by the variance, for one trajectory."""
    noise_scale: float
    """Variance over signal: the number of trajectories with which an update has an SNR of 1."""
    effective_dimension: float
    """Squared variance over the trace of the squared covariance."""
    detectability: float
    """The signal in standard deviations that it would have if the true signal were 0."""
    largest_share: float
    """The largest share of one trajectory in the sum of squared deviations. Near 1, the variance
    and its interval are unreliable."""
    bias: float
    """Squared norm of the mean difference from the score function on the same trajectories,
    unbiased. This and the next three fields are NaN for the score function itself."""
    bias_low: float
    bias_high: float
    bias_z: float
    """The z of the hypothesis of no bias, on a normal scale."""
    ratio: float
    """The variance divided by the score function's on the same trajectories. This and the next two
    fields are NaN for the score function itself, and where one of the two has no variance."""
    ratio_low: float
    """The ends of a paired interval, of which one may be NaN alone (see :class:`PairStatistics
    <pgtoolkit.diagnostics.paired.PairStatistics>`)."""
    ratio_high: float


def measure_horizon(
    env: AnyVectorEnv,
    policy: Policy,
    horizon: int,
    *,
    trajectories: int,
    estimators: Sequence[StudyEstimator],
    gamma: float,
    seed: int,
) -> list[Measurement]:
    """Measures estimators at one horizon, all on the same trajectories.

    The result depends on these arguments alone, not on earlier measurements. Neither the policy
    nor its observation normaliser changes.

    Args:
        env: any vector environment. Estimators other than the score function need a differentiable
            one of ``trajectories`` environments. For the score function alone it may have fewer,
            and runs as many batches of episodes as necessary.
        policy: acts by samples.
        horizon: ``H``.
        trajectories: ``N``, at least 3, and 6 for ``mixed``.
        estimators: names of the estimators to measure.
        gamma: the discount factor of the objective.
        seed: determines start states, process noise and actions.

    Returns:
        One measurement for each estimator, in their order.

    Raises:
        NonFiniteError: an action, a reward or an observation is not finite. If a *gradient* is not
            finite, its statistics are NaN.
        RequestError: too few trajectories, or an environment without a gradient.
    """
    began = time.perf_counter()
    generator = stream(seed, f"noise, horizon {horizon}", next(policy.parameters()).device)
    noise = policy.draw_noise(horizon, trajectories, generator=generator)
    start_seed = stream_seed(seed, f"starts, horizon {horizon}")
    clock = Stopwatch()
    window, gradients = _timed_gradients(env, policy, noise, start_seed, gamma, estimators, clock)
    found = statistics_of(gradients)
    lengths = window.valid.sum(0)
    ended = (window.terminated & window.valid).any(0) & (lengths < lengths.max())
    level = rounding_level(policy, window, gamma)
    seconds = time.perf_counter() - began
    return [
        Measurement(
            estimator=name,
            horizon=horizon,
            trajectories=trajectories,
            mean_length=float(lengths.double().mean()),
            ended_early=float(ended.double().mean()),
            seconds=seconds,
            seconds_per_trajectory=clock.total(*WORK[name]) / trajectories,
            rounding=level,
            **found[name],
        )
        for name in estimators
    ]


def _timed_gradients(
    env: AnyVectorEnv,
    policy: Policy,
    noise: Tensor,
    start_seed: int,
    gamma: float,
    estimators: Sequence[StudyEstimator],
    clock: "Stopwatch",
) -> tuple[Window, dict[StudyEstimator, Gradients]]:
    """The trajectories, without a graph, and the gradients of the estimators; times every part."""
    gradients: dict[StudyEstimator, Gradients] = {}
    if any("action_gradient" in CATALOGUE[name].needs for name in estimators):
        _warm_up(env, policy, noise, start_seed, gamma)
        # The score function needs no graph, so its sampling is timed without one.
        with clock.timing("plain"):
            sample(env, policy, noise, seed=start_seed)
        with clock.timing("graph"):
            window = sample_with_graph(env, policy, noise, seed=start_seed)
        with clock.timing("pathwise"):
            # Before the others, because it frees the graph.
            gradients["pathwise"] = pathwise_gradients(policy, window, gamma)
        window = window.detach()
    else:
        with clock.timing("plain"):
            window = sample(env, policy, noise, seed=start_seed)
    with clock.timing("score_function"):
        gradients["score_function"] = score_gradients(policy, window, gamma)
    if "mixed" in estimators:
        with clock.timing("mixed"):
            gradients["mixed"] = mixed_gradients(gradients["score_function"], gradients["pathwise"])
    return window, gradients


WORK: dict[StudyEstimator, tuple[str, ...]] = {
    "score_function": ("plain", "score_function"),
    "pathwise": ("graph", "pathwise"),
    "mixed": ("graph", "pathwise", "score_function", "mixed"),
}
"""Estimator to the parts of the work, by name, that it needs."""


@final
class Stopwatch:
    """Wall times of named parts of a computation, in seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def timing(self, name: str) -> Iterator[None]:
        """Times the block."""
        began = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - began

    def total(self, *names: str) -> float:
        """The time of several parts together."""
        return sum(self.seconds[name] for name in names)


def _warm_up(env: AnyVectorEnv, policy: Policy, noise: Tensor, seed: int, gamma: float) -> None:
    """Does all work once for a single step: whatever runs first in a process takes longer."""
    window = sample_with_graph(env, policy, noise[:1], seed=seed)
    pathwise_gradients(policy, window, gamma)
    score_gradients(policy, window.detach(), gamma)


def sample(env: AnyVectorEnv, policy: Policy, noise: Tensor, *, seed: int) -> Window:
    """``N`` trajectories from fresh start states, without a graph.

    Steps after the end of an episode are not valid.

    Args:
        env: a vector environment of any number of environments; batches of trajectories are run
            until there are ``N``.
        policy: acts on every step.
        noise: ``[H, N, A]`` of every action.
        seed: seed of the first batch's reset. Later batches continue with the environments'
            generators.
    """
    size, count = env.num_envs, noise.shape[1]
    # The last batch is filled up with noise that has been used already; its surplus is discarded.
    filled = noise[:, torch.arange(count + -count % size, device=noise.device) % count]
    windows = []
    for number, batch in enumerate(torch.split(filled, size, dim=1)):
        rollout_state = reset(env, seed=seed if number == 0 else None, device=noise.device)
        windows.append(collect(env, policy, rollout_state, batch)[0])
    joined = concatenate_environments(windows)
    return first_episodes(map_window(lambda x: x[:, :count], joined))


def sample_with_graph(env: AnyVectorEnv, policy: Policy, noise: Tensor, *, seed: int) -> Window:
    """:func:`sample` with the graph, in a differentiable environment of ``N`` environments.

    Raises:
        RequestError: the environment is not differentiable.
    """
    if not isinstance(env, TensorVectorEnv):
        raise RequestError(
            "this environment has no gradient, so only the score function can be measured on it: "
            "leave the other estimators out, or give a differentiable environment"
        )
    return first_episodes(unroll(env, policy, reset(env, seed=seed, device=noise.device), noise)[0])


def score_gradients(policy: Policy, window: Window, gamma: float) -> Gradients:
    """Gradients by the score function, with reward-to-go and a leave-one-out baseline by step."""
    zeros = torch.zeros_like(window.reward)
    reward = torch.where(window.valid, window.reward, zeros)
    returns = reward_to_go(reward, window.terminated, window.truncated, gamma=gamma)
    baseline = leave_one_out_by_fold(returns, window.valid)
    weight = matched_score_weight(window, zeros, baseline, gamma)
    return per_trajectory_gradients(
        policy, lambda: score_function_surrogate(policy, window, weight)
    )


def pathwise_gradients(policy: Policy, window: Window, gamma: float) -> Gradients:
    """Gradients by pathwise; frees the window's graph.

    They are zero if no differentiable path joins the actions to the objective. Training raises an
    error in that case. The study measures what was asked for: zero is the derivative of a step
    function, and the test for bias shows that it is wrong.
    """
    objective = window_objective(window, torch.zeros_like(window.reward), gamma)
    try:
        weight = action_gradient(objective, window)
    except RequestError:
        weight = torch.zeros_like(window.pre_action)
    plain = window.detach()
    return per_trajectory_gradients(policy, lambda: pathwise_surrogate(policy, plain, weight))


def rounding_level(policy: Policy, window: Window, gamma: float) -> float:
    """The squared norm of a gradient that rounding errors of the returns may add up to.

    A return over H steps is off by about ``8 eps sqrt H`` of its size, with the machine epsilon
    ``eps`` of the rewards. So is the score function without a baseline, ``sum_k gamma^k G_k dlog
    pi_k``, whose mean squared norm is multiplied by the square of that. Pathwise is in the same
    units: a derivative below this level changes the return by less than its rounding error when the
    action moves by a standard deviation.
    """
    zeros = torch.zeros_like(window.reward)
    weight = matched_score_weight(window, zeros, zeros, gamma).abs()
    gradients = per_trajectory_gradients(
        policy, lambda: score_function_surrogate(policy, window, weight)
    )
    squares = torch.stack([g.double().square().sum() for g in gradients.values()]).sum()
    error = ROUNDING_STEPS * torch.finfo(window.reward.dtype).eps
    return float(squares) / window.num_envs * error**2 * window.num_steps


def mixed_gradients(score_function: Gradients, pathwise: Gradients) -> Gradients:
    """The mix of both with cross-fitted weights; pathwise itself if that is not finite."""
    if not _all_finite(pathwise):
        return pathwise
    weight = cross_fitted_weight(score_function, pathwise)
    return mix_gradients(score_function, pathwise, weight)


def statistics_of(
    gradients: Mapping[StudyEstimator, Gradients],
) -> dict[StudyEstimator, dict[str, float]]:
    """The statistics in a :class:`Measurement`, by estimator and by the name of the field.

    Args:
        gradients: estimator to its gradients ``{parameter name: [N, *shape]}``, with the score
            function's among them, on the same trajectories.

    Raises:
        RequestError: fewer than three trajectories.
    """
    nothing = dict.fromkeys((*ESTIMATOR_FIELDS, *BIAS_FIELDS, *RATIO_FIELDS), math.nan)
    own = {name: GradientStatistics.of(g) for name, g in gradients.items() if _all_finite(g)}
    found = {}
    for name in gradients:
        numbers = {
            field: float(getattr(own[name], field)) for field in ESTIMATOR_FIELDS if name in own
        }
        if name != "score_function" and {name, "score_function"} <= own.keys():
            numbers |= _compared(gradients, own, name)
        found[name] = nothing | numbers
    return found


def _compared(
    gradients: Mapping[StudyEstimator, Gradients],
    own: Mapping[StudyEstimator, GradientStatistics],
    name: StudyEstimator,
) -> dict[str, float]:
    """Bias and variance ratio of one estimator, against the score function."""
    reference: StudyEstimator = "score_function"
    log_ratio, ends = log_variance_ratio(own[name].deviations, own[reference].deviations)
    difference = GradientStatistics.of(gradient_difference(gradients[reference], gradients[name]))
    bias = {field: float(getattr(difference, source)) for field, source in BIAS_FIELDS.items()}
    logs = zip(RATIO_FIELDS, (log_ratio, *ends), strict=True)
    return bias | {field: float(log.exp()) for field, log in logs}


def _all_finite(gradients: Mapping[str, Tensor]) -> bool:
    return all(bool(gradient.isfinite().all()) for gradient in gradients.values())
