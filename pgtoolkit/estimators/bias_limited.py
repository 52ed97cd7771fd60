"""AoBG, the alpha-order batched gradient (Suh et al. 2022): a mix with a bound on its bias.

It is here for comparison with :mod:`pgtoolkit.estimators.mixing`. Its weight on pathwise is the
inverse-variance weight, reduced if necessary so that the weight times the difference of the two
means is at most the bias limit ``gamma`` minus a confidence radius. Unlike a significance test, it
needs a ``gamma`` and a bound on the gradients, which depend on the task.
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
    """Bound on the error of a mean of ``N`` gradients that fails with at most a given probability.

    ``sqrt(2 V log((d + 1) / delta) / N) + (2 L / 3N) log((d + 1) / delta)``: the matrix Bernstein
    inequality (Tropp 2015) for a vector, solved for the distance of the mean from its expectation.
    ``delta`` is the probability that the distance is larger, so 0.05 means 95 % confidence. The
    published code passes 0.95, and its radius is a third of this.

    Args:
        variance: ``V``, the variance of one trajectory's gradient, any shape.
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
    variance_term = (2 * variance * log_term / num_trajectories).sqrt()
    return variance_term + 2 * bound * log_term / (3 * num_trajectories)


def bias_limited_weight(
    score_variance: Tensor,
    pathwise_variance: Tensor,
    distance: Tensor,
    radius: Tensor,
    bias_limit: float,
) -> Tensor:
    """The weight on pathwise that limits the bias of the mix to ``gamma``.

    It is 0 if the radius exceeds ``gamma``, and otherwise the inverse-variance weight, but at most
    ``(gamma - radius) / |g_pathwise - g_score|`` (Suh et al. 2022).

    Args:
        score_variance: variance of one trajectory's gradient by the score function, any shape; so
            are the next three.
        pathwise_variance: variance of one trajectory's gradient by pathwise.
        distance: norm of the difference of the two mean gradients.
        radius: confidence radius of the score function's mean, by :func:`bernstein_radius`.
        bias_limit: ``gamma``.
    """
    allowed = (bias_limit - radius).clamp_min(0)
    limit = torch.where(distance > 0, allowed / distance, (allowed > 0).to(allowed))
    return torch.minimum(inverse_variance_weight(score_variance, pathwise_variance), limit)


def aobg_weight(
    score: Mapping[str, Tensor],
    pathwise: Mapping[str, Tensor],
    *,
    bias_limit: float,
    bound: float,
    failure_probability: float = 0.05,
) -> Tensor:
    """AoBG's weight on pathwise from per-trajectory gradients, a scalar.

    The weight assumes that the two estimates come from independent trajectories, as in the paper,
    also where they come from the same ones. It is not cross-fitted, so a mix with it is biased by
    ``O(1/N)`` at best.

    Args:
        score: gradients by the score function ``{name: [N, *shape]}``.
        pathwise: gradients by pathwise, of the same names and shapes.
        bias_limit: ``gamma``.
        bound: ``L``, the largest distance of one of the score function's gradients from their mean.
        failure_probability: ``delta``, the probability that the bias exceeds its limit.

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
    """Gradients ``[..., P]``, those longer than ``max_norm`` rescaled to that norm.

    The published code divides them by ``max_norm`` instead, so that a gradient of norm 1000 clipped
    at 10 has norm 100.
    """
    norm = gradient.norm(dim=-1, keepdim=True)
    return torch.where(norm > max_norm, gradient * (max_norm / norm), gradient)
