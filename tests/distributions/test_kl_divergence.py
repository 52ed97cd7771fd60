"""KL divergences against torch's, quadrature, enumeration, and large samples."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch import distributions as td
from torch.distributions import AffineTransform, SigmoidTransform, TanhTransform

from pgtoolkit.distributions.base import Distribution, Unsquashed
from pgtoolkit.distributions.beta import Beta
from pgtoolkit.distributions.clipped import ClippedGaussian
from pgtoolkit.distributions.coupling import AffineCoupling
from pgtoolkit.distributions.discrete import Bernoulli, Categorical, Discrete, MultiCategorical
from pgtoolkit.distributions.gaussian import DiagonalGaussian, FullGaussian
from pgtoolkit.distributions.mixture import GaussianMixture
from pgtoolkit.distributions.quadrature import gauss_hermite
from pgtoolkit.distributions.squashed import Squashed, TanhGaussian
from pgtoolkit.distributions.transformed import Transformed, Uniform
from pgtoolkit.errors import RequestError

F64 = torch.float64
BATCH, SIZE = 4, 2
NVEC = (2, 3)
LOW = torch.tensor([-1.0, 0.5], dtype=F64)
HIGH = torch.tensor([1.0, 4.0], dtype=F64)
MANY = 1_000_000


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def leaf(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=F64).requires_grad_()


Made = tuple[Distribution, list[Tensor]]


def gaussian(seed: int, batch: tuple[int, ...] = (BATCH,)) -> tuple[DiagonalGaussian, list[Tensor]]:
    leaves = [leaf(*batch, SIZE, seed=seed), leaf(*batch, SIZE, seed=seed + 1)]
    return DiagonalGaussian(leaves[0], 0.3 * leaves[1]), leaves


def full(seed: int, batch: tuple[int, ...] = (BATCH,)) -> tuple[FullGaussian, list[Tensor]]:
    leaves = [leaf(*batch, SIZE, seed=seed), leaf(*batch, SIZE, SIZE, seed=seed + 1)]
    diagonal = (0.3 * leaves[1].diagonal(dim1=-2, dim2=-1)).exp().diag_embed()
    return FullGaussian(leaves[0], leaves[1].tril(-1) + diagonal), leaves


def tanh_gaussian(seed: int, batch: tuple[int, ...] = (BATCH,)) -> Made:
    base, leaves = gaussian(seed, batch)
    return TanhGaussian(base.mean, base.log_std, LOW, HIGH), leaves


def squashed_full(seed: int, batch: tuple[int, ...] = (BATCH,)) -> Made:
    base, leaves = full(seed, batch)
    return Squashed(base, LOW.clone(), HIGH.clone()), leaves


def clipped(seed: int, batch: tuple[int, ...] = (BATCH,)) -> Made:
    base, leaves = gaussian(seed, batch)
    return ClippedGaussian(base.mean, base.log_std, LOW, HIGH), leaves


def transformed(seed: int, batch: tuple[int, ...] = (BATCH,)) -> Made:
    base, leaves = full(seed, batch)
    return Transformed(base, (AffineTransform(0.3, 2.0), TanhTransform())), leaves


def beta(seed: int, batch: tuple[int, ...] = (BATCH,)) -> Made:
    leaves = [leaf(*batch, SIZE, seed=seed), leaf(*batch, SIZE, seed=seed + 1)]
    return Beta(1 + leaves[0].exp(), 1 + leaves[1].exp(), LOW, HIGH), leaves


def uniform(seed: int, batch: tuple[int, ...] = (BATCH,)) -> Made:
    """A box that covers the one of every larger seed."""
    leaves = [leaf(*batch, SIZE, seed=seed), leaf(*batch, SIZE, seed=seed + 1)]
    half = torch.sigmoid(leaves[0]) - seed
    return Uniform(-1000 - half, 1000 + half + 0.1 * torch.sigmoid(leaves[1])), leaves


def categorical(seed: int, batch: tuple[int, ...] = (BATCH,)) -> Made:
    logits = leaf(*batch, 3, seed=seed)
    return Categorical(logits), [logits]


def multi_categorical(seed: int, batch: tuple[int, ...] = (BATCH,)) -> Made:
    logits = leaf(*batch, sum(NVEC), seed=seed)
    return MultiCategorical(logits, NVEC), [logits]


def bernoulli(seed: int, batch: tuple[int, ...] = (BATCH,)) -> Made:
    logits = leaf(*batch, SIZE, seed=seed)
    return Bernoulli(logits), [logits]


def mixture(seed: int, batch: tuple[int, ...] = (BATCH,)) -> tuple[GaussianMixture, list[Tensor]]:
    shape = (*batch, 3, SIZE)
    leaves = [leaf(*batch, 3, seed=seed), leaf(*shape, seed=seed + 1), leaf(*shape, seed=seed + 2)]
    return GaussianMixture(leaves[0], leaves[1], 0.2 * leaves[2]), leaves


def squashed_mixture(seed: int, batch: tuple[int, ...] = (BATCH,)) -> Made:
    base, leaves = mixture(seed, batch)
    return Squashed(base, LOW, HIGH), leaves


def flow(seed: int, batch: tuple[int, ...] = (BATCH,)) -> tuple[Transformed, list[Tensor]]:
    """A coupling and an affine map, each with parameters of its own."""
    base, leaves = gaussian(seed, batch)
    slope = leaf(2, seed=seed + 2)

    def conditioner(kept: Tensor) -> tuple[Tensor, Tensor]:
        return slope[0] * kept, 0.3 * torch.tanh(slope[1] * kept)

    return Transformed(base, (AffineCoupling((True, False), conditioner),)), [*leaves, slope]


Make = Callable[..., Made]
CLOSED: list[Make] = [
    gaussian,
    full,
    tanh_gaussian,
    squashed_full,
    clipped,
    transformed,
    beta,
    uniform,
    categorical,
    multi_categorical,
    bernoulli,
]
SAMPLED: list[Make] = [mixture, squashed_mixture, flow]


def torch_normal(p: Any) -> Any:
    return td.Independent(td.Normal(p.mean, p.log_std.exp()), 1)


def torch_full(p: FullGaussian | DiagonalGaussian) -> Any:
    return td.MultivariateNormal(p.mean, scale_tril=p.scale_tril)


def torch_beta(p: Beta) -> Any:
    return td.Independent(td.Beta(p.alpha, p.beta), 1)


def torch_uniform(p: Uniform) -> Any:
    return td.Independent(td.Uniform(p.low, p.high), 1)


def multi_categorical_of_torch(p: MultiCategorical, q: MultiCategorical) -> Tensor:
    """The sum of torch's divergences of the single variables."""
    parts = zip(*(torch.split(x.logits, list(NVEC), -1) for x in (p, q)), strict=True)
    found = [td.kl_divergence(*(td.Categorical(logits=x) for x in pair)) for pair in parts]
    return torch.stack(found).sum(0)


THEIRS: dict[Make, Callable[[Any, Any], Tensor]] = {
    gaussian: lambda p, q: td.kl_divergence(torch_normal(p), torch_normal(q)),
    full: lambda p, q: td.kl_divergence(torch_full(p), torch_full(q)),
    tanh_gaussian: lambda p, q: td.kl_divergence(torch_normal(p), torch_normal(q)),
    squashed_full: lambda p, q: td.kl_divergence(torch_full(p.base), torch_full(q.base)),
    clipped: lambda p, q: td.kl_divergence(torch_normal(p), torch_normal(q)),
    transformed: lambda p, q: td.kl_divergence(torch_full(p.base), torch_full(q.base)),
    beta: lambda p, q: td.kl_divergence(torch_beta(p), torch_beta(q)),
    uniform: lambda p, q: td.kl_divergence(torch_uniform(p), torch_uniform(q)),
    categorical: lambda p, q: td.kl_divergence(
        td.Categorical(logits=p.logits), td.Categorical(logits=q.logits)
    ),
    multi_categorical: multi_categorical_of_torch,
    bernoulli: lambda p, q: td.kl_divergence(
        td.Independent(td.Bernoulli(logits=p.logits), 1),
        td.Independent(td.Bernoulli(logits=q.logits), 1),
    ),
}


def assert_equal_with_gradients(
    value: Tensor, expected: Tensor, leaves: list[Tensor], tolerance: float = 1e-12
) -> None:
    """Values and gradients, to a relative tolerance."""
    torch.testing.assert_close(value, expected, rtol=tolerance, atol=tolerance)
    weight = torch.arange(1.0, value.numel() + 1, dtype=F64).view_as(value)
    ours = torch.autograd.grad((weight * value).sum(), leaves, retain_graph=True)
    theirs = torch.autograd.grad((weight * expected).sum(), leaves)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=10 * tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("make", CLOSED)
def test_closed_forms_and_their_gradients_are_torch_s(make: Make) -> None:
    (p, p_leaves), (q, q_leaves) = make(10), make(0)
    value = p.kl_divergence(q)
    assert value.shape == (BATCH,)
    assert_equal_with_gradients(value, THEIRS[make](p, q), p_leaves + q_leaves)


@pytest.mark.parametrize(("make_p", "make_q"), [(gaussian, full), (full, gaussian)])
def test_diagonal_and_full_gaussians_mix(make_p: Make, make_q: Make) -> None:
    (p, p_leaves), (q, q_leaves) = make_p(0), make_q(10)
    assert isinstance(p, DiagonalGaussian | FullGaussian)
    assert isinstance(q, DiagonalGaussian | FullGaussian)
    theirs = td.kl_divergence(torch_full(p), torch_full(q))
    assert_equal_with_gradients(p.kl_divergence(q), theirs, p_leaves + q_leaves)


@pytest.mark.parametrize(
    ("make_p", "make_q"), [(tanh_gaussian, squashed_full), (squashed_full, tanh_gaussian)]
)
def test_squashing_to_equal_bounds_leaves_the_divergence_of_the_bases(
    make_p: Make, make_q: Make
) -> None:
    (p, _), (q, _) = make_p(0), make_q(10)
    assert isinstance(p, Squashed | TanhGaussian) and isinstance(q, Squashed | TanhGaussian)
    assert torch.equal(p.kl_divergence(q), p.unsquashed.kl_divergence(q.unsquashed))


@pytest.mark.parametrize("make", [*CLOSED, *SAMPLED])
def test_the_divergence_from_itself_is_0(make: Make) -> None:
    p, leaves = make(0)
    value = p.kl_divergence(make(0)[0], generator=seeded())
    assert value.abs().max() <= 1e-13
    if make in CLOSED:
        # The divergence is least there.
        gradients = torch.autograd.grad(p.kl_divergence(make(0)[0]).sum(), leaves)
        if make is not uniform:
            assert all(gradient.abs().max() < 1e-13 for gradient in gradients)


@pytest.mark.parametrize("make", CLOSED)
def test_the_divergence_is_not_negative(make: Make) -> None:
    for seed in range(50):
        p, q = make(2 * seed + 5)[0], make(2 * seed)[0]
        assert p.kl_divergence(q).min() >= 0


def test_nearly_equal_gaussians_keep_their_digits() -> None:
    mean, log_std = torch.zeros(1, dtype=F64), torch.full((1,), 1e-5, dtype=F64)
    value = DiagonalGaussian(mean, log_std).kl_divergence(DiagonalGaussian(mean, 0 * log_std))
    exact = 1e-10 + 2 / 3 * 1e-15  # (exp(2 d) - 1) / 2 - d
    assert float(value) == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("make", [*CLOSED, *SAMPLED])
def test_batches_broadcast(make: Make) -> None:
    """One distribution against a batch, and a batch against one, give the pairs' divergences."""
    one, many = make(10, ())[0], make(0, (3, BATCH))[0]
    noise = one.draw_noise(seeded())
    value = one.kl_divergence(many, noise)
    assert value.shape == (3, BATCH)
    for i, j in itertools.product(range(3), range(BATCH)):
        pair = one.kl_divergence(row(many, (i, j)), noise)
        torch.testing.assert_close(value[i, j], pair, rtol=1e-12, atol=1e-12)
    if make is not uniform:  # infinite, either way
        assert many.kl_divergence(one, generator=seeded()).shape == (3, BATCH)


def row(distribution: Any, at: tuple[int, int]) -> Distribution:
    """One distribution of a batch ``[3, BATCH]``."""
    if isinstance(distribution, Squashed):
        return Squashed(row(distribution.base, at), distribution.low, distribution.high)  # type: ignore[arg-type]
    if isinstance(distribution, Transformed):
        return Transformed(row(distribution.base, at), distribution.transforms)  # type: ignore[arg-type]
    fields = {f.name: getattr(distribution, f.name) for f in dataclasses.fields(distribution)}
    values = {
        name: value[at] if isinstance(value, Tensor) and value.ndim > 1 else value
        for name, value in fields.items()
    }
    made: Distribution = type(distribution)(**values)
    return made


@pytest.mark.parametrize("make", [categorical, multi_categorical, bernoulli])
def test_discrete_divergences_are_sums_over_the_support(make: Make) -> None:
    (p, p_leaves), (q, q_leaves) = make(0), make(10)
    assert isinstance(p, Discrete)
    actions = p.enumerate_support()
    log_p, log_q = p.log_prob(actions), q.log_prob(actions)
    expected = (log_p.exp() * (log_p - log_q)).sum(0)
    assert_equal_with_gradients(p.kl_divergence(q), expected, p_leaves + q_leaves)


def test_a_category_of_probability_0_counts_0() -> None:
    logits = torch.tensor([0.3, -torch.inf, 0.1], dtype=F64, requires_grad=True)
    p, q = Categorical(logits), Categorical(torch.zeros(3, dtype=F64))
    value = p.kl_divergence(q)
    log_p = torch.log_softmax(logits[[0, 2]], 0)
    torch.testing.assert_close(value, (log_p.exp() * (log_p + torch.tensor(3.0).log())).sum())
    assert torch.autograd.grad(value, logits)[0].isfinite().all()
    assert p.kl_divergence(p) == 0 and q.kl_divergence(p) == torch.inf


def test_a_uniform_that_is_not_covered_is_infinitely_far() -> None:
    low, high = torch.zeros(2, dtype=F64), torch.ones(2, dtype=F64)
    inner, outer = Uniform(low, high), Uniform(low - torch.tensor([0.0, 1.0]), high)
    assert inner.kl_divergence(outer) == pytest.approx(torch.tensor(2.0).log().item())
    assert outer.kl_divergence(inner) == torch.inf


def test_a_clipped_gaussian_has_the_divergence_of_the_unclipped() -> None:
    (p, _), (q, _) = clipped(0), clipped(10)
    assert isinstance(p, ClippedGaussian) and isinstance(q, ClippedGaussian)
    assert torch.equal(p.kl_divergence(q), p.unclipped.kl_divergence(q.unclipped))


def z_score(estimates: Tensor, exact: Tensor | float) -> float:
    """Standard errors between the mean of the estimates and the exact value."""
    estimates = estimates.detach()
    error = estimates.std() / len(estimates) ** 0.5
    return float((estimates.mean() - torch.as_tensor(exact).detach()).abs() / error)


def log_ratio_by_quadrature(p: GaussianMixture, q: GaussianMixture) -> Tensor:
    """``KL(p || q)`` component by component, each on its own Gauss-Hermite grid."""
    noise, weight = gauss_hermite(60, SIZE)
    total = torch.zeros((), dtype=F64)
    for k, share in enumerate(torch.softmax(p.logits, -1)):
        a = p.mean[k] + p.log_std[k].exp() * noise
        total = total + share * (weight @ (p.log_prob(a) - q.log_prob(a)))
    return total


def assert_gradients_are_unbiased(
    estimates: Tensor, copies: list[Tensor], exact: Tensor, leaves: list[Tensor]
) -> None:
    """Each sample has its own copy of the parameters: one backward gives all its gradients."""
    found = torch.autograd.grad(estimates.sum(), copies)
    for mine, expected in zip(found, torch.autograd.grad(exact, leaves), strict=True):
        error = mine.std(0) / len(estimates) ** 0.5
        assert ((mine.mean(0) - expected).abs() <= 5 * error + 1e-12).all()


def copies_of(leaves: list[Tensor], count: int) -> list[Tensor]:
    return [x.detach().expand(count, *x.shape).clone().requires_grad_() for x in leaves]


@pytest.mark.parametrize("squash", [False, True])
def test_mixtures_are_sampled_without_bias_and_so_are_their_gradients(squash: bool) -> None:
    (p, p_leaves), (q, q_leaves) = mixture(0, ()), mixture(10, ())
    copies = copies_of(p_leaves + q_leaves, 200_000)
    first: Distribution = GaussianMixture(copies[0], copies[1], 0.2 * copies[2])
    second: Distribution = GaussianMixture(copies[3], copies[4], 0.2 * copies[5])
    if squash:
        first, second = Squashed(first, LOW, HIGH), Squashed(second, LOW, HIGH)  # type: ignore[arg-type]
    estimates = first.kl_divergence(second, generator=seeded(2))
    exact = log_ratio_by_quadrature(p, q)
    assert z_score(estimates, exact) < 5
    assert_gradients_are_unbiased(estimates, copies, exact, p_leaves + q_leaves)


def test_a_gaussian_and_a_mixture_are_two_families_over_the_same_actions() -> None:
    (p, p_leaves), (q, q_leaves) = gaussian(0, ()), mixture(10, ())
    noise, weight = gauss_hermite(60, SIZE)
    exact = weight @ p.kl_divergence(q, noise)
    copies = copies_of(p_leaves + q_leaves, 200_000)
    many = GaussianMixture(copies[2], copies[3], 0.2 * copies[4])
    estimates = DiagonalGaussian(copies[0], 0.3 * copies[1]).kl_divergence(
        many, generator=seeded(1)
    )
    assert z_score(estimates, exact) < 5
    assert_gradients_are_unbiased(estimates, copies, exact, p_leaves + q_leaves)


def test_flows_are_sampled_without_bias() -> None:
    """Affine maps of Gaussians are Gaussians, whose divergence is known in closed form."""
    (base, _), (other, _) = gaussian(0, ()), gaussian(10, ())
    p = Transformed(base, (AffineTransform(0.5, 2.0),))
    q = Transformed(other, (AffineTransform(-0.3, 0.7),))
    exact = DiagonalGaussian(0.5 + 2 * base.mean, base.log_std + torch.log(torch.tensor(2.0)))
    goal = DiagonalGaussian(0.7 * other.mean - 0.3, other.log_std + torch.tensor(0.7).log())
    estimates = p.kl_divergence(q, p.draw_noise(seeded(3), (MANY,)))
    assert z_score(estimates, exact.kl_divergence(goal)) < 5
    # And a flow against a Gaussian: two families over the same actions.
    estimates = p.kl_divergence(goal, p.draw_noise(seeded(4), (MANY,)))
    assert z_score(estimates, exact.kl_divergence(goal)) < 5


def test_families_of_one_action_space_are_sampled() -> None:
    """A beta distribution and a squashed Gaussian: both ways, against quadrature on the bounds."""
    low, high = torch.tensor([-1.0], dtype=F64), torch.tensor([3.0], dtype=F64)
    p = Beta(torch.tensor([2.0], dtype=F64), torch.tensor([3.0], dtype=F64), low, high)
    q = TanhGaussian(torch.tensor([0.2], dtype=F64), torch.tensor([-0.3], dtype=F64), low, high)
    pairs: list[tuple[Distribution, Distribution]] = [(p, q), (q, p)]
    for first, second in pairs:
        noise, weight = gauss_hermite(200)
        exact = weight @ first.kl_divergence(second, noise)
        estimates = first.kl_divergence(second, first.draw_noise(seeded(5), (100_000,)))
        assert z_score(estimates, exact) < 5
        # The same integral over the actions, by the trapezium rule.
        a = torch.linspace(-1, 3, 400_001, dtype=F64)[1:-1, None]
        log_p, log_q = first.log_prob(a), second.log_prob(a)
        integral = torch.trapezoid(log_p.exp() * (log_p - log_q), a[:, 0])
        torch.testing.assert_close(exact, integral, rtol=1e-5, atol=1e-5)


def test_equal_chains_without_parameters_are_recognised_and_others_sampled() -> None:
    (first, _), (second, _) = gaussian(0), gaussian(10)
    p = Transformed(first, (AffineTransform(0.3, 2.0), SigmoidTransform()))
    same = Transformed(second, (AffineTransform(0.3, 2.0), SigmoidTransform()))
    assert torch.equal(p.kl_divergence(same), first.kl_divergence(second))
    other = Transformed(second, (AffineTransform(0.4, 2.0), SigmoidTransform()))
    with pytest.raises(ValueError, match="no global random state"):
        p.kl_divergence(other)


def test_equal_chains_whose_parameters_are_learned_keep_their_gradient() -> None:
    """Two shifts of equal value but of two policies: the divergence has a gradient by each."""
    zero = torch.zeros(1, dtype=F64)
    shifts = [torch.zeros(1, dtype=F64, requires_grad=True) for _ in range(2)]
    p, q = (
        Transformed(DiagonalGaussian(mean, zero), (AffineTransform(shift, 1.0, event_dim=1),))
        for mean, shift in zip((zero, zero + 1), shifts, strict=True)
    )
    noise, weight = gauss_hermite(20)
    value = weight @ p.kl_divergence(q, noise)
    assert float(value.detach()) == pytest.approx(0.5)
    gradients = torch.autograd.grad(value, shifts)
    assert [float(x) for x in gradients] == pytest.approx([-1.0, 1.0])


def test_second_derivatives_are_the_fisher_information() -> None:
    """The Hessian of ``KL(p || q)`` by ``p``'s mean and log std at ``q = p``."""
    mean, log_std = leaf(SIZE, seed=0), leaf(SIZE, seed=1)
    fixed = DiagonalGaussian(mean.detach(), log_std.detach())
    fisher = log_std.detach().mul(-2).exp()

    def divergence(mean: Tensor, log_std: Tensor) -> Tensor:
        return DiagonalGaussian(mean, log_std).kl_divergence(fixed)

    gradients = torch.autograd.grad(divergence(mean, log_std), (mean, log_std), create_graph=True)
    rows = [
        torch.cat(torch.autograd.grad(entry, (mean, log_std), retain_graph=True))
        for entry in torch.cat(gradients)
    ]
    exact = torch.cat([fisher, torch.full((SIZE,), 2.0, dtype=F64)]).diag()
    torch.testing.assert_close(torch.stack(rows), exact)


def unfitting() -> list[tuple[Distribution, Distribution]]:
    (p, _), (tanh, _), (clip, _) = gaussian(0), tanh_gaussian(0), clipped(0)
    (single, _), (several, _), (binary, _) = categorical(0), multi_categorical(0), bernoulli(0)
    wide = TanhGaussian(p.mean, p.log_std, LOW, HIGH + 1)
    small: Unsquashed = DiagonalGaussian(p.mean[..., :1], p.log_std[..., :1])
    return [
        (tanh, wide),
        (p, tanh),
        (p, small),
        (full(0)[0], small),
        (p, clip),
        (clip, ClippedGaussian(p.mean, p.log_std, LOW, HIGH + 1)),
        (beta(0)[0], Beta(torch.ones(1, 2), torch.ones(1, 2), LOW, HIGH + 1)),
        (single, Categorical(torch.zeros(4))),
        (several, MultiCategorical(torch.zeros(5), (3, 2))),
        (binary, Bernoulli(torch.zeros(3))),
        (several, binary),
        (single, p),
        (mixture(0)[0], small),
    ]


@pytest.mark.parametrize("index", range(13))
def test_other_actions_are_refused(index: int) -> None:
    p, q = unfitting()[index]
    with pytest.raises(RequestError, match="no KL divergence from"):
        p.kl_divergence(q, generator=seeded())
    with pytest.raises(RequestError, match="no KL divergence from"):
        q.kl_divergence(p, generator=seeded())
