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
- ``mixed``: a weighted mean of the two, by cross-fitted weights (:mod:`pgtoolkit.mixing`).

The trajectories are in two halves, which share no baseline: the weights of one are fitted on the
other, so ``mixed`` is exactly as unbiased as the two.
"""

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from pgtoolkit.cross_fitting import leave_one_out_by_fold
from pgtoolkit.errors import RequestError
from pgtoolkit.estimators import (
    action_gradient,
    matched_score_weight,
    pathwise_surrogate,
    score_function_surrogate,
    window_objective,
)
from pgtoolkit.gradients import GradientRecorder
from pgtoolkit.measurement import Estimator, Measurement, statistics_of
from pgtoolkit.mixing import cross_fitted_weight, mix_gradients
from pgtoolkit.policy import Policy
from pgtoolkit.returns import reward_to_go
from pgtoolkit.rollout import AnyVectorEnv, OnTensors, collect, start, unroll
from pgtoolkit.seeding import stream, stream_seed
from pgtoolkit.window import FIELDS, Window, first_episodes, map_window

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
        cursor = start(env, seed=seed if number == 0 else None, device=noise.device)
        windows.append(collect(env, policy, cursor, batch)[0])
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
