"""The gradients of the very surrogates that an agent can climb, on minibatches of its window."""

import functools
import logging
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from pgtoolkit.agent import Metrics
from pgtoolkit.diagnostics.monitor import GradientMonitor, Pair
from pgtoolkit.diagnostics.outer_products import concatenated
from pgtoolkit.diagnostics.per_trajectory import SampleGradients
from pgtoolkit.errors import NonFiniteError
from pgtoolkit.learners.critic_measurement import GROUP, most_states
from pgtoolkit.learners.minibatches import Batch
from pgtoolkit.policies.policy import Policy

LOG = logging.getLogger("pgtoolkit")

Surrogates = Callable[[Batch, Tensor], Mapping[str, Tensor]]
"""Maps a minibatch ``[B, ...]`` and its noise to the surrogates ``[B]`` by estimator's name."""
NEED_INDEPENDENCE = ("_low", "_high", "_z")
"""Endings of the tags that are right for independent samples only: intervals and z."""


def measure_surrogates(
    policy: Policy,
    batch: Batch,
    rows: Tensor,
    noise: Tensor,
    surrogates: Surrogates[Batch],
    *,
    monitor: GradientMonitor,
    followed: str,
) -> Metrics:
    """Variance, signal and SNR of the gradients by ``critic``, ``score_function`` and others.

    A sample is one step of the window: its gradient is that of its entry of each surrogate. The
    surrogates are computed minibatch by minibatch, as the agent computes them, because a mix takes
    its weights from the minibatch.

    The score function is that of the returns of the actions that were taken, and the critic's
    gradient is that of the Q function. So the pair, ``gradient/critic_on_states``, is no check of
    the measurement alone, as with :func:`measure_critic
    <pgtoolkit.learners.critic_measurement.measure_critic>`: its ``bias`` is the squared bias of the
    critic's gradient against the returns, where the critic has not been fitted to these.

    *The steps of one trajectory are not independent*: their returns share rewards. The variance of
    one sample is right all the same, and so are norm and cosine. The signal and the bias are sums
    over pairs of samples, and pairs within a trajectory may add to them. Intervals and z would be
    too narrow and too large, so there are none, but for the critic alone: its samples are
    independent given the window's states, and its intervals are for the mean over these.

    Args:
        policy: its gradients are measured, and not changed.
        batch: a named tuple of tensors ``[M, ...]``, the steps of a window.
        rows: ``[K, B]``, indices of different steps in random order. Of many, or of large
            minibatches, the first 256 to 1024 steps are measured (:func:`most_states
            <pgtoolkit.learners.critic_measurement.most_states>`).
        noise: ``[K, B, ...]``, of an action at each step.
        surrogates: computes ``critic``, ``score_function``, and any others by name.
        monitor: decides whether this update is measured.
        followed: the estimator that the agent climbs.

    Returns:
        TensorBoard tag to scalar; empty where no measurement is due. Also where a surrogate is not
        finite, which a warning says: a measurement does not end a run that could go on without it.
    """
    width = min(rows.shape[1], most_states(policy))
    count = max(most_states(policy) // width, 1)
    rows, noise = rows[:count, :width], noise[:count, :width]
    if not monitor.measures(rows.numel()):
        return {}
    with monitor.diagnosing():
        try:
            found = _gradients(policy, batch, rows, noise, surrogates, monitor)
        except NonFiniteError as error:
            LOG.warning("the gradients of an update were not measured (%s)", error)
            return {}
        if not found:
            return {}
        pair = Pair(found["score_function"], found["critic"], GROUP)
        metrics = trusted(monitor.report(found, [pair]))
        return metrics | {f"gradient/{followed}/followed": torch.ones(())}


def _gradients(
    policy: Policy,
    batch: Batch,
    rows: Tensor,
    noise: Tensor,
    surrogates: Surrogates[Batch],
    monitor: GradientMonitor,
) -> dict[str, SampleGradients]:
    """The gradients of all minibatches; empty if no gradient belongs to one sample."""
    parts = []
    for index, eps in zip(rows, noise, strict=True):
        mini = type(batch)(*(x.index_select(0, index) for x in batch))
        parts.append(monitor.measure_all(policy, functools.partial(surrogates, mini, eps)))
        if not parts[-1]:
            return {}
    return joined(parts)


def joined(parts: Sequence[dict[str, SampleGradients]]) -> dict[str, SampleGradients]:
    """The gradients of all minibatches' samples, by estimator and parameter ``[K B, *shape]``.

    Args:
        parts: of each minibatch; they are emptied, so that memory is taken once.
    """
    found: dict[str, SampleGradients] = {}
    for name in list(parts[0]):
        one = [part.pop(name) for part in parts]
        found[name] = {key: concatenated([part[key] for part in one]) for key in one[0]}
    return found


def trusted(metrics: Mapping[str, Tensor]) -> Metrics:
    """The metrics without intervals and z of what is no critic's gradient."""

    def holds(tag: str) -> bool:
        return tag.startswith("gradient/critic/") or not tag.endswith(NEED_INDEPENDENCE)

    return {tag: x for tag, x in metrics.items() if holds(tag)}
