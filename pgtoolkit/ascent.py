"""One step of gradient ascent by either estimator, with both measured when a measurement is due.

The two functions are twins: they differ in which surrogate the optimiser climbs.
"""

from collections.abc import Callable

from torch import Tensor

from pgtoolkit.actor import Actor
from pgtoolkit.agent import Metrics
from pgtoolkit.estimators import (
    action_gradient,
    pathwise_surrogate,
    score_action_gradient,
    score_function_surrogate,
)
from pgtoolkit.finite import require_finite_adjoint, require_finite_steps
from pgtoolkit.monitor import Surrogate, variance_by_step
from pgtoolkit.window import Window

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
    if score_function and objective is None:
        metrics |= actor.monitor.report(measured)
    elif score_function and objective is not None:
        with actor.monitor.diagnosing():
            gradient = objective_action_gradient(window, objective)
            plain = window.detach()
            other = matched_weight(plain)
            pathwise = actor.monitor.measure(actor.policy, pathwise_term(actor, plain, gradient))
            matched = actor.monitor.measure(actor.policy, score_term(actor, plain, other))
            metrics |= actor.monitor.report(measured | {"pathwise": pathwise}, (matched, pathwise))
            metrics |= by_step(actor, plain, gradient, other)
    return metrics | actor.step(window.detach())


def objective_action_gradient(window: Window, objective: Tensor) -> Tensor:
    """``dJ/du`` ``[T, N, A]``, after a look whether it is finite."""
    gradient = action_gradient(objective, window)
    require_finite_adjoint("action gradient dJ/du", gradient)
    return gradient


def pathwise_term(actor: Actor, window: Window, gradient: Tensor) -> Surrogate:
    """The surrogate ``[N]`` per step of the window, with the entropy bonus."""
    return lambda: (
        (pathwise_surrogate(actor.policy, window, gradient) + actor.entropy_bonus(window))
        / window.num_steps
    )


def score_term(actor: Actor, window: Window, weight: Tensor) -> Surrogate:
    """The surrogate ``[N]`` per step of the window, with the entropy bonus."""
    return lambda: (
        (score_function_surrogate(actor.policy, window, weight) + actor.entropy_bonus(window))
        / window.num_steps
    )


def by_step(actor: Actor, window: Window, gradient: Tensor, weight: Tensor) -> Metrics:
    """Variance of ``dJ/du_t`` by step, by either estimator."""
    score = score_action_gradient(actor.policy, window, weight)
    return {
        "gradient/by_step/score_function": variance_by_step(score),
        "gradient/by_step/pathwise": variance_by_step(gradient),
    }
