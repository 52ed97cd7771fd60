"""From an estimator and its signals to gradients and metrics: one way for every estimator."""

from collections.abc import Mapping

import torch
from torch import Tensor

from pgtoolkit.agent import Metrics
from pgtoolkit.diagnostics.amplification import adjoint_growth, policy_gain
from pgtoolkit.diagnostics.monitor import GradientMonitor, variance_by_step
from pgtoolkit.diagnostics.per_trajectory import Gradients
from pgtoolkit.errors import NonFiniteError, RequestError
from pgtoolkit.estimators.catalogue import CATALOGUE
from pgtoolkit.estimators.signals import Signals
from pgtoolkit.learners.entropy import EntropyBonus

MATCHED = "matched score function"
"""Name of the score function's gradient with the matched weight, where another weight is used."""


def backward(
    name: str,
    signals: Signals,
    *,
    monitor: GradientMonitor,
    entropy: EntropyBonus,
    divisor: float = 1.0,
) -> Metrics:
    """Sets the policy's gradients by one estimator; measures it and others where that is due.

    The gradients are those of ``-mean_i (surrogate_i + entropy bonus_i) / divisor``.

    Args:
        name: the estimator's name in the catalogue.
        signals: the window, its objective and the numbers computed from them.
        monitor: decides whether this update is measured.
        entropy: the bonus in the objective.
        divisor: a constant, such as the configured number of steps of a window. It must not depend
            on the window: the length of whole episodes depends on the actions, and the quotient
            would then be a biased estimate, even of the gradient's direction.

    Raises:
        NonFiniteError: names the tensor, the step and the environment; no gradient is set.
        RequestError: the estimator is not available for this policy and window.
    """
    estimator, window = CATALOGUE[name], signals.window
    for part in estimator.needs:
        getattr(signals, part)
    others: tuple[str, ...] = ()
    if monitor.measures(window.num_envs):
        with monitor.diagnosing():
            others = available(estimator.beside, signals)
    bonus: list[Tensor] = []  # computed once, before any surrogate: autograd's order follows it

    def followed() -> Tensor:
        signals.renew_distribution()
        bonus.append(entropy.bonus(signals.distribution, window))
        return term(estimator.surrogate(signals, signals.distribution))

    def term(surrogate: Tensor) -> Tensor:
        return (surrogate + bonus[0]) / divisor

    def beside() -> dict[str, Tensor]:
        at = signals.distribution
        terms = {other: term(CATALOGUE[other].surrogate(signals, at)) for other in others}
        comparable = "pathwise" in (name, *others) and signals.has_matched_weight
        if others and signals.own_weight is not None and comparable:
            terms[MATCHED] = term(signals.matched_surrogate(at))
        return terms

    gradients, measured = monitor.backward_beside(signals.policy, followed, beside)
    metrics = estimator.metrics(signals)
    if signals.objective is not None:
        loss = -signals.objective.detach().mean() / divisor
        metrics["train/policy_gradient_loss"] = loss
    if gradients:
        with monitor.diagnosing():
            metrics |= report({name: gradients} | measured, signals, monitor)
            metrics |= amplification(signals)
        if "pathwise" in estimator.beside and signals.differentiable and not others:
            metrics["gradient/pathwise/missing"] = torch.ones(())
        metrics[f"gradient/{name}/followed"] = torch.ones(())
    return metrics


def amplification(signals: Signals) -> Metrics:
    """The policy's gain, and the growth of the pathwise adjoint where it was computed."""
    window = signals.window
    found = {"train/policy_gain": policy_gain(signals.policy, window.obs, window.valid)}
    if "action_gradient" in vars(signals):
        found["gradient/adjoint_growth"] = adjoint_growth(signals.action_gradient, window.valid)
    return {tag: value for tag, value in found.items() if value is not None}


def available(names: tuple[str, ...], signals: Signals) -> tuple[str, ...]:
    """The names of the estimators whose parts can be computed on this window and are finite."""
    found = []
    for name in names:
        estimator = CATALOGUE[name]
        if "action_gradient" in estimator.needs and not signals.differentiable:
            continue
        try:
            for part in estimator.needs:
                getattr(signals, part)
        except (NonFiniteError, RequestError):
            continue
        found.append(name)
    return tuple(found)


def report(
    gradients: Mapping[str, Gradients], signals: Signals, monitor: GradientMonitor
) -> Metrics:
    """Statistics of each estimator's gradients, the matched comparison, and the curves by step."""
    shown = {name: values for name, values in gradients.items() if name != MATCHED}
    matched = gradients.get(MATCHED if signals.own_weight is not None else "score_function")
    if matched is None or "pathwise" not in gradients:
        return monitor.report(shown)
    metrics = monitor.report(shown, (matched, gradients["pathwise"]))
    for name in shown:
        rows = CATALOGUE[name].by_step(signals)
        if rows is not None:
            metrics[f"gradient/by_step/{name}"] = variance_by_step(rows)
    return metrics


def measure(
    name: str,
    signals: Signals,
    *,
    monitor: GradientMonitor,
    entropy: EntropyBonus,
    divisor: float = 1.0,
) -> Metrics:
    """Statistics of one estimator's gradient where a measurement is due; nothing is changed.

    The arguments are those of :func:`backward`.
    """
    window, estimator = signals.window, CATALOGUE[name]
    if not monitor.measures(window.num_envs):
        return {}
    for part in estimator.needs:
        getattr(signals, part)

    def term() -> Tensor:
        signals.renew_distribution()
        bonus = entropy.bonus(signals.distribution, window)
        surrogate = estimator.surrogate(signals, signals.distribution)
        return (surrogate + bonus) / divisor

    gradients = monitor.measure(signals.policy, term)
    if not gradients:
        return {}
    metrics = monitor.report({name: gradients})
    with monitor.diagnosing():
        return metrics | amplification(signals)
