"""Gradient estimators of discrete distributions by relaxation to a continuous variable.

A categorical sample is ``argmax(z)`` with ``z = logits + Gumbel noise``; a Bernoulli sample is
``z > 0`` with ``z = logits + logistic noise``. At a temperature ``tau``, ``softmax(z / tau)`` or
``sigmoid(z / tau)`` is a differentiable approximation, the concrete or Gumbel-softmax variable
(Maddison et al. 2017; Jang et al. 2017). Its expectation is *another* one, so its gradient is
biased: much at high temperatures, less at low ones, where the variance is large. REBAR (Tucker et
al. 2017) uses it only as a control variate of the score function and is unbiased.

``f`` must accept one-hot vectors ``[..., K]`` for a categorical distribution, zeros and ones
``[..., A]`` for a Bernoulli distribution, both as floating-point numbers, and all points between.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pgtoolkit.distributions.discrete import Bernoulli, Categorical
from pgtoolkit.errors import RequestError
from pgtoolkit.estimators.integrand import Function, evaluate, joint_log_prob, path_of
from pgtoolkit.second_derivatives import once_differentiable

Discrete = Categorical | Bernoulli


class Relaxation(NamedTuple):
    """A discrete sample and its continuous relaxations."""

    hard: Tensor
    """The discrete sample, one-hot or zeros and ones, without a graph."""
    soft: Tensor
    """The relaxed sample for the same noise, with its path to the logits."""
    conditional: Tensor
    """``soft`` as a function of ``hard`` and of the noise that remains given ``hard``: equal in
    value, with another path to the logits."""
    log_prob: Tensor
    """Log probability of ``hard``: ``[...]`` for a categorical, ``[..., A]`` for a Bernoulli
    distribution."""


def gumbel_softmax_surrogate(
    f: Function, distribution: Discrete, noise: Tensor, temperature: float = 0.5
) -> Tensor:
    """``f(soft)`` ``[num_samples, *batch]``: value and gradient of the relaxed expectation.

    **Biased** for ``E[f(hard)]``, in value and in gradient. The bias can exceed the gradient itself
    (in a case in ``docs/estimators.md`` the estimate is fourteen times too large).

    Args:
        f: differentiable also between the discrete values.
        distribution: with logits ``[*batch, K]``.
        noise: ``[num_samples, *batch, K]``, from the distribution's ``draw_noise``.
        temperature: ``tau``, above 0.

    Raises:
        RequestError: the temperature is not above 0.
    """
    return path_of(f, relax(distribution, noise, temperature).soft)


def straight_through_surrogate(
    f: Function, distribution: Discrete, noise: Tensor, temperature: float = 0.5
) -> Tensor:
    """``f(hard)`` in the forward pass; its gradient is passed on to ``soft`` in the backward pass.

    **Biased** (Bengio et al. 2013; Jang et al. 2017): the value is right, but the gradient is not,
    at any temperature. The arguments are those of :func:`gumbel_softmax_surrogate`.

    Raises:
        RequestError: the temperature is not above 0.
    """
    relaxed = relax(distribution, noise, temperature)
    return path_of(f, relaxed.hard + (relaxed.soft - relaxed.soft.detach()))


def rebar_surrogate(
    f: Function,
    distribution: Discrete,
    noise: Tensor,
    temperature: float = 0.5,
    scale: float | Tensor = 1.0,
) -> Tensor:
    """REBAR: the score function with the relaxation as a control variate; unbiased.

    *Estimates* ``d/dtheta E[f(hard)]``. *With* ``(f(hard) - c f(cond)) dlog p(hard)/dtheta + c
    df(soft)/dtheta - c df(cond)/dtheta``, where ``cond`` is distributed as ``soft`` given ``hard``,
    so the terms with ``c`` have mean zero for any ``c``. *Requires* an ``f`` that is continuous and
    differentiable between the discrete values. Source: Tucker et al. 2017, eq. 7.

    Args:
        f: evaluated three times.
        distribution: with logits ``[*batch, K]``.
        noise: ``[num_samples, *batch, K]``, from the distribution's ``draw_noise``.
        temperature: above 0; the estimate is unbiased for any.
        scale: ``c``, which must not depend on the same samples. 0 gives the score function without
            a baseline.

    Raises:
        RequestError: the temperature is not above 0.
    """
    relaxed = relax(distribution, noise, temperature)
    value = evaluate(f, relaxed.hard)
    soft, conditional = path_of(f, relaxed.soft), path_of(f, relaxed.conditional)
    weight = (value - scale * conditional).detach()
    score = weight * joint_log_prob(relaxed.log_prob, value)
    estimate = score + scale * (soft - conditional)
    return value + once_differentiable(
        estimate - estimate.detach(),
        "REBAR's gradient",
        "use method='score_function', which is right to any order",
    )


def relax(distribution: Discrete, noise: Tensor, temperature: float) -> Relaxation:
    """The discrete sample for this noise, with its relaxations.

    Args:
        distribution: with logits ``[*batch, K]``.
        noise: ``[num_samples, *batch, K]``.
        temperature: ``tau``.

    Raises:
        RequestError: the temperature is not above 0.
    """
    if not (math.isfinite(temperature) and temperature > 0):
        raise RequestError(f"the temperature must be above 0, not {temperature}")
    if isinstance(distribution, Categorical):
        return _relax_categorical(distribution.logits, noise, temperature)
    return _relax_bernoulli(distribution.logits, noise, temperature)


def _relax_categorical(logits: Tensor, noise: Tensor, temperature: float) -> Relaxation:
    """:func:`relax` for a categorical distribution.

    Let ``z_i = log p_i + g_i`` with Gumbel noise ``g_i``, and ``z_k`` the largest. The variables
    ``v_k = exp(-exp(-z_k))`` and ``v_i = exp(-p_i (exp(-z_i) - exp(-z_k)))`` for ``i != k`` are
    uniform and independent of ``k``. Solved for ``z``, these equations give ``z`` given ``k``.
    """
    log_p = torch.log_softmax(logits, -1)
    z = log_p + noise
    index = z.argmax(-1, keepdim=True)
    hard = torch.zeros_like(z).scatter(-1, index, 1.0)
    with torch.no_grad():
        top = torch.exp(-z.gather(-1, index))  # -log v_k
        # Clamped above 0, where rounding would make the logarithm infinite.
        tiny = torch.finfo(z.dtype).tiny
        rest = (torch.exp(-noise) - log_p.exp() * top).clamp_min(tiny)  # -log v_i
    others = log_p - torch.log(rest + log_p.exp() * top)
    conditional = torch.where(hard > 0, -torch.log(top.clamp_min(tiny)), others)
    return Relaxation(
        hard,
        torch.softmax(z / temperature, -1),
        torch.softmax(conditional / temperature, -1),
        log_p.expand_as(z).gather(-1, index).squeeze(-1),
    )


def _relax_bernoulli(logits: Tensor, noise: Tensor, temperature: float) -> Relaxation:
    """:func:`relax` for a Bernoulli distribution.

    The noise is ``logit(u)`` with ``u`` uniform, and the sample is 1 if ``u > 1 - p``. The variable
    ``v``, which is ``(u - (1 - p)) / p`` if the sample is 1 and ``u / (1 - p)`` if it is 0, is
    uniform and independent of the sample. Logarithms of ``u`` and ``1 - u`` are used throughout,
    because these do not cancel near 0 and 1.
    """
    z = logits + noise
    hard = (z > 0).to(z)
    log_p_one, log_p_zero = F.logsigmoid(logits), F.logsigmoid(-logits)
    with torch.no_grad():
        # The share of [1 - p, 1] that is above u if the sample is 1, and else the share of
        # [0, 1 - p] that is below u.
        log_share = torch.where(
            hard > 0, F.logsigmoid(-noise) - log_p_one, F.logsigmoid(noise) - log_p_zero
        )
    log_tail = log_share + torch.where(hard > 0, log_p_one, log_p_zero)
    rest = torch.log(-torch.expm1(log_tail))
    conditional = logits + torch.where(hard > 0, rest - log_tail, log_tail - rest)
    return Relaxation(
        hard,
        torch.sigmoid(z / temperature),
        torch.sigmoid(conditional / temperature),
        torch.where(hard > 0, log_p_one, log_p_zero),
    )
