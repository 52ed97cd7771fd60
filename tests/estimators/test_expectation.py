"""Gradients of expectations against closed forms: no sampling error where nodes replace noise."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch import distributions as td

import pgtoolkit
from pgtoolkit.distributions.discrete import Categorical
from pgtoolkit.distributions.gaussian import DiagonalGaussian
from pgtoolkit.distributions.noise import antithetic
from pgtoolkit.distributions.quadrature import gauss_hermite
from pgtoolkit.distributions.squashed import TanhGaussian
from pgtoolkit.errors import RequestError
from pgtoolkit.estimators.expectation import Method, expectation
from pgtoolkit.estimators.reference_problems import GaussianProblem, cosine, exponential, quadratic

F64 = torch.float64
PROBLEMS = {
    f"{family.__name__} {point}": family(*point)
    for family in (quadratic, exponential, cosine)
    for point in ((1.0, 1.0, 1.0), (-0.6, 0.7, 1.3), (0.3, 0.4, 0.5), (1.0, 1.0, 2.0))
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(problem: GaussianProblem, copies: int, dtype: torch.dtype = F64) -> DiagonalGaussian:
    """A copy of the parameters for each sample: one backward gives each sample's gradient."""
    mean = torch.full((copies, 1), problem.mean, dtype=dtype, requires_grad=True)
    log_std = torch.full((copies, 1), math.log(problem.std), dtype=dtype, requires_grad=True)
    return DiagonalGaussian(mean, log_std)


def estimates(surrogate: Tensor, distribution: DiagonalGaussian, std: float) -> Tensor:
    """Gradient estimates ``[N, 2]`` by mean and standard deviation (not its logarithm)."""
    leaves = [distribution.mean, distribution.log_std]
    by_mean, by_log_std = torch.autograd.grad(surrogate.sum(), leaves)
    return torch.cat([by_mean, by_log_std / std], 1)


def elementwise(f: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: f(x).squeeze(-1)


def moments(
    problem: GaussianProblem, method: Method, baseline: float = 0.0, dtype: torch.dtype = F64
) -> tuple[Tensor, Tensor, Tensor]:
    """Expectation, gradient and variance by Gauss-Hermite nodes in place of noise."""
    noise, weight = gauss_hermite(180)
    distribution = gaussian(problem, len(noise), dtype)
    surrogate = expectation(
        elementwise(problem.f), distribution, method, noise=noise.to(dtype), baseline=baseline
    )
    found = estimates(surrogate, distribution, problem.std).double()
    mean = weight @ found
    return weight @ surrogate.detach().double(), mean, weight @ (found - mean) ** 2


@pytest.mark.parametrize("name", PROBLEMS)
def test_pathwise_has_the_closed_forms_value_gradient_and_variance(name: str) -> None:
    problem = PROBLEMS[name]
    value, mean, variance = moments(problem, "pathwise")
    assert float(value) == pytest.approx(problem.expectation, rel=1e-10)
    assert mean.tolist() == pytest.approx(problem.gradient, rel=1e-10, abs=1e-12)
    assert variance.tolist() == pytest.approx(problem.pathwise_variance, rel=1e-9)


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("which", ["none", "mean", "optimal by mean", "optimal by std"])
def test_the_score_function_has_the_closed_forms_value_gradient_and_variance(
    name: str, which: str
) -> None:
    """With any constant baseline the value and the gradient are the same."""
    problem = PROBLEMS[name]
    b = {
        "none": 0.0,
        "mean": problem.expectation,
        "optimal by mean": problem.optimal_baseline.mean,
        "optimal by std": problem.optimal_baseline.std,
    }[which]
    value, mean, variance = moments(problem, "score_function", b)
    assert float(value) == pytest.approx(problem.expectation, rel=1e-10)
    assert mean.tolist() == pytest.approx(problem.gradient, rel=1e-10, abs=1e-12)
    exact = [problem.score_function_variance("mean", b), problem.score_function_variance("std", b)]
    assert variance.tolist() == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("method", ["pathwise", "score_function", "mixed"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_float32_is_right_to_a_millionth(name: str, method: Method) -> None:
    """Relative to the estimates' own size: a sum of terms that large is what rounds."""
    problem = PROBLEMS[name]
    _, mean, variance = moments(problem, method, dtype=torch.float32)
    scale = (variance + torch.tensor(problem.gradient) ** 2).sqrt()
    assert bool(((mean - torch.tensor(problem.gradient, dtype=F64)).abs() < 1e-6 * scale).all())


@pytest.mark.parametrize("mix", [0.0, 0.3, 1.0, 1.2])
def test_mixed_is_the_combination_of_the_two_on_the_same_samples(mix: float) -> None:
    """0 is the score function, 1 pathwise; sample by sample."""
    problem, noise = PROBLEMS["cosine (1.0, 1.0, 1.0)"], torch.randn(50, 1, generator=seeded())
    found: dict[str, Tensor] = {}
    methods: list[Method] = ["score_function", "pathwise", "mixed"]
    for method in methods:
        distribution = gaussian(problem, 50, torch.float32)
        surrogate = expectation(
            elementwise(problem.f), distribution, method, noise=noise, baseline=0.4, mix=mix
        )
        found[method] = estimates(surrogate, distribution, 1.0)
    expected = (1 - mix) * found["score_function"] + mix * found["pathwise"]
    assert torch.allclose(found["mixed"], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "mean", "std"),
    [
        ("pathwise", lambda D, s: 0.0, lambda D, s: 8 * s**2),
        (
            "score_function",
            lambda D, s: 8 * D**2,
            lambda D, s: 2 * D**4 / s**2 + 20 * D**2 + 74 * s**2,
        ),
    ],
)
def test_antithetic_pairs_of_a_quadratic(
    method: Method, mean: Callable[[float, float], float], std: Callable[[float, float], float]
) -> None:
    """Variance of a pair's mean; what is odd in the noise cancels."""
    problem, d, s = quadratic(1.3, 0.6, 0.2), 1.1, 0.6
    noise, weight = gauss_hermite(60)
    both = antithetic(noise)
    distribution = gaussian(problem, len(both))
    surrogate = expectation(elementwise(problem.f), distribution, method, noise=both)
    pairs = estimates(surrogate, distribution, s).reshape(2, len(noise), 2).mean(0)
    gradient = weight @ pairs
    assert gradient.tolist() == pytest.approx(problem.gradient, rel=1e-10)
    variance = weight @ (pairs - gradient) ** 2
    assert variance.tolist() == pytest.approx([mean(d, s), std(d, s)], rel=1e-9, abs=1e-12)


# Higher orders, parameters of f, shapes -----------------------------------------------------------


def test_second_derivatives_of_the_score_function() -> None:
    """E (x - k)^2 = D^2 + s^2: the Hessian by (mean, std) is 2 I, by nodes to 1e-10 (DiCE)."""
    noise, weight = gauss_hermite(60)
    theta = torch.tensor([0.7, 0.5], dtype=F64, requires_grad=True)

    def objective(theta: Tensor, method: Method, baseline: float) -> Tensor:
        distribution = DiagonalGaussian(theta[:1], theta[1:].log())
        return weight @ expectation(
            lambda x: (x[:, 0] - 0.2) ** 2, distribution, method, noise=noise, baseline=baseline
        )

    cases: list[tuple[Method, float]] = [
        ("score_function", 0.0),
        ("score_function", 0.6),
        ("pathwise", 0.0),
    ]
    for method, baseline in cases:
        value = objective(theta, method, baseline)
        (slope,) = torch.autograd.grad(value, theta, create_graph=True)
        rows = [torch.autograd.grad(entry, theta, retain_graph=True)[0] for entry in slope]
        assert torch.cat(rows).tolist() == pytest.approx([2, 0, 0, 2], abs=1e-9)


def test_third_derivatives_of_the_score_function() -> None:
    """E exp(x) = exp(m + s^2 / 2): every derivative by m is the expectation itself."""
    noise, weight = gauss_hermite(80)
    mean = torch.tensor([0.3], dtype=F64, requires_grad=True)
    distribution = DiagonalGaussian(mean, torch.tensor([-0.5], dtype=F64))
    exact = math.exp(0.3 + math.exp(-1.0) / 2)
    value = weight @ expectation(
        lambda x: x[:, 0].exp(), distribution, "score_function", noise=noise, baseline=1.5
    )
    for _ in range(3):
        (value,) = torch.autograd.grad(value.sum(), mean, create_graph=True)
        assert value.item() == pytest.approx(exact, rel=1e-9)


METHODS: list[Method] = ["score_function", "pathwise", "mixed", "measure_valued"]


@pytest.mark.parametrize("method", METHODS)
def test_parameters_of_f_get_their_gradient_under_the_integral(method: Method) -> None:
    """The distribution does not depend on them; d/dk E (x - k)^2 = -2 (m - k), sample by sample."""
    k = torch.tensor(0.5, dtype=F64, requires_grad=True)
    distribution = DiagonalGaussian(torch.ones(1, dtype=F64), torch.zeros(1, dtype=F64))
    surrogate = expectation(
        lambda x: (x[:, 0] - k) ** 2, distribution, method, num_samples=40, generator=seeded()
    )
    x = distribution.sample(distribution.draw_noise(seeded(), (40,)))
    assert torch.allclose(surrogate.detach(), (x[:, 0] - 0.5) ** 2)
    (gradient,) = torch.autograd.grad(surrogate.sum(), k)
    assert float(gradient) == pytest.approx(float(-2 * (x - 0.5).sum()))


def test_parameters_in_f_and_in_the_distribution_add_up() -> None:
    """With ``x ~ N(m, 1)``: ``d/dm E[m x] = E[x] + m = 2 m``."""
    noise, weight = gauss_hermite(20)
    m = torch.tensor([0.7], dtype=F64, requires_grad=True)
    distribution = DiagonalGaussian(m, torch.zeros(1, dtype=F64))
    methods: list[Method] = ["score_function", "pathwise", "mixed"]
    for method in methods:
        value = weight @ expectation(lambda x: (m * x)[:, 0], distribution, method, noise=noise)
        (gradient,) = torch.autograd.grad(value, m)
        assert float(gradient) == pytest.approx(1.4, rel=1e-10)


@pytest.mark.parametrize("method", METHODS)
def test_surrogates_are_not_reduced(method: Method) -> None:
    """[num_samples, *batch]; f reduces the event, and may couple the batch as well."""
    distribution = DiagonalGaussian(torch.zeros(4, 3), torch.zeros(4, 3))
    found = expectation(
        lambda x: x.square().sum(-1), distribution, method, num_samples=7, generator=seeded()
    )
    assert found.shape == (7, 4)
    coupled = expectation(
        lambda x: x.square().sum((-2, -1)), distribution, method, num_samples=7, generator=seeded()
    )
    assert coupled.shape == (7,)
    assert torch.allclose(coupled, found.sum(1), rtol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_of_expectations_is_each_of_them(method: Method) -> None:
    """A coupled f of independent parts has the same gradients, 2 (m - k), sampled."""
    mean = torch.tensor([[0.0, 1.0], [2.0, -1.0]], dtype=F64, requires_grad=True)
    distribution = DiagonalGaussian(mean, torch.zeros(2, 2, dtype=F64))
    for f in (lambda x: x.square().sum(-1), lambda x: x.square().sum((-2, -1))):
        samples = []
        for seed in range(40):
            surrogate = expectation(
                f, distribution, method, num_samples=200, generator=seeded(seed)
            )
            total = surrogate.sum() / 200
            samples.append(torch.autograd.grad(total, mean)[0])
        found = torch.stack(samples)
        error = found.std(0) / math.sqrt(len(found)) + 1e-12
        assert bool(((found.mean(0) - 2 * mean).abs() < 5 * error).all())


# Baselines ----------------------------------------------------------------------------------------


def test_leave_one_out_over_all_pairs_of_nodes_has_the_exact_variance() -> None:
    """N = 2, every pair of nodes: mean g, and the variance of a U-statistic."""
    for problem in (quadratic(1.0, 1.0, 0.0), cosine(0.4, 0.7, 1.1), exponential(1.0, 1.0, 1.0)):
        noise, weight = gauss_hermite(60, 2)
        pairs = noise.T.reshape(2, -1, 1)  # two samples of a batch of all pairs
        distribution = gaussian(problem, pairs.shape[1])
        surrogate = expectation(
            elementwise(problem.f), distribution, noise=pairs, baseline="leave_one_out"
        ).mean(0)
        found = estimates(surrogate, distribution, problem.std)
        mean = weight @ found
        assert mean.tolist() == pytest.approx(problem.gradient, rel=1e-6, abs=1e-9)
        variance = weight @ (found - mean) ** 2
        exact = [
            problem.leave_one_out_variance("mean", 2),
            problem.leave_one_out_variance("std", 2),
        ]
        assert variance.tolist() == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("n", [2, 4])
def test_leave_one_out_of_a_softmax_by_enumeration(n: int) -> None:
    """All 4^N samples: unbiased, variances .79569136 and .23337081."""
    theta = torch.tensor([0.5, -0.2, 0.1, 0.0], dtype=F64)
    r = torch.tensor([1.0, 2.0, -1.0, 0.5], dtype=F64)
    choices = torch.cartesian_prod(*[torch.arange(4)] * n)  # [M, n]
    logits = theta.expand(len(choices), 4).clone().requires_grad_()
    # Noise that makes exactly these choices.
    noise = 1e3 * torch.nn.functional.one_hot(choices.T, 4).double()
    surrogate = expectation(
        lambda a: r[a], Categorical(logits), noise=noise, baseline="leave_one_out"
    ).mean(0)
    (found,) = torch.autograd.grad(surrogate.sum(), logits)
    p = theta.softmax(0)
    weight = p[choices].prod(1)
    gradient = p * (r - p @ r)
    assert (weight @ found).tolist() == pytest.approx(gradient.tolist(), rel=1e-12)
    variance = weight @ (found - gradient).square().sum(1)
    assert float(variance) == pytest.approx({2: 0.79569136, 4: 0.23337081}[n], abs=6e-9)


def test_a_learned_baseline_fits_each_of_a_batch() -> None:
    """[*batch] broadcasts over samples; it is detached, so no gradient reaches what made it."""
    value = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    mean = torch.zeros(3, 1, requires_grad=True)
    distribution = DiagonalGaussian(mean, torch.zeros(3, 1))
    surrogate = expectation(
        lambda x: x[..., 0] + 5, distribution, num_samples=6, generator=seeded(), baseline=value
    )
    with_none = expectation(
        lambda x: x[..., 0] + 5, distribution, num_samples=6, generator=seeded()
    )
    assert torch.equal(surrogate, with_none)
    by_mean, by_value = torch.autograd.grad(surrogate.sum(), [mean, value], allow_unused=True)
    x = distribution.sample(distribution.draw_noise(seeded(), (6,)))[..., 0]
    assert by_value is None
    assert torch.allclose(by_mean[:, 0], ((x + 5 - value) * x).sum(0).detach(), rtol=1e-4)


# torch.distributions ------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("wrap", [True, False])
def test_torchs_normal_gives_the_closed_form(method: Method, wrap: bool) -> None:
    """d/dm E (x - k)^2 = 2 D and d/ds = 2 s, within 4.5 standard errors of 20000 samples."""
    loc = torch.full((20000, 1), 1.2, dtype=F64, requires_grad=True)
    scale = torch.full((20000, 1), 0.8, dtype=F64, requires_grad=True)
    distribution: td.Distribution = td.Normal(loc, scale)
    f: Callable[[Tensor], Tensor] = lambda x: (x - 0.5) ** 2  # noqa: E731
    if wrap:
        distribution, f = td.Independent(distribution, 1), lambda x: ((x - 0.5) ** 2).sum(-1)
    surrogate = expectation(f, distribution, method, num_samples=1, generator=seeded())
    for leaf, exact in zip((loc, scale), (1.4, 1.6), strict=True):
        (found,) = torch.autograd.grad(surrogate.sum(), leaf, retain_graph=True)
        error = float(found.std()) / math.sqrt(20000)
        assert abs(float(found.mean()) - exact) < 4.5 * error


def test_the_global_random_state_is_left_alone_and_the_generator_decides() -> None:
    distribution = td.Normal(torch.zeros(3), torch.ones(3))
    torch.manual_seed(7)
    before = torch.get_rng_state()
    draws = [
        expectation(lambda x: x, distribution, "pathwise", num_samples=4, generator=seeded(s))
        for s in (0, 0, 1)
    ]
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    generator = seeded()
    first, second = (
        expectation(lambda x: x, distribution, "pathwise", num_samples=4, generator=generator)
        for _ in range(2)
    )
    assert not torch.equal(first, second)


LEAF = torch.zeros(3, requires_grad=True)


@pytest.mark.parametrize(
    ("distribution", "message"),
    [
        (td.Categorical(logits=LEAF), "Categorical has no path.*rebar"),
        (
            td.MixtureSameFamily(td.Categorical(torch.ones(2)), td.Normal(LEAF[:2], torch.ones(2))),
            "GaussianMixture",
        ),
        (td.OneHotCategoricalStraightThrough(torch.ones(3)), "biased by design"),
        (td.Independent(td.OneHotCategoricalStraightThrough(torch.ones(2, 3)), 1), "biased by"),
        (td.VonMises(LEAF[:1], torch.ones(1)), "no path"),
    ],
)
def test_where_torch_has_no_unbiased_path_there_is_advice(
    distribution: td.Distribution, message: str
) -> None:
    """OneHotCategoricalStraightThrough says has_rsample, and is biased all the same."""
    with pytest.raises(RequestError, match=message):
        expectation(
            lambda x: x.float().sum(-1), distribution, "pathwise", num_samples=2, generator=seeded()
        )


@pytest.mark.parametrize("method", ["score_function", "pathwise"])
def test_torchs_distributions_with_has_rsample_as_a_property_have_a_path(method: Method) -> None:
    """Gumbel and Weibull report it as a property of the object, not of the class."""
    scale = torch.tensor([1.3], dtype=F64, requires_grad=True)
    distribution = td.Weibull(scale, torch.tensor([2.0], dtype=F64))
    surrogate = expectation(
        lambda x: x[:, 0] ** 2, distribution, method, num_samples=20000, generator=seeded(3)
    )
    (gradient,) = torch.autograd.grad(surrogate.mean(), scale)
    # E x^2 = scale^2 Gamma(2), so the gradient is 2 scale; the estimates' deviation is below 10.
    assert float(gradient) == pytest.approx(2.6, abs=4.5 * 10 / math.sqrt(20000))


# What is refused ----------------------------------------------------------------------------------

NORMAL = DiagonalGaussian(torch.zeros(2, requires_grad=True), torch.zeros(2))


def total(x: Tensor) -> Tensor:
    return x.sum(-1)


def test_a_step_has_no_path() -> None:
    """The comparison cuts the graph: better an error than a gradient of zero."""
    with pytest.raises(RequestError, match=r"no differentiable path.*score_function"):
        expectation(
            lambda x: (x > 0).float().sum(-1), NORMAL, "pathwise", num_samples=3, generator=seeded()
        )


def test_a_choice_has_no_path() -> None:
    with pytest.raises(RequestError, match="no pathwise gradient"):
        expectation(
            lambda a: a.float(),
            Categorical(torch.zeros(3, requires_grad=True)),
            "pathwise",
            num_samples=3,
            generator=seeded(),
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "num_samples"),
        ({"num_samples": 3}, "generator"),
        ({"num_samples": 0, "generator": seeded()}, "at least 1"),
        ({"num_samples": 3, "generator": seeded(), "method": "magic"}, "no method 'magic'"),
        ({"num_samples": 3, "generator": seeded(), "baseline": "mean"}, "no baseline 'mean'"),
        ({"num_samples": 1, "generator": seeded(), "baseline": "leave_one_out"}, "at least 2"),
        ({"noise": torch.zeros(3, 2), "method": "measure_valued"}, "generator too"),
        ({"num_samples": 3, "generator": seeded(), "method": "rebar"}, "DiagonalGaussian"),
    ],
)
def test_bad_requests_say_what_to_do(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        expectation(total, NORMAL, **arguments)  # type: ignore[arg-type]


def test_torchs_distributions_take_no_noise() -> None:
    with pytest.raises(RequestError, match="do not say how"):
        expectation(total, td.Normal(0.0, 1.0), noise=torch.zeros(3))


def test_measure_valued_needs_a_gaussian() -> None:
    with pytest.raises(RequestError, match="diagonal Gaussians, not for Categorical"):
        expectation(
            total, Categorical(torch.zeros(2)), "measure_valued", num_samples=2, generator=seeded()
        )
    with pytest.raises(RequestError, match="does not know torch's Gamma"):
        expectation(
            total,
            td.Gamma(torch.ones(2), torch.ones(2)),
            "measure_valued",
            num_samples=2,
            generator=seeded(),
        )


@pytest.mark.parametrize("f", [lambda x: x.sum(), lambda x: x[:2].sum(-1), lambda x: x.sum(0)])
@pytest.mark.parametrize("method", METHODS)
def test_a_function_that_loses_the_samples_is_refused(
    f: Callable[[Tensor], Tensor], method: Method
) -> None:
    with pytest.raises(ValueError, match="f "):
        expectation(f, NORMAL, method, num_samples=3, generator=seeded())


def test_a_baseline_that_does_not_fit_is_refused() -> None:
    """[N, 1] would broadcast [N] to [N, N] in silence."""
    with pytest.raises(ValueError, match="does not fit"):
        expectation(total, NORMAL, num_samples=3, generator=seeded(), baseline=torch.zeros(3, 1))


def test_squashed_samples_keep_their_density_at_the_bounds() -> None:
    """Far out the action rounds to the bound, and inverting it would lose the density."""
    mean = torch.tensor([9.0], requires_grad=True)
    bounds = torch.tensor([-1.0]), torch.tensor([1.0])
    distribution = TanhGaussian(mean, torch.tensor([0.0]), *bounds)
    noise = torch.tensor([[0.5], [-0.25]])
    methods: list[Method] = ["score_function", "mixed"]
    for method in methods:
        surrogate = expectation(
            lambda a: 1 + 0 * a[:, 0],
            distribution,
            method,
            noise=noise,
            mix=0.0,
        )
        (gradient,) = torch.autograd.grad(surrogate.sum(), mean)
        assert float(gradient) == pytest.approx(0.25, rel=1e-5)


def test_the_front_door_has_it() -> None:
    assert pgtoolkit.expectation is expectation
