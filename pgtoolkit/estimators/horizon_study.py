"""The horizon study: statistics of gradient estimators at one horizon, on the same trajectories.

The policy is fixed. ``N`` trajectories start from fresh start states, and every estimator is
measured on the *same* trajectories and for the *same* objective. A trajectory is the first ``H``
steps of one episode, or all of it if it ends earlier. The objective is the discounted reward of
these steps::

    J_H = sum_{k < H} gamma^k r_k

There is no bootstrap, no normalisation and no division by ``H``: the variance is that of the
gradient of the return, which can be compared to closed forms. It includes the variance due to
start states. Where a critic is measured, the objective of *all* estimators is that of
:mod:`pgtoolkit.estimators.soft_value`, which ends with the critic's value of the last state: the
critic's estimate of a step stands for all that comes after it.

- ``score_function``: ``sum_k gamma^k (G_k - b_k) dlog pi_k``, with the reward-to-go ``G_k`` and the
  baseline ``b_k``, the mean reward-to-go at step ``k`` of the other trajectories in the same fold.
- ``pathwise``: the derivative through the environment.
- ``mixed``: a weighted mean of the score function and pathwise, or the critic's where there is no
  pathwise, with cross-fitted weights (:mod:`pgtoolkit.estimators.mixing`).
- ``critic``: the slope of the critic's value by the action.

The trajectories form folds, and no baseline is shared between them. The weights for one fold are
fitted on the others, so ``mixed`` is exactly as unbiased as the two estimators that it mixes.
"""

import contextlib
import dataclasses
import math
import time
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import final

import torch
from torch import Tensor

from pgtoolkit.diagnostics.bias import is_biased
from pgtoolkit.diagnostics.paired import PairStatistics, log_variance_ratio
from pgtoolkit.diagnostics.per_trajectory import Gradients, per_trajectory_gradients
from pgtoolkit.diagnostics.statistics import GradientStatistics
from pgtoolkit.errors import NonFiniteError, RequestError
from pgtoolkit.estimators.catalogue import CATALOGUE, StudyEstimator
from pgtoolkit.estimators.cross_fitting import leave_one_out_by_fold
from pgtoolkit.estimators.mixing import cross_fitted_weight, mix_gradients
from pgtoolkit.estimators.returns import reward_to_go, segment_discount
from pgtoolkit.estimators.signals import Signals
from pgtoolkit.estimators.soft_value import SoftCritic, soft_window
from pgtoolkit.estimators.surrogates import (
    action_gradient,
    matched_score_weight,
    pathwise_surrogate,
    score_function_surrogate,
    window_objective,
)
from pgtoolkit.gymnasium_types import AnyVectorEnv
from pgtoolkit.policies.policy import Policy, without_normalizer
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
"""Field of a :class:`Measurement` to the statistic of the difference from its reference."""

COSINE_FIELDS = ("cosine", "cosine_low", "cosine_high")
"""Fields of a :class:`Measurement` that compare the direction with that of its reference."""

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
    """Squared norm of the mean difference from the reference's gradient on the same trajectories,
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
    reference: str = ""
    """The estimator from which the bias is measured: the score function; for the critic pathwise,
    where that is measured, not zero and not seen to be biased itself."""
    cosine: float = math.nan
    """Cosine of the angle to the reference's mean gradient. Noise makes it smaller."""
    cosine_low: float = math.nan
    """The ends of the interval of the cosine between the true means, if both show a signal."""
    cosine_high: float = math.nan


def measure_horizon(
    env: AnyVectorEnv,
    policy: Policy,
    horizon: int,
    *,
    trajectories: int,
    estimators: Sequence[StudyEstimator],
    gamma: float,
    seed: int,
    critic: SoftCritic | None = None,
) -> list[Measurement]:
    """Measures estimators at one horizon, all on the same trajectories.

    The result depends on these arguments alone, not on earlier measurements. Neither the policy
    nor its observation normaliser changes.

    Args:
        env: any vector environment. Pathwise, and mixed without a critic, need a differentiable one
            of ``trajectories`` environments. For the others it may have fewer, and runs as many
            batches of episodes as necessary.
        policy: acts by samples.
        horizon: ``H``.
        trajectories: ``N``, at least 3, and 6 for ``mixed``.
        estimators: names of the estimators to measure.
        gamma: the discount factor of the objective.
        seed: determines start states, process noise and actions.
        critic: the policy's, in the unit of the environment's rewards; needed for ``critic``, and
            used only if that is among the estimators.

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
    if "critic" not in estimators:
        objective = Objective(policy, gamma)
    else:
        objective = Objective(policy, gamma, critic, draw_end_noise(policy, noise, seed, horizon))
    window, gradients = _timed_gradients(env, objective, noise, start_seed, estimators, clock)
    found, references = statistics_of(gradients)
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
            seconds_per_trajectory=clock.total(*work(name, gradients)) / trajectories,
            rounding=level,
            reference=references[name],
            **found[name],
        )
        for name in estimators
    ]


@final
@dataclasses.dataclass(frozen=True)
class Objective:
    """What is differentiated: the discounted reward, and with a critic its value at the end."""

    policy: Policy
    gamma: float
    critic: SoftCritic | None = None
    end_noise: Tensor | None = None
    """``[H, N, noise_size]`` of the action after each step, for the critic's value."""

    def of(self, window: Window) -> tuple[Window, Tensor]:
        """The window with the objective's rewards, and ``V(next_obs)`` ``[T, N]``; with its graph.

        Without a critic the window is unchanged and the value 0.
        """
        if self.critic is None or self.end_noise is None:
            return window, torch.zeros_like(window.reward)
        features = self.policy.normalizer(window.next_obs)
        distribution = without_normalizer(self.policy)(features)
        noise = self.end_noise[: window.num_steps]
        value = self.critic.value(distribution, features, noise)
        return soft_window(window, self.policy, self.critic), value


def draw_end_noise(policy: Policy, noise: Tensor, seed: int, horizon: int) -> Tensor:
    """Noise of the same shape from a stream of its own."""
    generator = stream(seed, f"noise at the end, horizon {horizon}", noise.device)
    return policy.draw_noise(*noise.shape[:2], generator=generator)


def _timed_gradients(
    env: AnyVectorEnv,
    objective: Objective,
    noise: Tensor,
    start_seed: int,
    estimators: Sequence[StudyEstimator],
    clock: "Stopwatch",
) -> tuple[Window, dict[StudyEstimator, Gradients]]:
    """The trajectories, without a graph, and the gradients of the estimators; times every part."""
    gradients: dict[StudyEstimator, Gradients] = {}
    policy = objective.policy
    if uses_environment(estimators):
        _warm_up(env, policy, noise, start_seed, objective.gamma)
        # The score function needs no graph, so its sampling is timed without one.
        with clock.timing("plain"):
            sample(env, policy, noise, seed=start_seed)
        with clock.timing("graph"):
            window = sample_with_graph(env, policy, noise, seed=start_seed)
        with clock.timing("pathwise"):
            # Before the others, because it frees the graph.
            gradients["pathwise"] = pathwise_gradients(window, objective)
        window = window.detach()
    else:
        with clock.timing("plain"):
            window = sample(env, policy, noise, seed=start_seed)
    with clock.timing("score_function"):
        gradients["score_function"] = score_gradients(window, objective)
    if "critic" in estimators:
        with clock.timing("critic"):
            gradients["critic"] = critic_gradients(window, objective)
    if "mixed" in estimators:
        path = gradients["pathwise" if "pathwise" in gradients else "critic"]
        with clock.timing("mixed"):
            gradients["mixed"] = mixed_gradients(gradients["score_function"], path)
    return window, gradients


def uses_environment(estimators: Sequence[StudyEstimator]) -> bool:
    """Whether an estimator needs the gradient through the environment.

    ``mixed`` takes the critic where that is measured and pathwise is not.
    """
    needs = {part for name in estimators for part in CATALOGUE[name].needs}
    return "action_gradient" in needs or ("path_gradient" in needs and "critic" not in estimators)


WORK: dict[StudyEstimator, tuple[str, ...]] = {
    "score_function": ("plain", "score_function"),
    "pathwise": ("graph", "pathwise"),
    "critic": ("plain", "critic"),
}
"""Estimator to the parts of the work, by name, that it needs."""


def work(name: StudyEstimator, measured: Container[str]) -> tuple[str, ...]:
    """The parts of an estimator's work; mixed does that of the two that it mixes."""
    if name != "mixed":
        return WORK[name]
    path: StudyEstimator = "pathwise" if "pathwise" in measured else "critic"
    return (*WORK[path], *(x for x in WORK["score_function"] if x != "plain"), "mixed")


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
    window, objective = (
        sample_with_graph(env, policy, noise[:1], seed=seed),
        Objective(policy, gamma),
    )
    pathwise_gradients(window, objective)
    score_gradients(window.detach(), objective)


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
            "this environment has no gradient, so pathwise cannot be measured on it: leave it out, "
            "or give a differentiable environment"
        )
    return first_episodes(unroll(env, policy, reset(env, seed=seed, device=noise.device), noise)[0])


def score_gradients(window: Window, objective: Objective) -> Gradients:
    """Gradients by the score function, with reward-to-go and a leave-one-out baseline by step."""
    policy, gamma = objective.policy, objective.gamma
    with torch.no_grad():
        window, next_value = objective.of(window)
    reward = torch.where(window.valid, window.reward, torch.zeros_like(window.reward))
    returns = reward_to_go(
        reward,
        window.terminated,
        window.truncated,
        gamma=gamma,
        next_value=next_value,
        segment_end=window.segment_end,
    )
    baseline = leave_one_out_by_fold(returns, window.valid)
    weight = matched_score_weight(window, next_value, baseline, gamma)
    return per_trajectory_gradients(
        policy, lambda: score_function_surrogate(policy, window, weight)
    )


def pathwise_gradients(window: Window, objective: Objective) -> Gradients:
    """Gradients by pathwise; frees the window's graph.

    They are zero if no differentiable path joins the actions to the objective. Training raises an
    error in that case. The study measures what was asked for: zero is the derivative of a step
    function, and the test for bias shows that it is wrong.
    """
    policy = objective.policy
    value = window_objective(*objective.of(window), objective.gamma)
    try:
        weight = action_gradient(value, window)
    except RequestError:
        weight = torch.zeros_like(window.pre_action)
    plain = window.detach()
    return per_trajectory_gradients(policy, lambda: pathwise_surrogate(policy, plain, weight))


def critic_gradients(window: Window, objective: Objective) -> Gradients:
    """Gradients by the critic's slope, discounted as the objective is.

    Raises:
        RequestError: there is no critic.
    """
    policy, critic = objective.policy, objective.critic
    if critic is None:
        raise RequestError(
            "there is no critic, so its gradient cannot be measured: leave it out, or name a run "
            "of an agent that has a Q function"
        )
    signals = Signals(
        policy,
        window,
        q_value=critic.q_value,
        temperature=critic.temperature,
        critic_discount=segment_discount(window.segment_end, objective.gamma),
    )
    try:
        weight = signals.critic_action_gradient
    except NonFiniteError:
        weight = torch.full_like(window.pre_action, math.nan)
    return per_trajectory_gradients(policy, lambda: pathwise_surrogate(policy, window, weight))


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
) -> tuple[dict[StudyEstimator, dict[str, float]], dict[StudyEstimator, str]]:
    """The statistics in a :class:`Measurement`, by estimator and by the name of the field.

    Args:
        gradients: estimator to its gradients ``{parameter name: [N, *shape]}``, with the score
            function's among them, on the same trajectories, and pathwise's before the critic's.

    Returns:
        The statistics, and the estimator that each one's bias is measured from.

    Raises:
        RequestError: fewer than three trajectories.
    """
    fields = (*ESTIMATOR_FIELDS, *BIAS_FIELDS, *RATIO_FIELDS, *COSINE_FIELDS)
    nothing = dict.fromkeys(fields, math.nan)
    own = {name: GradientStatistics.of(g) for name, g in gradients.items() if _all_finite(g)}
    found: dict[StudyEstimator, dict[str, float]] = {}
    references = dict.fromkeys(gradients, "")
    for name in sorted(gradients, key=lambda name: name == "critic"):
        numbers = {
            field: float(getattr(own[name], field)) for field in ESTIMATOR_FIELDS if name in own
        }
        if name != "score_function" and {name, "score_function"} <= own.keys():
            reference = reference_of(name, own, found)
            numbers |= _compared(gradients, own, name, reference)
            references[name] = reference
        found[name] = nothing | numbers
    return found, references


def reference_of(
    name: StudyEstimator,
    own: Mapping[StudyEstimator, GradientStatistics],
    found: Mapping[StudyEstimator, Mapping[str, float]],
) -> StudyEstimator:
    """The estimator that another one's bias is measured from.

    The first that the catalogue compares it with, if that was measured, is not zero and not seen
    to be biased itself; else the score function, which is unbiased and has a larger variance.

    Args:
        name: the estimator.
        own: statistics of those whose gradients are finite.
        found: the numbers of those that were compared already.
    """
    exact: StudyEstimator = "pathwise"
    if exact in CATALOGUE[name].against and exact in own and exact in found:
        numbers = found[exact]
        if numbers["variance"] > 0 and not is_biased(numbers["bias_z"], numbers["bias_low"]):
            return exact
    return "score_function"


def _compared(
    gradients: Mapping[StudyEstimator, Gradients],
    own: Mapping[StudyEstimator, GradientStatistics],
    name: StudyEstimator,
    reference: StudyEstimator,
) -> dict[str, float]:
    """Bias and cosine of one estimator to its reference, and its variance ratio.

    The ratio is that to the score function.
    """
    score: StudyEstimator = "score_function"
    log_ratio, ends = log_variance_ratio(own[name].deviations, own[score].deviations)
    pair = PairStatistics.of(gradients[reference], gradients[name], (own[reference], own[name]))
    difference = pair.difference
    bias = {field: float(getattr(difference, source)) for field, source in BIAS_FIELDS.items()}
    directions = {field: float(getattr(pair, field)) for field in COSINE_FIELDS}
    logs = zip(RATIO_FIELDS, (log_ratio, *ends), strict=True)
    return bias | directions | {field: float(log.exp()) for field, log in logs}


def _all_finite(gradients: Mapping[str, Tensor]) -> bool:
    return all(bool(gradient.isfinite().all()) for gradient in gradients.values())
