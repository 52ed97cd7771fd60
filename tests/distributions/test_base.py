"""The interface of a distribution, tested for every family."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import AffineTransform, CumulativeDistributionTransform, Laplace

from pgtoolkit.distributions.base import Distribution, Unsquashed
from pgtoolkit.distributions.beta import Beta
from pgtoolkit.distributions.coupling import AffineCoupling
from pgtoolkit.distributions.discrete import Bernoulli, Categorical, Discrete, MultiCategorical
from pgtoolkit.distributions.gaussian import DiagonalGaussian, FullGaussian
from pgtoolkit.distributions.mixture import GaussianMixture
from pgtoolkit.distributions.squashed import Squashed, TanhGaussian
from pgtoolkit.distributions.transformed import Transformed, Uniform
from pgtoolkit.errors import RequestError

F64 = torch.float64
BATCH, SIZE = 5, 2
LOW = torch.tensor([-1.0, 0.5], dtype=F64)
HIGH = torch.tensor([1.0, 4.0], dtype=F64)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def leaf(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=F64).requires_grad_()


Made = tuple[Distribution, list[Tensor]]


def gaussian() -> tuple[DiagonalGaussian, list[Tensor]]:
    leaves = [leaf(BATCH, SIZE, seed=1), leaf(BATCH, SIZE, seed=2)]
    return DiagonalGaussian(leaves[0], leaves[1]), leaves


def tanh_gaussian() -> Made:
    distribution, leaves = gaussian()
    return TanhGaussian(distribution.mean, distribution.log_std, LOW, HIGH), leaves


def full_gaussian() -> tuple[FullGaussian, list[Tensor]]:
    leaves = [leaf(BATCH, SIZE, seed=1), leaf(BATCH, SIZE, SIZE, seed=2)]
    scale = leaves[1].tril(-1) + leaves[1].diagonal(dim1=-2, dim2=-1).exp().diag_embed()
    return FullGaussian(leaves[0], scale), leaves


def mixture() -> tuple[GaussianMixture, list[Tensor]]:
    shape = (BATCH, 3, SIZE)
    leaves = [leaf(BATCH, 3, seed=1), leaf(*shape, seed=2), leaf(*shape, seed=3)]
    return GaussianMixture(leaves[0], leaves[1], 0.3 * leaves[2]), leaves


def beta() -> Made:
    leaves = [leaf(BATCH, SIZE, seed=1), leaf(BATCH, SIZE, seed=2)]
    return Beta(leaves[0].exp(), leaves[1].exp(), LOW, HIGH), leaves


def uniform() -> Made:
    below, above = leaf(BATCH, SIZE, seed=1), leaf(BATCH, SIZE, seed=2)
    return Uniform(-below.exp(), above.exp()), [below, above]


def flow() -> tuple[Transformed, list[Tensor]]:
    weight, mean, scale = leaf(SIZE, seed=1), leaf(BATCH, SIZE, seed=2), leaf(BATCH, SIZE, seed=3)
    zeros = torch.zeros(BATCH, SIZE, dtype=F64)

    def conditioner(kept: Tensor) -> tuple[Tensor, Tensor]:
        return weight[0] * kept, torch.tanh(weight[1] * kept)

    chain = (
        AffineCoupling((True, False), conditioner),
        AffineCoupling((False, True), conditioner),
        AffineTransform(mean, scale.exp()),
    )
    return Transformed(DiagonalGaussian(zeros, zeros), chain), [weight, mean, scale]


def inverse_cdf() -> Made:
    mean, scale = leaf(BATCH, SIZE, seed=1), leaf(BATCH, SIZE, seed=2)
    zeros = torch.zeros(BATCH, SIZE, dtype=F64)
    quantile = CumulativeDistributionTransform(Laplace(mean, scale.exp())).inv
    return Transformed(Uniform(zeros, zeros + 1), (quantile,)), [mean, scale]


def squash(make: Callable[[], tuple[Unsquashed, list[Tensor]]]) -> Callable[[], Made]:
    def squashed() -> Made:
        base, leaves = make()
        return Squashed(base, LOW, HIGH), leaves

    return squashed


def categorical() -> Made:
    logits = leaf(BATCH, 4, seed=1)
    return Categorical(logits), [logits]


def multi_categorical() -> Made:
    logits = leaf(BATCH, 5, seed=1)
    return MultiCategorical(logits, (3, 2)), [logits]


def bernoulli() -> Made:
    logits = leaf(BATCH, SIZE, seed=1)
    return Bernoulli(logits), [logits]


CONTINUOUS: dict[str, Callable[[], Made]] = {
    "gaussian": gaussian,
    "tanh gaussian": tanh_gaussian,
    "full gaussian": full_gaussian,
    "mixture": mixture,
    "beta": beta,
    "uniform": uniform,
    "flow": flow,
    "inverse cdf": inverse_cdf,
    "squashed full gaussian": squash(full_gaussian),
    "squashed mixture": squash(mixture),
    "squashed flow": squash(flow),
}
DISCRETE: dict[str, Callable[[], Made]] = {
    "categorical": categorical,
    "multi-categorical": multi_categorical,
    "bernoulli": bernoulli,
}
ALL = CONTINUOUS | DISCRETE
NOISE_SIZE = {name: SIZE for name in ALL} | {
    "mixture": 3 + SIZE,
    "squashed mixture": 3 + SIZE,
    "categorical": 4,
    "multi-categorical": 5,
}


@pytest.mark.parametrize("name", ALL)
def test_samples_are_a_function_of_noise_row_by_row(name: str) -> None:
    """Leading sample dimensions broadcast through every method; samples are independent."""
    distribution, _ = ALL[name]()
    noise = distribution.draw_noise(seeded(4), (3, 2))
    assert noise.shape == (3, 2, BATCH, NOISE_SIZE[name])
    assert noise.dtype == F64
    pre_action = distribution.pre_action(noise)
    event = () if name == "categorical" else (SIZE,)
    assert pre_action.shape == (3, 2, BATCH, *event)
    action = distribution.squash(pre_action)
    by_pre_action = distribution.log_prob_of_pre_action(pre_action)
    by_action = distribution.log_prob(action)
    assert by_pre_action.shape == by_action.shape == (3, 2, BATCH)
    torch.testing.assert_close(by_pre_action, by_action)
    row = distribution.pre_action(noise[1, 1])
    torch.testing.assert_close(row, pre_action[1, 1], rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(distribution.log_prob_of_pre_action(row), by_pre_action[1, 1])
    entropy = distribution.entropy(noise)
    assert entropy.shape in ((BATCH,), (3, 2, BATCH))
    assert bool(entropy.isfinite().all())


@pytest.mark.parametrize("name", ALL)
def test_zero_noise_gives_the_mode(name: str) -> None:
    """Evaluation uses zero noise for the deterministic action."""
    distribution, _ = ALL[name]()
    zeros = torch.zeros(BATCH, NOISE_SIZE[name], dtype=F64)
    torch.testing.assert_close(distribution.mode, distribution.sample(zeros), rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", ALL)
def test_a_sample_carries_no_graph(name: str) -> None:
    """Neither has a sample with its density; the density's graph leads to the parameters only."""
    distribution, leaves = ALL[name]()
    noise = distribution.draw_noise(seeded(5))
    sample = distribution.sample(noise)
    action, log_prob = distribution.sample_with_log_prob(noise)
    assert not sample.requires_grad and not action.requires_grad
    assert torch.equal(action, sample)
    fixed = distribution.log_prob(action)
    torch.testing.assert_close(log_prob, fixed)
    found = torch.autograd.grad(log_prob.sum(), leaves, retain_graph=True)
    score = torch.autograd.grad(fixed.sum(), leaves)
    torch.testing.assert_close(found, score)
    assert all(float(gradient.abs().max()) > 0 for gradient in score)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_rsample_carries_the_graph_to_every_parameter(name: str) -> None:
    """The value of ``rsample`` is that of ``sample``."""
    distribution, leaves = CONTINUOUS[name]()
    noise = distribution.draw_noise(seeded(6))
    action = distribution.rsample(noise)
    torch.testing.assert_close(action, distribution.sample(noise), rtol=0, atol=1e-15)
    for gradient in torch.autograd.grad(action.sum(), leaves):
        assert float(gradient.abs().max()) > 0
        assert bool(gradient.isfinite().all())


@pytest.mark.parametrize("name", DISCRETE)
def test_a_choice_refuses_rsample_with_advice(name: str) -> None:
    """The error names the score function and the relaxations."""
    distribution, _ = DISCRETE[name]()
    assert isinstance(distribution, Discrete)
    with pytest.raises(RequestError, match=r"score function.*Gumbel-softmax.*REBAR"):
        distribution.rsample(generator=seeded())


@pytest.mark.parametrize("name", ALL)
def test_the_generator_decides_and_the_global_random_state_is_left_alone(name: str) -> None:
    """The global random state is neither used nor changed; without a generator it is an error."""
    torch.manual_seed(0)
    before = torch.get_rng_state()
    distribution, _ = ALL[name]()
    first = distribution.sample(generator=seeded(7))
    distribution.sample_with_log_prob(generator=seeded(8))
    distribution.entropy(generator=seeded(9))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, distribution.sample(generator=seeded(7)))
    generator = seeded(7)
    distribution.draw_noise(generator)
    many = [distribution.sample(generator=generator) for _ in range(5)]
    assert not all(torch.equal(first, sample) for sample in many)
    with pytest.raises(ValueError, match=r"noise.*Generator"):
        distribution.sample()


@pytest.mark.parametrize("name", ALL)
def test_distributions_are_values(name: str) -> None:
    """Setting an attribute of a distribution raises an error."""
    distribution, _ = ALL[name]()
    field = dataclasses.fields(distribution)[0].name  # type: ignore[arg-type]
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(distribution, field, torch.zeros(1))


@pytest.mark.parametrize("name", ["mixture", "beta", "squashed mixture"])
def test_an_implicit_sample_refuses_a_second_derivative(name: str) -> None:
    """It would be wrong. A derivative by the action itself may have a graph."""
    distribution, leaves = CONTINUOUS[name]()
    action = distribution.rsample(distribution.draw_noise(seeded(8)))
    value = action.square().sum()
    (by_action,) = torch.autograd.grad(value, action, create_graph=True)
    torch.testing.assert_close(by_action, 2 * action)
    with pytest.raises(RequestError, match="second derivative"):
        torch.autograd.grad(value, leaves, create_graph=True)
