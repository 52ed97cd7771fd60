"""AoBG, the alpha-order batched gradient (Suh et al. 2022): a mix with a bound on its bias.

A comparison for :mod:`pgtoolkit.estimators.mixing`. It takes the inverse-variance weight, and less
where the two means differ by more than ``gamma`` less a confidence radius allows: unlike a test,
it needs a ``gamma`` and a bound on the gradients, for each task.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from pgtoolkit.diagnostics.statistics import entry_variances, flatten_gradients
from pgtoolkit.errors import RequestError
from pgtoolkit.estimators.mixing import inverse_variance_weight


def bernstein_radius(
    variance: Tensor,
    *,
    num_trajectories: int,
    dimension: int,
    bound: float,
    failure_probability: float = 0.05,
) -> Tensor:
    """How far a mean of ``N`` gradients may lie from its expectation, with what confidence.

    ``sqrt(2 V log((d + 1) / delta) / N) + (2 L / 3N) log((d + 1) / delta)``, the matrix Bernstein
    inequality (Tropp 2015) for a vector, solved for the radius. ``delta`` is the probability that
    it does *not* hold, so 0.05 for 95 % confidence: the published code passes 0.95, and has a third
    of the radius.

    Args:
        variance: ``V``, of one trajectory's gradient, any shape.
        num_trajectories: ``N``.
        dimension: ``d``, the number of parameters.
        bound: ``L``, the largest distance of one trajectory's gradient from the mean.
        failure_probability: ``delta``.

    Raises:
        RequestError: the probability is not between 0 and 1.
    """
    if not 0 < failure_probability < 1:
        raise RequestError(
            f"the failure probability must be between 0 and 1, not {failure_probability}: 0.05 "
            "for a confidence of 95 %"
        )
    log_term = math.log((dimension + 1) / failure_probability)
    spread = (2 * variance * log_term / num_trajectories).sqrt()
    return spread + 2 * bound * log_term / (3 * num_trajectories)


def bias_limited_weight(
    score_variance: Tensor,
    pathwise_variance: Tensor,
    distance: Tensor,
    radius: Tensor,
    bias_limit: float,
) -> Tensor:
    """The weight on pathwise, so that the mix is biased by no more than ``gamma``.

    0 where the radius exceeds ``gamma``; else the inverse-variance weight, but at most
    ``(gamma - radius) / |g_pathwise - g_score|`` (Suh et al. 2022).

    Args:
        score_variance: any shape; so are the next three.
        pathwise_variance: of one trajectory, as the first.
        distance: norm of the difference of the two mean gradients.
        radius: of the score function's mean, by :func:`bernstein_radius`.
        bias_limit: ``gamma``.
    """
    room = (bias_limit - radius).clamp_min(0)
    limit = torch.where(distance > 0, room / distance, (room > 0).to(room))
    return torch.minimum(inverse_variance_weight(score_variance, pathwise_variance), limit)


def aobg_weight(
    score: Mapping[str, Tensor],
    pathwise: Mapping[str, Tensor],
    *,
    bias_limit: float,
    bound: float,
    failure_probability: float = 0.05,
) -> Tensor:
    """AoBG's weight on pathwise, one number, from per-trajectory gradients.

    The paper draws the two from independent trajectories, and weighs as if so; given matched ones
    it still does. It is not cross-fitted, so a mix with it is biased by ``O(1/N)`` at best.

    Args:
        score: ``{name: [N, *shape]}``.
        pathwise: the same names and shapes.
        bias_limit: ``gamma``.
        bound: ``L``, on the distance of one of the score function's gradients from their mean.
        failure_probability: ``delta``, of the bound on the bias.

    Raises:
        RequestError: the probability is not between 0 and 1.
    """
    by_score = flatten_gradients(score)
    by_path = flatten_gradients({name: pathwise[name] for name in score})
    variance = entry_variances(by_score).sum()
    radius = bernstein_radius(
        variance,
        num_trajectories=by_score.shape[0],
        dimension=by_score.shape[1],
        bound=bound,
        failure_probability=failure_probability,
    )
    distance = (by_path - by_score).mean(0).norm()
    return bias_limited_weight(
        variance, entry_variances(by_path).sum(), distance, radius, bias_limit
    )


def clip_norm(gradient: Tensor, max_norm: float) -> Tensor:
    """Rows ``[..., P]`` that are longer than ``max_norm``, rescaled *to* it.

    The published code divides them by it, so a gradient of norm 1000 clipped at 10 has norm 100.
    """
    norm = gradient.norm(dim=-1, keepdim=True)
    return torch.where(norm > max_norm, gradient * (max_norm / norm), gradient)
