"""Relaxations of discrete distributions: between a choice and its logits there is a smooth path.

A choice is ``argmax(z)``, ``z = logits + Gumbel noise``; a switch is ``z > 0``, ``z = logits +
logistic noise``. At a temperature ``tau``, ``softmax(z / tau)`` or ``sigmoid(z / tau)`` is a smooth
stand-in, the concrete or Gumbel-softmax variable (Maddison et al. 2017; Jang et al. 2017). Its
gradient is that of *another* expectation, and so biased for the choice's: at high temperatures
much, at low ones less and with a large variance. REBAR (Tucker et al. 2017) uses it as a control
variate of the score function only, and stays unbiased.

``f`` takes one-hot vectors ``[..., K]`` of a categorical distribution, zeros and ones ``[..., A]``
of a Bernoulli one, as floating-point numbers, and all points between.
"""

import math
from collections.abc import Callable
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
    """A discrete sample and its smooth stand-ins."""

    hard: Tensor
    """One-hot, or zeros and ones; without a graph."""
    soft: Tensor
    """The same sample before it was rounded, with its path."""
    conditional: Tensor
    """``soft`` again, as a function of the noise that is left once ``hard`` is given: equal in
    value, with another path."""
    log_prob: Tensor
    """Of ``hard``: ``[..., ]`` of a categorical, ``[..., A]`` of a Bernoulli distribution."""


def gumbel_softmax_surrogate(
    f: Function, distribution: Discrete, noise: Tensor, temperature: float = 0.5
) -> Tensor:
    """``f(soft)`` ``[num_samples, *batch]``: value and gradient of the relaxed expectation.

    **Biased** for ``E[f(hard)]``, in value and gradient, by an amount that can exceed the gradient
    itself (``docs/estimators.md`` has a case where it is fourteen times too large).

    Args:
        f: differentiable between the corners.
        distribution: its logits ``[*batch, K]``.
        noise: ``[num_samples, *batch, K]``, of the distribution's own kind.
        temperature: above 0.

    Raises:
        RequestError: the temperature is not above 0.
    """
    return path_of(f, relax(distribution, noise, temperature).soft)


def straight_through_surrogate(
    f: Function, distribution: Discrete, noise: Tensor, temperature: float = 0.5
) -> Tensor:
    """``f(hard)`` forwards, the gradient of ``f`` there into the path of ``soft`` backwards.

    **Biased** (Bengio et al. 2013; Jang et al. 2017): the value is right, the gradient is not, and
    no temperature makes it so.

    Args: as :func:`gumbel_softmax_surrogate`.

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
    """The unbiased estimator with the relaxation as a control variate (Tucker et al. 2017, eq. 7).

    *Estimates* ``d/dtheta E[f(hard)]``. *With* ``(f(hard) - c f(cond)) dlog p(hard)/dtheta + c
    df(soft)/dtheta - c df(cond)/dtheta``, where ``cond`` is distributed as ``soft`` given ``hard``,
    so the last three terms have mean zero for any ``c``. *Requires* an ``f`` that is
    differentiable, and continuous, between the corners.

    Args:
        f: as :func:`gumbel_softmax_surrogate`; evaluated three times.
        distribution: as above.
        noise: as above.
        temperature: as above; any is unbiased.
        scale: ``c``; 0 is the score function without a baseline. Not from the same samples.

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
    """A hard sample, its soft version, and that version given the hard sample.

    Raises:
        RequestError: the temperature is not above 0.
    """
    if not (math.isfinite(temperature) and temperature > 0):
        raise RequestError(f"the temperature must be above 0, not {temperature}")
    kind: Callable[[Tensor, Tensor, float], Relaxation]
    kind = _choice if isinstance(distribution, Categorical) else _switch
    return kind(distribution.logits, noise, temperature)


def _choice(logits: Tensor, noise: Tensor, temperature: float) -> Relaxation:
    """With ``z_i = log p_i + g_i`` and the largest ``z_k``.

    ``v_k = exp(-exp(-z_k))`` and, of the others, ``v_i = exp(-p_i (exp(-z_i) - exp(-z_k)))`` are
    uniform and independent of ``k``; read the other way round they give ``z`` given ``k``.
    """
    log_p = torch.log_softmax(logits, -1)
    z = log_p + noise
    index = z.argmax(-1, keepdim=True)
    hard = torch.zeros_like(z).scatter(-1, index, 1.0)
    with torch.no_grad():
        top = torch.exp(-z.gather(-1, index))  # -log v_k
        # Kept above 0, where rounding would make a logarithm infinite.
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


def _switch(logits: Tensor, noise: Tensor, temperature: float) -> Relaxation:
    """With the noise written ``logit(u)``, ``u`` uniform: on if ``u > 1 - p``.

    ``v = (u - (1 - p)) / p`` if on, ``u / (1 - p)`` if off, is uniform and independent of the
    switch. All by logarithms of ``u`` and ``1 - u``, which do not cancel near 0 and 1.
    """
    z = logits + noise
    hard = (z > 0).to(z)
    log_on, log_off = F.logsigmoid(logits), F.logsigmoid(-logits)
    with torch.no_grad():
        # On: the share of [1 - p, 1] that lies above u. Off: the share of [0, 1 - p] below it.
        log_share = torch.where(
            hard > 0, F.logsigmoid(-noise) - log_on, F.logsigmoid(noise) - log_off
        )
    log_tail = log_share + torch.where(hard > 0, log_on, log_off)
    rest = torch.log(-torch.expm1(log_tail))
    conditional = logits + torch.where(hard > 0, rest - log_tail, log_tail - rest)
    return Relaxation(
        hard,
        torch.sigmoid(z / temperature),
        torch.sigmoid(conditional / temperature),
        torch.where(hard > 0, log_on, log_off),
    )
