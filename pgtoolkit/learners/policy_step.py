"""From an estimator and its signals to gradients and metrics: one way for every estimator."""

from collections.abc import Mapping

import torch
from torch import Tensor

from pgtoolkit.agent import Metrics
from pgtoolkit.diagnostics.amplification import adjoint_growth, policy_gain
from pgtoolkit.diagnostics.monitor import (
    GradientMonitor,
    Pair,
    bias_by_step,
    cosine_by_step,
    variance_by_step,
)
from pgtoolkit.diagnostics.per_trajectory import SampleGradients
from pgtoolkit.errors import NonFiniteError, RequestError
from pgtoolkit.estimators.catalogue import CATALOGUE
from pgtoolkit.estimators.signals import Signals
from pgtoolkit.learners.entropy import Bonus

MATCHED = "matched score function"
"""Name of the score function's gradient with the matched weight, where another weight is used."""


def backward(
    name: str,
    signals: Signals,
    *,
    monitor: GradientMonitor,
    entropy: Bonus,
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
        if others and signals.own_weight is not None and has_partner((name, *others), signals):
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
        missing = "pathwise" in estimator.beside and "pathwise" not in others
        if missing and signals.differentiable:
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


def has_partner(names: tuple[str, ...], signals: Signals) -> bool:
    """Whether the score function of the matched weight can be compared with one of these."""
    return signals.has_matched_weight and any(
        "score_function" in CATALOGUE[name].against and CATALOGUE[name].matched(signals)
        for name in names
    )


def report(
    gradients: Mapping[str, SampleGradients], signals: Signals, monitor: GradientMonitor
) -> Metrics:
    """Statistics of each estimator's gradients, the matched pairs, and the curves by step."""
    shown = {name: values for name, values in gradients.items() if name != MATCHED}
    matched = {name: shown[name] for name in shown if CATALOGUE[name].matched(signals)}
    if signals.own_weight is not None:
        matched.pop("score_function", None)
        if MATCHED in gradients:
            matched["score_function"] = gradients[MATCHED]
    rows = [
        (reference, name, group)
        for name in matched
        for reference, group in CATALOGUE[name].against.items()
        if reference in matched
    ]
    pairs = [Pair(matched[first], matched[second], group) for first, second, group in rows]
    metrics = monitor.report(shown, pairs)
    if not pairs:
        return metrics
    by_step = {name: CATALOGUE[name].by_step(signals) for name in {**shown, **matched}}
    curves = {name: steps for name, steps in by_step.items() if steps is not None}
    for name in (name for name in shown if name in curves):
        metrics[f"gradient/by_step/{name}"] = variance_by_step(curves[name])
    for first, second, group in rows:
        if first in curves and second in curves:
            both = curves[first], curves[second]
            metrics[f"{group}/bias_by_step"] = bias_by_step(*both)
            metrics[f"{group}/cosine_by_step"] = cosine_by_step(*both)
    return metrics


def measure(
    name: str,
    signals: Signals,
    *,
    monitor: GradientMonitor,
    entropy: Bonus,
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


def measure_matched(signals: Signals, monitor: GradientMonitor) -> Metrics:
    """Statistics and comparisons of all estimators that a window allows; nothing is changed.

    Args:
        signals: the window, an objective and the numbers computed from them. There is no divisor
            and no entropy bonus.
        monitor: makes the metrics; whether a measurement is due is the caller's to know.
    """
    with monitor.diagnosing():
        names = available(tuple(CATALOGUE), signals)

        def surrogates() -> dict[str, Tensor]:
            signals.renew_distribution()
            at = signals.distribution
            return {name: CATALOGUE[name].surrogate(signals, at) for name in names}

        gradients = monitor.measure_all(signals.policy, surrogates) if names else {}
        metrics = report(gradients, signals, monitor)
        if signals.differentiable and "pathwise" not in names:
            metrics["gradient/pathwise/missing"] = torch.ones(())
        return metrics
