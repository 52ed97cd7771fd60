"""The reference sampler of variational inference: known posteriors, and R-hat."""

import math

import pytest
import torch
from torch import Tensor

from pgtoolkit.distributions.gaussian import FullGaussian
from pgtoolkit.scripts.variational.logistic_regression import LogisticRegression
from pgtoolkit.scripts.variational.posterior import (
    Chains,
    hamiltonian_monte_carlo,
    laplace_approximation,
    leapfrog,
    split_r_hat,
)

F64 = torch.float64


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=F64)


def gaussian(size: int, seed: int = 0) -> FullGaussian:
    """A Gaussian with strong correlations."""
    root = normal(size, size, seed=seed).tril(-1) + torch.diag(0.3 + normal(size, seed=1).abs())
    return FullGaussian(normal(size, seed=2), root)


def standard(size: int) -> FullGaussian:
    return FullGaussian(torch.zeros(size, dtype=F64), torch.eye(size, dtype=F64))


def chain_errors(statistic: Tensor, expected: Tensor | float) -> Tensor:
    """Distance of the mean of ``[S, C, D]`` from its expectation, in standard errors: ``[D]``."""
    means = statistic.mean(0)
    return (means.mean(0) - expected).abs() / (means.std(0) / math.sqrt(len(means)))


@pytest.mark.parametrize("preconditioner", ["exact", "wrong"])
def test_draws_from_a_gaussian_have_its_moments(preconditioner: str) -> None:
    """100 chains of 300 draws; means and second moments within 4.5 standard errors.

    A preconditioner with a wrong mean and a wrong covariance costs efficiency, not correctness.
    """
    target = gaussian(4)
    shape, step_size = target, 0.4
    if preconditioner == "wrong":
        shape, step_size = FullGaussian(target.mean + 0.5, 0.6 * torch.eye(4, dtype=F64)), 0.15
    chains = hamiltonian_monte_carlo(
        target.log_prob,
        shape,
        num_chains=100,
        num_draws=300,
        num_warmup=100,
        generator=seeded(),
        step_size=step_size,
    )
    assert bool((chain_errors(chains.draws, target.mean) < 4.5).all())
    covariance = target.scale_tril @ target.scale_tril.T
    centred = chains.draws - target.mean
    products = centred.unsqueeze(-1) * centred.unsqueeze(-2)
    errors = chain_errors(products.flatten(2), covariance.flatten())
    assert bool((errors < 4.5).all())
    assert 0.5 < chains.acceptance < 1.0
    if preconditioner == "exact":
        assert float(chains.r_hat.max()) < 1.01
        assert chains.mean.tolist() == pytest.approx(target.mean.tolist(), abs=0.2)


def test_draws_from_a_density_that_is_not_gaussian() -> None:
    """Logistic variables: E x^2 = pi^2 / 3, E x^4 = 7 pi^4 / 15.

    The leapfrog is so coarse that 40 % of the proposals are rejected, so a missing or wrong
    acceptance step would show.
    """
    chains = hamiltonian_monte_carlo(
        lambda x: (-x - 2 * torch.nn.functional.softplus(-x)).sum(-1),
        FullGaussian(torch.zeros(2, dtype=F64), 2 * torch.eye(2, dtype=F64)),
        num_chains=200,
        num_draws=400,
        num_warmup=50,
        generator=seeded(1),
        step_size=1.2,
        num_steps=3,
    )
    assert 0.5 < chains.acceptance < 0.7
    assert bool((chain_errors(chains.draws.square(), math.pi**2 / 3) < 4.5).all())
    assert bool((chain_errors(chains.draws.pow(4), 7 * math.pi**4 / 15) < 4.5).all())


def test_the_sampler_is_a_function_of_its_generator() -> None:
    """The same seed gives the same draws, and the global random state is not used."""
    before = torch.get_rng_state()
    first, second, other = (
        hamiltonian_monte_carlo(
            standard(2).log_prob,
            standard(2),
            num_chains=3,
            num_draws=5,
            num_warmup=2,
            generator=seeded(seed),
        ).draws
        for seed in (0, 0, 1)
    )
    assert first.shape == (5, 3, 2)
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


def test_the_leapfrog_is_reversible() -> None:
    """With reversed momentum as many steps return to the start; the energy hardly changes."""

    def potential(x: Tensor) -> Tensor:
        return x.pow(4).sum(-1) / 4 + torch.cos(x[:, 0])

    x, momentum = normal(5, 3), normal(5, 3, seed=1)
    there, new_momentum = leapfrog(potential, x, momentum, 0.01, 100)
    back, _ = leapfrog(potential, there, -new_momentum, 0.01, 100)
    torch.testing.assert_close(back, x)
    energies = [
        potential(q) + p.square().sum(-1) / 2 for q, p in ((x, momentum), (there, new_momentum))
    ]
    torch.testing.assert_close(energies[0], energies[1], rtol=1e-3, atol=1e-3)
    assert float((there - x).abs().max()) > 0.5


def test_the_laplace_approximation_of_a_gaussian_is_the_gaussian() -> None:
    target = gaussian(4)
    found = laplace_approximation(target.log_prob, torch.zeros(4, dtype=F64))
    torch.testing.assert_close(found.mean, target.mean)
    covariance = target.scale_tril.tril() @ target.scale_tril.tril().T
    torch.testing.assert_close(found.scale_tril @ found.scale_tril.T, covariance)


def small_regression() -> LogisticRegression:
    """A logistic regression with 40 points and 3 weights."""
    features = torch.cat([torch.ones(40, 1, dtype=F64), normal(40, 2)], 1)
    labels = (features @ torch.tensor([0.5, 2.0, -1.0], dtype=F64) + normal(40, seed=3) > 0).to(F64)
    return LogisticRegression(features, labels, ("intercept", "a", "b"), prior_std=1.5)


def test_the_laplace_approximation_of_a_regression_is_at_its_mode() -> None:
    """It is found even from a start so far off that full Newton steps overshoot."""
    model = small_regression()
    far = torch.tensor([9.0, -9.0, 9.0], dtype=F64)
    for start in (torch.zeros(3, dtype=F64), far):
        mode = laplace_approximation(model.log_joint, start).mean.requires_grad_()
        (slope,) = torch.autograd.grad(model.log_joint(mode), mode)
        assert float(slope.abs().max()) < 1e-8


def test_the_log_joint_is_that_of_torchs_distributions() -> None:
    model = small_regression()
    z = normal(5, 3, seed=4)
    logits = z @ model.features.T
    labels = torch.distributions.Bernoulli(logits=logits)
    weights = torch.distributions.Normal(0.0, 1.5)
    likelihood = labels.log_prob(model.labels).sum(-1)  # type: ignore[no-untyped-call]
    prior = weights.log_prob(z).sum(-1)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(model.log_joint(z), likelihood + prior)
    torch.testing.assert_close(model.log_joint(z[2]), (likelihood + prior)[2])


def test_r_hat_of_four_draws_by_hand() -> None:
    """Halves (0, 2), (1, 3), (4, 6), (5, 7) with n = 2: W = 2, and their means are 1, 2, 5, 6.

    B / n = 17/3; var+ = 2 / 2 + 17 / 3 = 20 / 3; R-hat = sqrt(10 / 3).
    """
    draws = torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 7.0]], dtype=F64).unsqueeze(-1)
    assert split_r_hat(draws).tolist() == pytest.approx([math.sqrt(10 / 3)])


def test_r_hat_says_when_chains_disagree() -> None:
    """Near 1 for independent draws; higher if one chain is elsewhere, or if all chains drift."""
    draws = normal(500, 8, 3)
    agreeing = split_r_hat(draws)
    assert bool((agreeing < 1.01).all()) and bool((agreeing > 0.99).all())
    elsewhere = draws.clone()
    elsewhere[:, 0, 1] += 3
    drifting = draws + torch.linspace(0, 3, 500, dtype=F64).reshape(-1, 1, 1)
    assert (split_r_hat(elsewhere) > 1.1).tolist() == [False, True, False]
    assert bool((split_r_hat(drifting) > 1.1).all())
    assert Chains(draws, 1.0).r_hat.tolist() == agreeing.tolist()


def test_the_standard_error_is_that_of_independent_draws() -> None:
    """For standard normals it is ``1 / sqrt(S C)``, here known to a relative 1 / sqrt(800)."""
    chains = Chains(normal(25, 400, 3), 1.0)
    for error in chains.standard_error.tolist():
        assert error == pytest.approx(0.01, rel=4.5 / math.sqrt(800))
    assert chains.std.tolist() == pytest.approx([1, 1, 1], abs=0.05)


@pytest.mark.parametrize("shape", [(3, 2, 1), (10, 2)])
def test_r_hat_needs_draws_of_chains(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"at least 4 draws|must have shape"):
        split_r_hat(torch.zeros(shape))
