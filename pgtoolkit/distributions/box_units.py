"""Densities of actions in units of their box, in which an entropy has the same size everywhere."""

import torch
from torch import Tensor

from pgtoolkit.distributions.base import Distribution, nonzero
from pgtoolkit.distributions.clipped import ClippedGaussian


def log_prob_in_box(distribution: Distribution, pre_action: Tensor) -> Tensor:
    """``log p`` ``[...]`` of the action ``(a - centre) / scale``, which is in [-1, 1].

    It is ``log p(a) + sum_i log scale_i`` with half of the distance of the bounds as the scale, and
    1 where an entry has none. With it an entropy, and a target for it, do not depend on the unit in
    which an environment measures its actions. A :class:`ClippedGaussian
    <pgtoolkit.distributions.clipped.ClippedGaussian>` has such a density already.

    Args:
        distribution: over continuous actions.
        pre_action: ``[..., A]``.
    """
    log_prob, support = distribution.log_prob_of_pre_action(pre_action), distribution.support
    if support is None or isinstance(distribution, ClippedGaussian):
        return log_prob
    scale = nonzero(0.5 * (support.high - support.low))
    return log_prob + torch.where(scale.isfinite(), scale, 1.0).log().sum(-1)
