"""Samples of an expectation: what torch's distributions and unusual functions must not break."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch import distributions as td

import pgtoolkit as pg
from pgtoolkit.errors import RequestError
from pgtoolkit.estimators.expectation import Method, expectation

F64 = torch.float64


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def copies(value: float, count: int = 40_000) -> Tensor:
    return torch.full((count,), value, dtype=F64, requires_grad=True)


def assert_unbiased(surrogate: Tensor, leaf: Tensor, exact: float) -> None:
    """One sample of each of many copies: within 4.5 standard errors."""
    (found,) = torch.autograd.grad(surrogate.sum(), leaf)
    error = float(found.std()) / math.sqrt(len(found))
    assert error > 0 and abs(float(found.mean()) - exact) < 4.5 * error


# Transforms ---------------------------------------------------------------------------------------

METHODS: list[Method] = ["score_function", "pathwise", "mixed"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("cache_size", [0, 1])
def test_a_transforms_own_parameters_get_their_gradient(method: Method, cache_size: int) -> None:
    """X = 0.3 + 2 eps: d/dscale E x^2 = 2 scale. A cached inverse would have no graph."""
    scale = copies(2.0)
    transform = td.AffineTransform(0.3, scale, cache_size=cache_size)
    distribution = td.TransformedDistribution(td.Normal(torch.zeros(1, dtype=F64), 1.0), transform)
    surrogate = expectation(lambda x: x**2, distribution, method, num_samples=1, generator=seeded())
    assert_unbiased(surrogate, scale, 4.0)


def test_our_chain_switches_off_caches_within_a_composition_too() -> None:
    scale = copies(2.0).unsqueeze(-1)
    parts = td.ComposeTransform([td.AffineTransform(0.3, scale, cache_size=1)])
    zero = torch.zeros(1, dtype=F64)
    chain = pg.Transformed(pg.DiagonalGaussian(zero, zero), (parts,))
    noise = torch.randn(40_000, 1, generator=seeded(), dtype=F64)
    surrogate = expectation(lambda x: x[..., 0] ** 2, chain, noise=noise)
    (found,) = torch.autograd.grad(surrogate.sum(), scale)
    error = float(found.std()) / math.sqrt(len(found))
    assert abs(float(found.mean()) - 4) < 4.5 * error


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_a_wide_gaussian_through_tanh_stays_finite(method: Method, dtype: torch.dtype) -> None:
    """N(2, 3^2) rounds to the bound 1 now and then, where the inverse is infinite.

    All three estimate one gradient; the score function's is compared with pathwise's.
    """
    mean = torch.tensor(2.0, dtype=dtype, requires_grad=True)

    def gradient(method: Method) -> tuple[float, float]:
        distribution = td.TransformedDistribution(td.Normal(mean, 3.0), [td.TanhTransform()])
        batches = []
        for seed in range(40):
            surrogate = expectation(
                lambda x: (x - 0.5) ** 2,
                distribution,
                method,
                num_samples=1000,
                generator=seeded(seed),
            )
            batches.append(torch.autograd.grad(surrogate.mean(), mean)[0])
        found = torch.stack(batches).double()
        return float(found.mean()), float(found.std()) / math.sqrt(40)

    (one, error), (other, other_error) = gradient(method), gradient("pathwise")
    assert math.isfinite(one)
    assert abs(one - other) < 4.5 * math.hypot(error, other_error) + 1e-12


def test_our_own_chain_through_tanh_stays_finite() -> None:
    mean = torch.full((2000, 1), 2.0, requires_grad=True)
    chain = pg.Transformed(
        pg.DiagonalGaussian(mean, torch.full((1,), 3.0).log()), (td.TanhTransform(),)
    )
    noise = torch.randn(2000, 1, generator=seeded())
    methods: list[Method] = ["score_function", "mixed"]
    for method in methods:
        surrogate = expectation(lambda x: x[..., 0] ** 2, chain, method, noise=noise)
        (found,) = torch.autograd.grad(surrogate.sum(), mean)
        assert bool(surrogate.isfinite().all()) and bool(found.isfinite().all())


def test_what_cannot_be_a_base_or_a_link_is_refused() -> None:
    """Otherwise its squashing would be ignored, and a density needs an inverse."""
    zero, one = torch.zeros(1), torch.ones(1)
    squashed: Any = pg.TanhGaussian(zero, zero, -one, one)
    with pytest.raises(RequestError, match="Squash last"):
        pg.Transformed(squashed, ())
    with pytest.raises(RequestError, match="Squash last"):
        pg.Squashed(squashed, -one, one)
    with pytest.raises(RequestError, match="bijective"):
        pg.Transformed(pg.DiagonalGaussian(zero, zero), (td.AbsTransform(),))


@pytest.mark.parametrize(
    "make",
    [
        lambda leaf: td.Uniform(leaf, 3.0),
        lambda leaf: td.Pareto(leaf, torch.tensor(3.0)),
        lambda leaf: pg.Uniform(leaf, torch.tensor([3.0])),
    ],
)
def test_a_support_that_moves_has_no_score_function(make: Callable[[Tensor], Any]) -> None:
    leaf = torch.tensor([1.0], requires_grad=True)
    with pytest.raises(RequestError, match=r"support of this .* moves"):
        expectation(lambda x: x[..., 0], make(leaf), num_samples=3, generator=seeded())


def test_a_fixed_distribution_without_a_path_needs_none() -> None:
    """Pathwise of a Poisson variable that does not depend on the parameter."""
    k = torch.tensor(2.0, requires_grad=True)
    surrogate = expectation(
        lambda x: k * x, td.Poisson(3.0), "pathwise", num_samples=5, generator=seeded()
    )
    (found,) = torch.autograd.grad(surrogate.sum(), k)
    assert float(found) == float(surrogate.detach().sum()) / 2


# What f returns, and does -------------------------------------------------------------------------

GAUSSIAN = pg.DiagonalGaussian(torch.tensor([0.5], requires_grad=True), torch.zeros(1))


@pytest.mark.parametrize("kind", [torch.bool, torch.int32, torch.float32, F64])
@pytest.mark.parametrize("baseline", [0.5, "leave_one_out"])
@pytest.mark.parametrize("method", ["score_function", "measure_valued"])
def test_counts_and_truth_values_are_numbers(
    kind: torch.dtype, baseline: Any, method: Method
) -> None:
    """A baseline of one half is neither 0 nor 1, whatever f returns."""

    def gradient(kind: torch.dtype) -> Tensor:
        surrogate = expectation(
            lambda x: (x[..., 0] > 0).to(kind),
            GAUSSIAN,
            method,
            num_samples=50,
            generator=seeded(),
            baseline=baseline,
        )
        return torch.autograd.grad(surrogate.sum().float(), GAUSSIAN.mean)[0]

    assert torch.allclose(gradient(kind), gradient(torch.float32), rtol=1e-5)


def test_a_function_that_changes_its_argument_in_place_changes_nothing_else() -> None:
    """E (2 x)^2 by the mean is 8 m = 4, in mixed as in the others."""
    mean = torch.full((20_000, 1), 0.5, dtype=F64, requires_grad=True)
    distribution = pg.DiagonalGaussian(mean, torch.zeros(1, dtype=F64))
    noise = torch.randn(20_000, 1, generator=seeded(), dtype=F64)
    for method in METHODS:
        surrogate = expectation(lambda x: x.mul_(2)[..., 0] ** 2, distribution, method, noise=noise)
        (found,) = torch.autograd.grad(surrogate.sum(), mean)
        error = float(found.std()) / math.sqrt(len(found))
        assert abs(float(found.mean()) - 4) < 4.5 * error


@pytest.mark.parametrize("returned", [1.0, [1.0], (torch.zeros(3),)])
def test_what_is_no_tensor_is_refused(returned: Any) -> None:
    with pytest.raises(RequestError, match="not a tensor"):
        expectation(lambda x: returned, GAUSSIAN, num_samples=3, generator=seeded())


def test_a_lost_path_is_seen_also_if_f_has_parameters_of_its_own() -> None:
    k = torch.tensor(2.0, requires_grad=True)
    with pytest.raises(RequestError, match="no differentiable path"):
        expectation(
            lambda x: k * (x[..., 0] > 0).float(),
            GAUSSIAN,
            "pathwise",
            num_samples=5,
            generator=seeded(),
        )


@pytest.mark.parametrize("method", ["rebar", "gumbel_softmax", "straight_through"])
def test_a_relaxation_needs_an_f_that_varies_between_the_choices(method: Method) -> None:
    """Reading the choice back with argmax leaves no path, and no gradient of zero."""
    logits = torch.zeros(3, requires_grad=True)
    reward = torch.tensor([1.0, 2.0, -1.0])
    with pytest.raises(RequestError, match="no differentiable path"):
        expectation(
            lambda z: reward[z.argmax(-1)],
            pg.Categorical(logits),
            method,
            num_samples=5,
            generator=seeded(),
        )


def test_measure_valued_checks_the_shape_that_f_returns() -> None:
    """[N, 1] would be taken for an expectation of each dimension."""
    distribution = pg.DiagonalGaussian(torch.zeros(2, requires_grad=True), torch.zeros(2))
    with pytest.raises(ValueError, match="must keep the axes"):
        expectation(
            lambda x: x.sum(-1, keepdim=True),
            distribution,
            "measure_valued",
            num_samples=5,
            generator=seeded(),
        )


@pytest.mark.parametrize("method", ["measure_valued", "rebar"])
def test_second_derivatives_that_would_be_wrong_are_refused(method: Method) -> None:
    leaf = torch.zeros(2, requires_grad=True)
    distribution = (
        pg.DiagonalGaussian(leaf, torch.zeros(2))
        if method == "measure_valued"
        else pg.Categorical(leaf)
    )
    surrogate = expectation(
        lambda x: x.square().sum(-1), distribution, method, num_samples=5, generator=seeded()
    )
    with pytest.raises(RequestError, match="cannot be differentiated again"):
        torch.autograd.grad(surrogate.sum(), leaf, create_graph=True)


def test_straight_through_evaluates_f_at_the_very_choice() -> None:
    """``f`` is evaluated at exact zeros and ones."""
    logits = torch.randn(6, generator=seeded(), requires_grad=True)
    seen = []
    expectation(
        lambda z: seen.append(z.detach()) or z.sum(-1),  # type: ignore[func-returns-value]
        pg.Categorical(logits),
        "straight_through",
        num_samples=1000,
        generator=seeded(),
    )
    assert set(seen[0].flatten().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("noise", "shape"),
    [(torch.zeros(20, 1), (3,)), (torch.zeros(5, 4), (1,)), (torch.zeros(()), (1,))],
)
def test_noise_of_another_size_is_refused(noise: Tensor, shape: tuple[int, ...]) -> None:
    """[20, 1] would broadcast one variable over three dimensions, and say nothing."""
    distribution = pg.DiagonalGaussian(torch.zeros(shape), torch.zeros(shape))
    with pytest.raises(ValueError, match="does not fit"):
        expectation(lambda x: x.sum(-1), distribution, noise=noise)


@pytest.mark.parametrize("arguments", [{"num_samples": 2.5}, {"generator": 42}, {"baseline": None}])
def test_arguments_of_another_kind_are_refused(arguments: dict[str, Any]) -> None:
    given: dict[str, Any] = {"num_samples": 3, "generator": seeded()} | arguments
    with pytest.raises(RequestError):
        expectation(lambda x: x.sum(-1), GAUSSIAN, **given)


# Densities ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("alpha", "beta"), [(5.0, 0.2), (0.2, 0.2), (200.0, 0.3)])
def test_the_beta_score_function_is_that_of_float64_in_float32(alpha: float, beta: float) -> None:
    """Much of the distribution is closer to 1 than float32 can tell; both use the same noise."""
    noise, _ = pg.gauss_hermite(60)
    found = []
    for dtype in (torch.float32, F64):
        a = torch.full((60, 1), alpha, dtype=dtype, requires_grad=True)
        b = torch.full((60, 1), beta, dtype=dtype, requires_grad=True)
        distribution = pg.Beta(a, b, torch.zeros(1, dtype=dtype), torch.ones(1, dtype=dtype))
        _, log_prob = distribution.sample_with_log_prob(noise.to(dtype))
        found.append(torch.cat(torch.autograd.grad(log_prob.sum(), [a, b])).double())
    assert torch.allclose(found[0], found[1], rtol=1e-4, atol=1e-4)


def test_beta_scores_have_mean_zero_where_beta_is_small() -> None:
    """E dlog p / dbeta = 0 by quadrature over the rank, in float64."""
    w = 400
    rank = (torch.arange(w, dtype=F64) + 0.5) / w
    # Ranks packed towards both ends, where the scores are large but integrable.
    u = rank**4 / (rank**4 + (1 - rank) ** 4)
    weight = torch.gradient(u, spacing=(rank,), edge_order=2)[0] / w
    noise = torch.special.ndtri(u).unsqueeze(-1)
    a = torch.full((w, 1), 5.0, dtype=F64, requires_grad=True)
    b = torch.full((w, 1), 0.2, dtype=F64, requires_grad=True)
    distribution = pg.Beta(a, b, torch.zeros(1, dtype=F64), torch.ones(1, dtype=F64))
    _, log_prob = distribution.sample_with_log_prob(noise)
    for score in torch.autograd.grad(log_prob.sum(), [a, b]):
        assert abs(float(weight @ score[:, 0])) < 1e-3 * float(weight @ score[:, 0].abs())


def test_a_choice_that_is_ruled_out_adds_nothing_to_the_entropy() -> None:
    logits = torch.tensor([0.3, -torch.inf, -0.3])
    expected = td.Categorical(logits=logits[[0, 2]]).entropy()  # type: ignore[no-untyped-call]
    assert float(pg.Categorical(logits).entropy()) == pytest.approx(float(expected))


def test_a_mixture_of_components_very_far_apart_has_a_finite_path_in_float32() -> None:
    mean = torch.tensor([[-100.0], [100.0]], requires_grad=True)
    log_std = torch.full((2, 1), -7.0, requires_grad=True)
    mixture = pg.GaussianMixture(torch.zeros(2), mean, log_std)
    noise = mixture.draw_noise(seeded(), (200,))
    found = torch.autograd.grad(mixture.rsample(noise).sum(), [mean, log_std])
    assert all(bool(gradient.isfinite().all()) for gradient in found)
