"""Gradients of any expectation, ``d/dtheta E_{x ~ p_theta}[f(x, theta)]``, by seven methods.

:func:`expectation` returns a surrogate ``[num_samples, *batch]``, unreduced: its value is ``f`` at
each sample, and its gradient is that sample's estimate. An optimiser increases its mean, and
:class:`GradientStatistics <pgtoolkit.diagnostics.statistics.GradientStatistics>` measures the
variance of the samples' gradients.

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

If the distribution does not depend on theta, every unbiased method that accepts the distribution
gives ``E[df/dtheta]``. ``docs/estimators.md`` has a section on each method.
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

RELAXATIONS = {
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
            of the batch's axes if it couples the others. For a Gaussian of ``A`` dimensions the
            event is ``[A]``. ``f`` may depend on parameters itself. For the last three methods it
            must accept one-hot vectors ``[..., K]`` (Bernoulli: zeros and ones ``[..., A]``) and
            points between them.
        distribution: one of this package's, or of ``torch.distributions``.
        method: see the module's table.
        num_samples: number of samples to draw with ``generator``.
        generator: the source of all randomness; the global random state is neither used nor
            changed.
        noise: ``[num_samples, *batch, ...]`` the standard noise, in place of the two arguments
            above, for this package's distributions: quadrature nodes, antithetic pairs, common
            random numbers. Measure-valued derivatives still need ``generator`` for their other
            variables.
        baseline: subtracted from ``f`` in ``score_function`` and ``mixed``; other methods ignore
            it. A constant, a tensor that broadcasts to ``[num_samples, *batch]`` and does not
            depend on the sample (a learned value, an optimal constant), or ``"leave_one_out"``, the
            mean of the other samples.
        mix: the weight on pathwise in ``mixed``: a number, or ``[num_samples, *batch]`` from
            :func:`cross_fitted_weight <pgtoolkit.estimators.mixing.cross_fitted_weight>`. The
            difference of the two estimates is then a control variate (Stein), which has mean zero
            only where both are unbiased.
        temperature: the temperature of the relaxation in the last three methods.

    Raises:
        RequestError: the method is unknown; the method needs a path from parameters to samples and
            there is none; or neither noise nor a generator is given.
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
        # A copy, because f may change its argument in place.
        score = score_function_term(evaluate(f, x.detach().clone()), log_prob, baseline)
        return (1 - mix) * score + mix * path_of(f, x)
    if method == "measure_valued":
        return _measure_valued(f, samples, generator)
    return RELAXATIONS[method](f, samples.discrete(), samples.noise(), temperature)


def _measure_valued(f: Function, samples: Samples, generator: torch.Generator | None) -> Tensor:
    """The surrogate by measure-valued derivatives, whose further noise is drawn here."""
    if generator is None:
        raise RequestError(
            "measure_valued draws more than the samples' noise: give a generator too, or call "
            "pgtoolkit.estimators.measure_valued.measure_valued_surrogate with all of its noise"
        )
    noise = MeasureValuedNoise.draw(samples.noise(), generator)
    return measure_valued_surrogate(f, samples.gaussian(), noise)


def score_function_term(value: Tensor, log_prob: Tensor, baseline: Baseline = 0.0) -> Tensor:
    """The score function's surrogate ``value * box + baseline * (1 - box)`` for each sample.

    ``box = exp(log p - stop_gradient(log p))`` is 1 and has the derivative ``d box = box d log p``.
    So the surrogate's value is ``value`` and its gradient ``(value - baseline) d log p + d value``.
    Derivatives of any order are unbiased too (DiCE, Foerster et al. 2018; its baseline Mao et al.
    2019).

    Args:
        value: ``f`` at the samples ``[num_samples, *batch]``. The samples must not carry a graph;
            ``value`` may carry that of f's own parameters.
        log_prob: log density of the samples ``[num_samples, *batch]``. Further axes are summed,
            because ``f`` couples them.
        baseline: subtracted from ``value``, as in :func:`expectation`; detached here.

    Returns:
        ``[num_samples, *batch]``.
    """
    log_prob = joint_log_prob(log_prob, value)
    box = torch.exp(log_prob - log_prob.detach())
    return value * box + baseline_value(baseline, value.detach()) * (1 - box)
