"""One step of gradient ascent by an estimator, with the others measured when a measurement is due.

The functions differ in which surrogate the optimiser climbs, and in nothing else.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from pgtoolkit.agent import AgentConfig, Metrics
from pgtoolkit.diagnostics.monitor import Surrogate, variance_by_step
from pgtoolkit.distributions.base import Distribution
from pgtoolkit.distributions.clipped import ClippedGaussian
from pgtoolkit.distributions.gaussian import DiagonalGaussian
from pgtoolkit.distributions.squashed import TanhGaussian
from pgtoolkit.errors import NonFiniteError, RequestError
from pgtoolkit.estimators.cross_fitting import MIN_MIXED
from pgtoolkit.estimators.mixing import cross_fitted_step_weights, mixed_surrogate_of
from pgtoolkit.estimators.surrogates import (
    action_gradient,
    pathwise_surrogate_of,
    score_action_gradient,
    score_function_surrogate_of,
)
from pgtoolkit.finite import require_finite_adjoint, require_finite_steps
from pgtoolkit.learners.policy_learner import Actor
from pgtoolkit.rollouts.window import Window

ScoreWeight = Callable[[Window], Tensor]
"""The weight ``[T, N]`` with which the score function estimates the objective's gradient."""


def ascend_pathwise(
    actor: Actor, window: Window, objective: Tensor, matched_weight: ScoreWeight
) -> Metrics:
    """Climbs ``objective`` ``[N]`` by its derivative through the environment.

    Args:
        actor: changed in place.
        window: differentiable; its graph is freed.
        objective: per trajectory, summed over the window's steps, with its graph.
        matched_weight: gives the score function's weight for the same objective, if it is measured.

    Raises:
        NonFiniteError: names the tensor, the step and the environment; nothing has been changed.
    """
    gradient = objective_action_gradient(window, objective)
    window = window.detach()
    climbed = pathwise_term(actor, window, gradient)
    pathwise = actor.monitor.backward(actor.policy, climbed)
    metrics = {"train/policy_gradient_loss": -objective.detach().mean() / window.num_steps}
    if pathwise:
        with actor.monitor.diagnosing():
            weight = matched_weight(window)
            other = score_term(actor, window, weight)
            score_function = actor.monitor.measure(actor.policy, other)
            metrics |= actor.monitor.report(
                {"pathwise": pathwise, "score_function": score_function},
                matched=(score_function, pathwise),
            )
            metrics |= by_step(actor, window, gradient, weight)
    return metrics | actor.step(window)


def ascend_score_function(
    actor: Actor,
    window: Window,
    weight: Tensor,
    objective: Tensor | None,
    matched_weight: ScoreWeight,
) -> Metrics:
    """Climbs by the score function with ``weight`` ``[T, N]``.

    Args:
        actor: changed in place.
        window: plain; or differentiable where pathwise is to be measured beside it.
        weight: return or advantage of each step; constants.
        objective: per trajectory, with its graph, of a differentiable window; else None.
        matched_weight: as for :func:`ascend_pathwise`.

    Raises:
        NonFiniteError: names the tensor, the step and the environment; nothing has been changed.
    """
    require_finite_steps({"weight of the score function": weight})
    climbed = score_term(actor, window.detach(), weight)
    score_function = actor.monitor.backward(actor.policy, climbed)
    measured = {"score_function": score_function}
    metrics: Metrics = {}
    gradient = None
    if score_function and objective is not None:
        with actor.monitor.diagnosing():
            gradient = measurable_action_gradient(window, objective)
    if score_function and gradient is None:
        metrics |= actor.monitor.report(measured)
        if objective is not None:
            metrics["gradient/pathwise/missing"] = torch.ones(())
    elif score_function and gradient is not None:
        with actor.monitor.diagnosing():
            plain = window.detach()
            other = matched_weight(plain)
            pathwise = actor.monitor.measure(actor.policy, pathwise_term(actor, plain, gradient))
            matched = actor.monitor.measure(actor.policy, score_term(actor, plain, other))
            metrics |= actor.monitor.report(measured | {"pathwise": pathwise}, (matched, pathwise))
            metrics |= by_step(actor, plain, gradient, other)
    return metrics | actor.step(window.detach())


def ascend_mixed(
    actor: Actor, window: Window, objective: Tensor, matched_weight: ScoreWeight
) -> Metrics:
    """Climbs ``objective`` ``[N]`` by both estimators, each step mixed with a weight of its own.

    The weight of step ``t`` is that of least variance for the sums of the two action gradients over
    steps ``0..t``, by :func:`cross_fitted_step_weights
    <pgtoolkit.estimators.mixing.cross_fitted_step_weights>`. The parameters see such sums:
    pathwise errors of successive steps share their future and add up, those of the score function
    hardly do, and weights of single steps know nothing of it.

    Args:
        actor: changed in place.
        window: differentiable; its graph is freed.
        objective: per trajectory, summed over the window's steps, with its graph.
        matched_weight: gives the score function's weight for the same objective. It must keep the
            folds apart: what it gives one trajectory may not depend on those of the other fold.

    Raises:
        NonFiniteError: names the tensor, the step and the environment; nothing has been changed.
        RequestError: the policy is not Gaussian, or there are fewer than six trajectories.
    """
    if not is_gaussian(actor, window):
        raise RequestError(
            "only a Gaussian policy can mix the two estimators: the weights compare their "
            "derivatives by its mean. Use --estimator pathwise"
        )
    gradient = objective_action_gradient(window, objective)
    window = window.detach()
    weight = torch.where(window.valid, matched_weight(window), 0.0)
    require_finite_steps({"weight of the score function": weight})
    score = score_action_gradient(actor.policy, window, weight)
    mix = cross_fitted_step_weights(score.cumsum(0), gradient.cumsum(0))
    mixed = actor.monitor.backward(actor.policy, mixed_term(actor, window, weight, gradient, mix))
    metrics = {
        "train/policy_gradient_loss": -objective.detach().mean() / window.num_steps,
        "gradient/mix/weight": mix[window.valid].mean(),
        "gradient/mix/guarded": (mix == 0)[window.valid].double().mean(),
    }
    if mixed:
        with actor.monitor.diagnosing():
            pathwise = actor.monitor.measure(actor.policy, pathwise_term(actor, window, gradient))
            score_function = actor.monitor.measure(actor.policy, score_term(actor, window, weight))
            metrics |= actor.monitor.report(
                {"mixed": mixed, "pathwise": pathwise, "score_function": score_function},
                matched=(score_function, pathwise),
            )
            metrics |= by_step(actor, window, gradient, weight)
            by_action = torch.lerp(score, gradient, mix.unsqueeze(-1))
            metrics["gradient/by_step/mixed"] = variance_by_step(by_action)
    return metrics | actor.step(window)


Estimator = Literal["pathwise", "mixed"]
"""What an agent that differentiates through its environment climbs by."""

ASCENTS: dict[Estimator, Callable[[Actor, Window, Tensor, ScoreWeight], Metrics]] = {
    "pathwise": ascend_pathwise,
    "mixed": ascend_mixed,
}


def require_estimator(config: AgentConfig, estimator: Estimator) -> None:
    """Raises a ``RequestError`` where an agent so configured cannot climb by the estimator."""
    if estimator == "mixed":
        enough = f"at least {MIN_MIXED} with --estimator mixed"
        config.require("num_envs", config.num_envs >= MIN_MIXED, enough)
        gaussian = config.distribution == "gaussian"
        config.require("distribution", gaussian, "gaussian with --estimator mixed")


def objective_action_gradient(window: Window, objective: Tensor) -> Tensor:
    """``dJ/du`` ``[T, N, A]``, after a look whether it is finite."""
    gradient = action_gradient(objective, window)
    require_finite_adjoint("action gradient dJ/du", gradient)
    return gradient


def measurable_action_gradient(window: Window, objective: Tensor) -> Tensor | None:
    """The same, for comparison only: None where no path joins the two or it is not finite."""
    try:
        return objective_action_gradient(window, objective)
    except (NonFiniteError, RequestError):
        return None


def pathwise_term(actor: Actor, window: Window, gradient: Tensor) -> Surrogate:
    """The surrogate ``[N]`` per step of the window, with the entropy bonus."""
    return _term(actor, window, lambda at: pathwise_surrogate_of(at, window, gradient))


def score_term(actor: Actor, window: Window, weight: Tensor) -> Surrogate:
    """The surrogate ``[N]`` per step of the window, with the entropy bonus."""
    return _term(actor, window, lambda at: score_function_surrogate_of(at, window, weight))


def mixed_term(
    actor: Actor, window: Window, weight: Tensor, gradient: Tensor, mix: Tensor
) -> Surrogate:
    """The surrogate ``[N]`` per step of the window, with the entropy bonus."""
    return _term(actor, window, lambda at: mixed_surrogate_of(at, window, weight, gradient, mix))


def _term(
    actor: Actor, window: Window, surrogate_of: Callable[[Distribution], Tensor]
) -> Surrogate:
    """The observations go through the policy once, for the surrogate and for the entropy."""

    def term() -> Tensor:
        distribution = actor.policy(window.obs.detach())
        bonus = actor.entropy_bonus(distribution, window)
        return (surrogate_of(distribution) + bonus) / window.num_steps

    return term


def by_step(actor: Actor, window: Window, gradient: Tensor, weight: Tensor) -> Metrics:
    """Variance of ``dJ/du_t`` by step; by the score function too if the policy has a mean."""
    metrics = {"gradient/by_step/pathwise": variance_by_step(gradient)}
    if is_gaussian(actor, window):
        score = score_action_gradient(actor.policy, window, weight)
        metrics["gradient/by_step/score_function"] = variance_by_step(score)
    return metrics


def is_gaussian(actor: Actor, window: Window) -> bool:
    """Whether the policy's distribution has a mean that :func:`score_action_gradient` knows."""
    with torch.no_grad():
        distribution = actor.policy(window.obs[:1].detach())
    return isinstance(distribution, DiagonalGaussian | TanhGaussian | ClippedGaussian)
