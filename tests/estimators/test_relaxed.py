"""Relaxations: the published bias of each, and REBAR without any."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch import distributions as td

from pgtoolkit.distributions.discrete import Bernoulli, Categorical
from pgtoolkit.errors import RequestError
from pgtoolkit.estimators.expectation import Method, expectation
from pgtoolkit.estimators.integrand import Function
from pgtoolkit.estimators.relaxed import rebar_surrogate, relax

F64 = torch.float64
TAUS = (2.0, 1.0, 0.5, 0.1)
# f(z) = (z - .49)^2 of one switch.
GUMBEL_SOFTMAX = {
    0.0: (0.00214602, 0.00333333, 0.00429204, 0.00495978),
    1.0: (0.01939287, 0.03264745, 0.03342605, 0.01280830),
}
STRAIGHT_THROUGH = (0.04517104, 0.05616689, 0.04890722, 0.01629869)
REBAR_AND_SCORE: tuple[Method, Method] = ("rebar", "score_function")
TRUE = {0.0: 0.005, 1.0: 0.00393224}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def square(z: Tensor) -> Tensor:
    return (z[..., 0].double() - 0.49) ** 2


def logistic_nodes(split: float) -> tuple[Tensor, Tensor]:
    """Panels of Gauss-Legendre nodes on both sides of the noise at which the switch turns."""
    x, w = (torch.from_numpy(t) for t in np.polynomial.legendre.leggauss(12))
    edges = torch.cat(
        [torch.linspace(-45, split, 300, dtype=F64), torch.linspace(split, 45, 300, dtype=F64)[1:]]
    )
    half = ((edges[1:] - edges[:-1]) / 2).unsqueeze(1)
    noise = (edges[:-1].unsqueeze(1) + half + half * x).flatten()
    density = torch.sigmoid(noise) * torch.sigmoid(-noise)
    return noise.unsqueeze(1), (half * w).flatten() * density


def moments(
    theta: float, method: Method, temperature: float, f: Function = square
) -> tuple[float, float, float]:
    """Value, gradient and variance by quadrature over the switch's noise."""
    noise, weight = logistic_nodes(-theta)
    logits = torch.full_like(noise, theta).requires_grad_()
    surrogate = expectation(f, Bernoulli(logits), method, noise=noise, temperature=temperature)
    (found,) = torch.autograd.grad(surrogate.sum(), logits)
    mean = float(weight @ found[:, 0])
    variance = float(weight @ (found[:, 0] - mean).square())
    return float(weight @ surrogate.detach()), mean, variance


@pytest.mark.parametrize("theta", [0.0, 1.0])
def test_the_bias_of_gumbel_softmax_is_the_published_one(theta: float) -> None:
    for tau, expected in zip(TAUS, GUMBEL_SOFTMAX[theta], strict=True):
        assert moments(theta, "gumbel_softmax", tau)[1] == pytest.approx(expected, abs=6e-9)


def test_the_variance_of_gumbel_softmax_grows_as_it_gets_cold() -> None:
    """The published .00086, .0038, .0112, .0656 at theta = 1."""
    for tau, expected in zip(TAUS, (0.00086, 0.0038, 0.0112, 0.0656), strict=True):
        assert moments(1.0, "gumbel_softmax", tau)[2] == pytest.approx(expected, rel=0.02)


def test_the_bias_of_straight_through_is_the_published_one() -> None:
    """Up to fourteen times the true gradient; its value is right."""
    p = 1 / (1 + math.exp(-1.0))
    for tau, expected in zip(TAUS, STRAIGHT_THROUGH, strict=True):
        value, gradient, _ = moments(1.0, "straight_through", tau)
        assert gradient == pytest.approx(expected, abs=6e-9)
        assert value == pytest.approx(p * 0.51**2 + (1 - p) * 0.49**2, rel=1e-9)
    assert max(STRAIGHT_THROUGH) / TRUE[1.0] > 14


def test_the_score_function_of_a_switch() -> None:
    """Unbiased, variance .01184781 at theta = 1."""
    for theta, true in TRUE.items():
        assert moments(theta, "score_function", 1.0)[1] == pytest.approx(true, abs=6e-9)
    assert moments(1.0, "score_function", 1.0)[2] == pytest.approx(0.01184781, abs=6e-9)


@pytest.mark.parametrize("theta", [0.0, 1.0, -2.3])
@pytest.mark.parametrize("tau", TAUS)
def test_rebar_of_a_switch_is_unbiased_at_every_temperature(theta: float, tau: float) -> None:
    """Quadrature gives the exact gradient to 1e-8, and the value of the hard sample."""
    p = 1 / (1 + math.exp(-theta))
    value, gradient, _ = moments(theta, "rebar", tau)
    assert gradient == pytest.approx(p * (1 - p) * (0.51**2 - 0.49**2), abs=1e-8)
    assert value == pytest.approx(p * 0.51**2 + (1 - p) * 0.49**2, rel=1e-8)


def test_rebar_has_less_variance_than_the_score_function_where_f_is_far_from_zero() -> None:
    """A constant in f cancels in REBAR. Where f is centred by luck, REBAR may have more."""
    theta, tau = 1.0, 0.5

    def shifted(z: Tensor) -> Tensor:
        return square(z) + 1

    rebar, score = (moments(theta, method, tau, shifted)[2] for method in REBAR_AND_SCORE)
    assert rebar < 0.1 * score
    assert rebar == pytest.approx(moments(theta, "rebar", tau)[2], rel=1e-6)
    assert rebar > moments(theta, "score_function", tau)[2]


def test_rebar_of_a_choice_is_unbiased_and_gumbel_softmax_is_not() -> None:
    """Four choices, f = r . z + (z . z)^2, 400000 samples: |z| < 4.5; above 20 for the others."""
    theta = torch.tensor([0.5, -0.2, 0.1, 0.0], dtype=F64)
    r = torch.tensor([1.0, 2.0, -1.0, 0.5], dtype=F64)
    p = theta.softmax(0)
    exact = p * (r - p @ r)  # (z . z)^2 is 1 at every corner

    def z_scores(method: Method) -> Tensor:
        logits = theta.expand(400_000, 4).clone().requires_grad_()
        surrogate = expectation(
            lambda z: z @ r + z.square().sum(-1).square(),
            Categorical(logits),
            method,
            num_samples=1,
            generator=seeded(5),
        )
        (found,) = torch.autograd.grad(surrogate.sum(), logits)
        return (found.mean(0) - exact) / (found.std(0) / math.sqrt(len(found)))

    assert bool((z_scores("rebar").abs() < 4.5).all())
    assert bool((z_scores("gumbel_softmax").abs() > 20).any())
    assert bool((z_scores("straight_through").abs() > 20).any())


def test_rebar_without_its_control_variate_is_the_score_function() -> None:
    logits = torch.randn(7, 3, generator=seeded(), dtype=F64, requires_grad=True)
    distribution = Categorical(logits)
    noise = distribution.draw_noise(seeded(1), (5,))
    r = torch.tensor([1.0, -2.0, 0.5], dtype=F64)
    one = rebar_surrogate(lambda z: z @ r, distribution, noise, scale=0.0)
    two = expectation(lambda a: r[a], distribution, noise=noise)
    assert torch.equal(one.detach(), two.detach())
    gradients = [torch.autograd.grad(s.sum(), logits)[0] for s in (one, two)]
    assert torch.allclose(gradients[0], gradients[1], atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_the_conditional_sample_is_the_sample_with_another_path(dtype: torch.dtype) -> None:
    """Equal in value; derivatives differ; all finite, also for choices that are all but certain."""
    for scale in (1.0, 30.0):
        logits = scale * torch.randn(2000, 4, generator=seeded(), dtype=dtype)
        for kind in (Categorical, Bernoulli):
            leaf = logits.clone().requires_grad_()
            distribution = kind(leaf)
            relaxed = relax(distribution, distribution.draw_noise(seeded(1), ()), 0.7)
            tolerance = 1e-9 if dtype == F64 else 1e-3
            assert torch.allclose(relaxed.conditional, relaxed.soft, atol=tolerance)
            for part in relaxed[1:]:
                (gradient,) = torch.autograd.grad(part.square().sum(), leaf, retain_graph=True)
                assert bool(torch.isfinite(gradient).all())


def test_torchs_discrete_distributions_work_too() -> None:
    kinds: list[Callable[..., td.Distribution]]
    kinds = [td.Categorical, td.OneHotCategorical, td.Bernoulli]
    methods: list[Method] = ["rebar", "gumbel_softmax", "straight_through"]
    for kind in kinds:
        for method in methods:
            logits = torch.tensor([0.3, -0.3], requires_grad=True)
            distribution = kind(logits=logits)
            surrogate = expectation(
                lambda z: z[..., 0].square(),
                distribution,
                method,
                num_samples=6,
                generator=seeded(),
            )
            assert surrogate.shape == (6,)
            (gradient,) = torch.autograd.grad(surrogate.sum(), logits)
            assert bool(torch.isfinite(gradient).all())


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_temperatures_that_mean_nothing_are_refused(temperature: float) -> None:
    with pytest.raises(RequestError, match="temperature must be above 0"):
        relax(Categorical(torch.zeros(3)), torch.zeros(3), temperature)
