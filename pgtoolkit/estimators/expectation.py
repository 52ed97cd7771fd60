"""The gradient of any expectation, ``d/dtheta E_{x ~ p_theta}[f(x, theta)]``, in every way.

:func:`expectation` returns a surrogate ``[num_samples, *batch]``, unreduced. Its value is ``f`` at
each sample, its gradient that sample's estimate: the mean is what an optimiser climbs, the spread
is what :class:`GradientStatistics <pgtoolkit.diagnostics.statistics.GradientStatistics>` measures.

====================  =========================================================  ===========
method                needs                                                      unbiased
====================  =========================================================  ===========
``score_function``    a density that is differentiable in theta                  yes
``pathwise``          a reparameterised sample and a differentiable, continuous  yes
                      ``f``
``mixed``             both                                                       yes
``measure_valued``    a diagonal Gaussian; evaluates ``f`` four times a          yes
                      dimension
``rebar``             a discrete distribution, ``f`` differentiable between its  yes
                      values
``straight_through``  the same                                                   **no**
``gumbel_softmax``    the same; its value is biased too                          **no**
====================  =========================================================  ===========

Where the distribution does not depend on theta, the derivative passes under the integral, and every
unbiased method that takes the distribution gives ``E[df/dtheta]``. ``docs/estimators.md`` has a
section on each.
"""

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.distributions import Distribution as TorchDistribution

from pgtoolkit.distributions.base import Distribution
from pgtoolkit.errors import RequestError
from pgtoolkit.estimators import relaxed
from pgtoolkit.estimators.baselines import Baseline, baseline_value, require_baseline
from pgtoolkit.estimators.integrand import Function, evaluate, joint_log_prob, path_of
from pgtoolkit.estimators.measure_valued import MeasureValuedNoise, measure_valued_surrogate
from pgtoolkit.estimators.samples import Samples

Method = Literal[
    "score_function",
    "pathwise",
    "mixed",
    "measure_valued",
    "rebar",
    "straight_through",
    "gumbel_softmax",
]

METHODS: tuple[str, ...] = get_args(Method)

RELAXED = {
    "rebar": relaxed.rebar_surrogate,
    "straight_through": relaxed.straight_through_surrogate,
    "gumbel_softmax": relaxed.gumbel_softmax_surrogate,
}


def expectation(
    f: Function,
    distribution: Distribution | TorchDistribution,
    method: Method = "score_function",
    *,
    num_samples: int | None = None,
    generator: torch.Generator | None = None,
    noise: Tensor | None = None,
    baseline: Baseline = 0.0,
    mix: float | Tensor = 0.5,
    temperature: float = 0.5,
) -> Tensor:
    """A surrogate of ``E[f(x)]`` ``[num_samples, *batch]`` with the right value and gradient.

    Args:
        f: maps samples ``[num_samples, *batch, *event]`` to ``[num_samples, *batch]``, or to fewer
            of the batch's axes, if it couples the rest. For a Gaussian of ``A`` dimensions the
            event is ``[A]``. It may depend on parameters itself. For the last three methods it must
            take one-hot vectors ``[..., K]`` (Bernoulli: zeros and ones ``[..., A]``), and points
            between them.
        distribution: one of this package's, or of ``torch.distributions``.
        method: see the module's table.
        num_samples: how many samples to draw with ``generator``.
        generator: of all randomness; the global random state is neither used nor changed.
        noise: ``[num_samples, *batch, ...]`` the standard noise itself in place of the two, for
            this package's distributions: quadrature nodes, antithetic pairs, common random numbers.
            Measure-valued derivatives need ``generator`` for their other variables all the same.
        baseline: subtracted from ``f`` in the score function (other methods have none, and do not
            use it): a constant, a tensor that broadcasts
            to ``[num_samples, *batch]`` and does not depend on the sample (a learned value, an
            optimal constant), or ``"leave_one_out"``, the mean of the other samples.
        mix: weight on pathwise in the method ``mixed``; a number, or ``[num_samples, *batch]``
            from :func:`cross_fitted_weight <pgtoolkit.estimators.mixing.cross_fitted_weight>`. The
            pathwise estimate then is a control variate of the score function's (Stein), right only
            where both are unbiased.
        temperature: of the last three methods.

    Raises:
        RequestError: an unknown method; no path where one is asked for, with what to use instead;
            no noise and no generator.
        ValueError: ``f`` returns another shape.
    """
    if method not in METHODS:
        raise RequestError(f"there is no method {method!r}: choose from {', '.join(METHODS)}")
    require_baseline(baseline)
    samples = Samples(distribution, num_samples, generator, noise)
    if method == "score_function":
        x, log_prob = samples.with_log_prob()
        return score_function_term(evaluate(f, x), log_prob, baseline)
    if method == "pathwise":
        return path_of(f, samples.with_path())
    if method == "mixed":
        x, log_prob = samples.with_path_and_log_prob()
        # A copy, in case f changes its argument in place.
        score = score_function_term(evaluate(f, x.detach().clone()), log_prob, baseline)
        return (1 - mix) * score + mix * path_of(f, x)
    if method == "measure_valued":
        return _measure_valued(f, samples, generator)
    return RELAXED[method](f, samples.discrete(), samples.noise(), temperature)


def _measure_valued(f: Function, samples: Samples, generator: torch.Generator | None) -> Tensor:
    if generator is None:
        raise RequestError(
            "measure_valued draws more than the samples' noise: give a generator too, or call "
            "pgtoolkit.estimators.measure_valued.measure_valued_surrogate with all of its noise"
        )
    noise = MeasureValuedNoise.draw(samples.noise(), generator)
    return measure_valued_surrogate(f, samples.gaussian(), noise)


def score_function_term(value: Tensor, log_prob: Tensor, baseline: Baseline = 0.0) -> Tensor:
    """``value * box + baseline * (1 - box)`` ``[num_samples, *batch]``.

    With ``box = exp(log p - stop(log p))``, which is 1 and has the score's derivatives: ``d box =
    box d log p``. So the value is ``value``, the gradient ``(value - baseline) d log p + d value``,
    and derivatives of any order are unbiased too (DiCE, Foerster et al. 2018; its baseline Mao et
    al. 2019).

    Args:
        value: ``f`` at samples without a graph of their own; may carry that of f's parameters.
        log_prob: of the samples, ``[num_samples, *batch]``; further axes are summed, for ``f``
            couples them.
        baseline: as for :func:`expectation`; detached.
    """
    log_prob = joint_log_prob(log_prob, value)
    box = torch.exp(log_prob - log_prob.detach())
    return value * box + baseline_value(baseline, value.detach()) * (1 - box)
