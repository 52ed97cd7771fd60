"""The catalogue of gradient estimators: one row each, and the only list of their names.

TensorBoard, plots, tables, the command line and the documentation take names, labels and colours
from here. A new estimator is a row, and a part of :class:`Signals
<pgtoolkit.estimators.signals.Signals>` if it needs a number that is not there yet. This module does
not import torch, so that ``pgtoolkit list`` answers at once.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple, final, get_args

if TYPE_CHECKING:
    from torch import Tensor

    from pgtoolkit.distributions.base import Distribution
    from pgtoolkit.estimators.signals import Signals

EstimatorName = Literal["score_function", "pathwise", "mixed", "critic"]
PathwiseEstimator = Literal["pathwise", "mixed"]
"""Estimators that an agent can follow by differentiating through its environment."""
PathwiseChoice = Literal["auto", "pathwise", "mixed"]
"""What such an agent can be told to follow; ``auto`` is one of the others
(:func:`pgtoolkit.estimators.cross_fitting.followed_estimator`)."""
StudyEstimator = EstimatorName
"""Estimators that `pgtoolkit variance` measures, where the policy, its environment and its critic
allow it."""


@final
class Estimator(NamedTuple):
    """One way to estimate a policy gradient from a window."""

    label: str
    """Name in sentences, charts and legends."""
    colour: str
    """Colour in every chart, as ``#rrggbb``."""
    marker: str
    """Marker in plots, in matplotlib's notation: lines can be told apart without colour."""
    note: str
    """One line for ``pgtoolkit list``: what it is and what it needs."""
    needs: tuple[str, ...]
    """Parts of the signals that must be computed before the policy is evaluated. Where one cannot
    be, the estimator is not available on this window."""
    surrogate: "Callable[[Signals, Distribution], Tensor]"
    """The surrogate ``[N]`` at the policy's distribution; its gradient by the parameters is the
    estimate."""
    by_step: "Callable[[Signals], Tensor | None]"
    """The estimate of ``dJ/du`` ``[T, N, A]``; None where the policy has no such estimate."""
    beside: tuple[str, ...] = ()
    """Estimators that are measured beside it, on the same trajectories."""
    metrics: "Callable[[Signals], dict[str, Tensor]]" = lambda signals: {}
    """Metrics of its own, in every update."""
    matched: "Callable[[Signals], bool]" = lambda signals: False
    """Whether it estimates the gradient of the signals' objective, so that it can be compared with
    others that do."""
    against: Mapping[str, str] = MappingProxyType({})
    """Estimators that it is compared with where both are matched, to the group of the tags. The
    first of such a pair is the reference of the bias."""


CATALOGUE: dict[str, Estimator] = {
    "score_function": Estimator(
        label="score function",
        colour="#d6601e",
        marker="o",
        note="REINFORCE, log-derivative: needs nothing of the environment",
        needs=("weight",),
        surrogate=lambda signals, distribution: signals.score_function_surrogate(distribution),
        by_step=lambda signals: signals.score_action_gradient,
        beside=("pathwise", "critic"),
        matched=lambda signals: signals.has_matched_weight,
    ),
    "pathwise": Estimator(
        label="pathwise",
        colour="#1f69b4",
        marker="s",
        note="reparameterisation: needs a differentiable environment",
        needs=("action_gradient",),
        surrogate=lambda signals, distribution: signals.pathwise_surrogate(distribution),
        by_step=lambda signals: signals.action_gradient,
        beside=("score_function", "critic"),
        matched=lambda signals: signals.objective is not None,
        against={"score_function": "gradient"},
    ),
    "mixed": Estimator(
        label="mixed",
        colour="#009e73",
        marker="^",
        note="weighted mean of the score function and a path (through the environment, else a "
        "critic), of least variance",
        needs=("path_gradient", "weight"),
        surrogate=lambda signals, distribution: signals.mixed_surrogate(distribution),
        by_step=lambda signals: signals.mixed_action_gradient,
        beside=("pathwise", "score_function", "critic"),
        metrics=lambda signals: signals.mix_metrics,
    ),
    "critic": Estimator(
        label="critic",
        colour="#8a4fb0",
        marker="D",
        note="reparameterisation through a learned Q function: for agents that have one",
        needs=("critic_action_gradient",),
        surrogate=lambda signals, distribution: signals.critic_surrogate(distribution),
        by_step=lambda signals: signals.critic_action_gradient,
        beside=("pathwise", "score_function"),
        matched=lambda signals: signals.critic_is_matched,
        against={"pathwise": "gradient/critic", "score_function": "gradient/critic_to_score"},
    ),
}


STUDY_ESTIMATORS: tuple[StudyEstimator, ...] = get_args(StudyEstimator)
"""The estimators of ``pgtoolkit variance``, in the order in which they are shown."""


def rgb(colour: str) -> tuple[int, int, int]:
    """``#rrggbb`` as three numbers from 0 to 255."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
