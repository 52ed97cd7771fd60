"""Policies: supported spaces, the two losses, and the normaliser that acting does not change."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from pgtoolkit.distributions.gaussian import DiagonalGaussian
from pgtoolkit.distributions.squashed import TanhGaussian
from pgtoolkit.errors import RequestError
from pgtoolkit.networks.mlp import Activation, Std
from pgtoolkit.networks.normalizer import NoNormalizer, ObservationNormalizer
from pgtoolkit.policies.discrete import CategoricalHead, CategoricalPolicy
from pgtoolkit.policies.factory import DistributionName, make_policy
from pgtoolkit.policies.gaussian import GaussianHead, GaussianPolicy
from pgtoolkit.policies.policy import Policy

OBS = spaces.Box(-np.inf, np.inf, (3,), np.float32)
UNBOUNDED = spaces.Box(-np.inf, np.inf, (2,), np.float32)
BOUNDED = spaces.Box(np.array([-2.0, 1.0], np.float32), np.array([2.0, 5.0], np.float32))


def head(policy: Policy) -> nn.Linear:
    """The policy's last layer."""
    layer = policy.head.output
    assert isinstance(layer, nn.Linear)
    return layer


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed))


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings that an agent's configuration has."""

    hidden: tuple[int, ...] = (8,)
    activation: Activation = "tanh"
    layer_norm: bool = False
    first_bias: float = 0.0
    distribution: DistributionName = "gaussian"
    std: Std = "state_independent"
    log_std_init: float = -0.5
    normalize_observations: bool = False


def test_a_bounded_box_is_squashed_and_an_unbounded_one_is_not() -> None:
    """The kind of the distribution follows the action space; actions respect the bounds."""
    bounded, unbounded = GaussianPolicy(OBS, BOUNDED), GaussianPolicy(OBS, UNBOUNDED)
    obs = normal(50, 3)
    assert isinstance(unbounded(obs), DiagonalGaussian)
    assert isinstance(bounded(obs), TanhGaussian)
    action = bounded.pathwise_action(obs, 3 * normal(50, 2, seed=1))
    assert bool((action >= torch.tensor([-2.0, 1.0])).all())
    assert bool((action <= torch.tensor([2.0, 5.0])).all())


def test_make_policy_takes_the_policy_that_fits_the_action_space() -> None:
    """Gaussian for a Box, categorical for Discrete, with all settings passed on."""
    settings = Settings(hidden=(5, 6), layer_norm=True, normalize_observations=True)
    gaussian = make_policy(settings, OBS, BOUNDED, seeded())
    choice = make_policy(settings, OBS, spaces.Discrete(4), seeded())
    assert isinstance(gaussian.head, GaussianHead) and isinstance(choice.head, CategoricalHead)
    for policy, outputs in ((gaussian, 2), (choice, 4)):
        assert isinstance(policy.torso, nn.Sequential)
        assert [m.out_features for m in policy.torso if isinstance(m, nn.Linear)] == [5, 6]
        assert head(policy).out_features == outputs
        assert sum(isinstance(m, nn.LayerNorm) for m in policy.torso) == 2
        assert isinstance(policy.normalizer, ObservationNormalizer)
        assert policy.noise_size == outputs
    assert isinstance(gaussian.head, GaussianHead) and gaussian.head.std is not None
    assert gaussian.head.std.log_std.tolist() == [-0.5, -0.5]


REFUSED = {
    "dictionary of observations": (spaces.Dict({"a": OBS}), UNBOUNDED, "FlattenObservation"),
    "image": (spaces.Box(0, 255, (8, 8), np.uint8), UNBOUNDED, "FlattenObservation"),
    "image and choices": (
        spaces.Box(0, 255, (8, 8), np.uint8),
        spaces.Discrete(2),
        "FlattenObservation",
    ),
    "a table of choices": (OBS, spaces.MultiDiscrete(np.array([[2, 3]])), "one row"),
    "several choices that start at 1": (OBS, spaces.MultiDiscrete([2, 3], start=[1, 1]), "at 0"),
    "a table of binary variables": (OBS, spaces.MultiBinary((2, 3)), "one row"),
    "matrix of actions": (OBS, spaces.Box(-1, 1, (2, 2), np.float32), "one dimension"),
    "bounded below only": (OBS, spaces.Box(0, np.inf, (2,), np.float32), "both"),
    "bounded in one dimension only": (
        OBS,
        spaces.Box(np.array([-1, -np.inf], np.float32), np.array([1, np.inf], np.float32)),
        "both",
    ),
    "choices that start at 1": (OBS, spaces.Discrete(3, start=1), "start at 0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_space_that_fits_no_policy_is_refused_with_advice(case: str) -> None:
    """The error says which space or wrapper would do."""
    observation_space, action_space, advice = REFUSED[case]
    with pytest.raises(RequestError, match=advice):
        make_policy(Settings(), observation_space, action_space, seeded())  # type: ignore[arg-type]


@pytest.mark.parametrize("log_std_init", [-3.0, -0.5, 0.0, 1.0])
def test_a_state_dependent_std_starts_where_it_is_told(log_std_init: float) -> None:
    """Exactly where the features vanish, and nearly so elsewhere: the head starts small."""
    policy = GaussianPolicy(OBS, BOUNDED, std="state_dependent", log_std_init=log_std_init)
    with torch.no_grad():
        at_zero, elsewhere = policy(torch.zeros(1, 3)), policy(normal(20, 3))
    assert isinstance(at_zero, TanhGaussian) and isinstance(elsewhere, TanhGaussian)
    assert at_zero.log_std.flatten().tolist() == pytest.approx([log_std_init] * 2, abs=1e-5)
    assert float((elsewhere.log_std - log_std_init).abs().max()) < 0.2
    assert float(elsewhere.log_std.std()) > 0


def test_a_state_dependent_std_stays_within_its_range() -> None:
    """Log-sigma is in [-5, 2] for any network output."""
    policy = GaussianPolicy(OBS, UNBOUNDED, (), std="state_dependent")
    obs = torch.tensor([[1e6, 0.0, 0.0], [-1e6, 0.0, 0.0]])
    log_std = policy(obs).log_std  # type: ignore[attr-defined]
    assert sorted(log_std[:, 0].tolist()) == pytest.approx([-5.0, 2.0])


def test_no_hidden_layers_is_a_linear_policy() -> None:
    """mean(a x + b y) = a mean(x) + b mean(y) when a + b = 1; parameters W, b and log-sigma."""
    policy = GaussianPolicy(OBS, UNBOUNDED, ())
    assert sorted(tuple(p.shape) for p in policy.parameters()) == [(2,), (2,), (2, 3)]
    with torch.no_grad():
        head(policy).bias.copy_(torch.tensor([1.0, -2.0]))
    x, y = normal(4, 3), normal(4, 3, seed=1)
    mixed = policy(0.3 * x + 0.7 * y).mode
    torch.testing.assert_close(mixed, 0.3 * policy(x).mode + 0.7 * policy(y).mode)


def test_construction_leaves_the_global_random_state_alone() -> None:
    """The weights are a function of the generator: equal seeds equal weights, others others."""
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = GaussianPolicy(OBS, BOUNDED, generator=seeded(1), layer_norm=True)
    again = GaussianPolicy(OBS, BOUNDED, generator=seeded(1), layer_norm=True)
    other = GaussianPolicy(OBS, BOUNDED, generator=seeded(2), layer_norm=True)
    choice = CategoricalPolicy(OBS, spaces.Discrete(3))
    first.draw_noise(4, generator=seeded())
    choice.draw_noise(4, generator=seeded())
    assert torch.equal(torch.get_rng_state(), before)
    obs = normal(4, 3)
    assert torch.equal(first(obs).mode, again(obs).mode)
    assert not torch.equal(first(obs).mode, other(obs).mode)


def test_the_first_actions_lie_near_the_middle_of_the_bounds() -> None:
    """The last layer starts a hundred times smaller than the others: no saturation at first."""
    policy = GaussianPolicy(OBS, BOUNDED)
    off_centre = policy(normal(100, 3)).mode.detach() - torch.tensor([0.0, 3.0])
    assert float(off_centre.abs().max()) < 0.2


@pytest.mark.parametrize("action_space", [BOUNDED, UNBOUNDED], ids=["squashed", "unbounded"])
def test_a_reparameterised_action_that_is_not_detached_has_no_score_for_the_mean(
    action_space: spaces.Box,
) -> None:
    """The trap: for a Gaussian the path through the action cancels the score exactly.

    ``log N(mu + sigma eps; mu, sigma)`` does not depend on mu. The loss that detaches has the true
    score ``eps / sigma``. (After squashing, the Jacobian's own derivative is left in the trap.)
    """
    policy = GaussianPolicy(OBS, action_space, ())
    obs, noise = torch.zeros(1, 3), torch.tensor([[0.7, -1.3]])
    bias = head(policy).bias
    distribution = policy(obs)
    pre_action = distribution.pre_action(noise)
    trapped = distribution.log_prob_of_pre_action(pre_action)
    if isinstance(distribution, TanhGaussian):
        trapped = trapped + distribution.log_abs_det_jacobian(pre_action)
    (wrong,) = torch.autograd.grad(trapped.sum(), bias, retain_graph=True)
    assert wrong.tolist() == [0.0, 0.0]
    loss = policy.log_derivative_loss(obs, pre_action, torch.ones(1))
    (right,) = torch.autograd.grad(-loss.sum(), bias)
    torch.testing.assert_close(right, noise[0])  # sigma = 1


def test_the_log_derivative_loss_detaches_its_weight() -> None:
    """The loss has no gradient by the weight, though the weight has a graph."""
    policy = GaussianPolicy(OBS, UNBOUNDED, ())
    weight = torch.tensor([2.0, 3.0], requires_grad=True)
    pre_action = normal(2, 2).requires_grad_()
    loss = policy.log_derivative_loss(normal(2, 3), pre_action, weight)
    gradients = torch.autograd.grad(
        loss.sum(), [weight, pre_action, head(policy).bias], allow_unused=True
    )
    assert gradients[0] is None and gradients[1] is None
    assert gradients[2] is not None


def test_the_log_derivative_loss_is_minus_weight_times_log_density() -> None:
    """Unreduced, one entry a sample, also with a time axis and for discrete actions."""
    obs, weight = normal(5, 4, 3), normal(5, 4, seed=1)
    gaussian = GaussianPolicy(OBS, BOUNDED)
    pre_action = normal(5, 4, 2, seed=2)
    loss = gaussian.log_derivative_loss(obs, pre_action, weight)
    torch.testing.assert_close(loss, -weight * gaussian(obs).log_prob_of_pre_action(pre_action))
    choice = CategoricalPolicy(OBS, spaces.Discrete(3))
    action = torch.arange(20).reshape(5, 4) % 3
    loss = choice.log_derivative_loss(obs, action, weight)
    torch.testing.assert_close(loss, -weight * choice(obs).log_prob(action))


def test_a_weight_of_another_shape_is_refused() -> None:
    """[N] times [N, 1] would be [N, N], and nothing would complain."""
    policy = GaussianPolicy(OBS, UNBOUNDED)
    with pytest.raises(ValueError, match="weight has shape"):
        policy.log_derivative_loss(normal(4, 3), normal(4, 2), torch.ones(4, 1))
    with pytest.raises(ValueError, match="weight has shape"):
        policy.log_derivative_loss(normal(4, 3), normal(4, 2), torch.ones(()))


@pytest.mark.parametrize("std", ["state_independent", "state_dependent"])
def test_the_pathwise_action_has_the_analytic_derivative(std: Std) -> None:
    """da/dmu = c (1 - tanh(u)^2), da/dlog_std = that times sigma eps; c is half the range."""
    policy = GaussianPolicy(OBS, BOUNDED, (), std=std, log_std_init=-0.7)
    obs, noise = torch.zeros(6, 3), normal(6, 2)
    bias = head(policy).bias
    with torch.no_grad():
        bias[:2] = torch.tensor([0.4, -0.9])
    sigma = math.exp(-0.7)
    u = torch.tensor([0.4, -0.9]) + sigma * noise
    by_mean = torch.tensor([2.0, 2.0]) * (1 - torch.tanh(u).square())
    assert isinstance(policy.head, GaussianHead)
    leaves = [bias] if policy.head.std is None else [bias, policy.head.std.log_std]
    found = torch.autograd.grad(policy.pathwise_action(obs, noise).sum(), leaves)
    torch.testing.assert_close(found[0][:2], by_mean.sum(0))
    by_log_std = (by_mean * sigma * noise).sum(0)
    if policy.head.std is not None:
        torch.testing.assert_close(found[1], by_log_std)
    else:
        # log_std = -1.5 + 3.5 tanh(b): its slope is 3.5 (1 - ((log_std + 1.5) / 3.5)^2)
        slope = 3.5 * (1 - ((-0.7 + 1.5) / 3.5) ** 2)
        torch.testing.assert_close(found[0][2:], slope * by_log_std)


def test_a_categorical_policy_refuses_the_pathwise_action_with_advice() -> None:
    """A choice has no derivative; the error advises the score function."""
    policy = CategoricalPolicy(OBS, spaces.Discrete(3))
    with pytest.raises(RequestError, match="score function"):
        policy.pathwise_action(normal(2, 3), torch.zeros(2, 3))


def normalising() -> tuple[Policy, ObservationNormalizer]:
    policy = GaussianPolicy(OBS, UNBOUNDED, normalize_observations=True)
    assert isinstance(policy.normalizer, ObservationNormalizer)
    return policy, policy.normalizer


def test_acting_does_not_change_the_normaliser() -> None:
    """Neither acting nor the losses change it, in training mode or in evaluation mode."""
    policy, normalizer = normalising()
    normalizer.update(5 + 3 * normal(7, 4, 3), torch.ones(7, 4, dtype=torch.bool))
    before = {name: buffer.clone() for name, buffer in normalizer.named_buffers()}
    for mode in (True, False):
        policy.train(mode)
        policy(normal(9, 3, seed=1))
        policy.log_derivative_loss(normal(9, 3, seed=2), normal(9, 2), torch.ones(9))
        policy.pathwise_action(normal(9, 3, seed=3), normal(9, 2))
    for name, buffer in normalizer.named_buffers():
        assert torch.equal(buffer, before[name])


def test_an_update_does_not_break_a_graph_that_is_still_open() -> None:
    """The statistics are replaced, not written into: backward still uses the old ones."""
    policy, normalizer = normalising()
    obs = normal(4, 3).requires_grad_()
    action = policy.pathwise_action(obs, normal(4, 2))
    (before,) = torch.autograd.grad(action.sum(), obs, retain_graph=True)
    normalizer.update(7 + 3 * normal(1, 50, 3), torch.ones(1, 50, dtype=torch.bool))
    (after,) = torch.autograd.grad(action.sum(), obs)
    assert torch.equal(before, after)
    (fresh,) = torch.autograd.grad(policy.pathwise_action(obs, normal(4, 2)).sum(), obs)
    assert not torch.allclose(before, fresh)


def test_a_saved_policy_is_whole() -> None:
    """The policy's ``state_dict`` contains the normaliser."""
    policy, normalizer = normalising()
    normalizer.update(5 + normal(7, 4, 3), torch.ones(7, 4, dtype=torch.bool))
    other = GaussianPolicy(OBS, UNBOUNDED, normalize_observations=True, generator=seeded(5))
    other.load_state_dict(policy.state_dict())
    obs = normal(4, 3)
    assert torch.equal(policy(obs).mode, other(obs).mode)


def test_without_normalisation_observations_pass_unchanged() -> None:
    """Updating a policy's missing normaliser changes nothing."""
    policy: Policy = CategoricalPolicy(OBS, spaces.Discrete(2))
    assert isinstance(policy.normalizer, NoNormalizer)
    obs = normal(4, 3)
    policy.normalizer.update(obs.unsqueeze(0), torch.ones(1, 4, dtype=torch.bool))
    assert policy.normalizer(obs) is obs


def test_boxes_of_whole_numbers_are_no_actions_of_a_gaussian() -> None:
    """A Gaussian would give the environment fractions."""
    whole = spaces.Box(0, 5, (2,), np.int32)
    with pytest.raises(RequestError, match="whole numbers"):
        GaussianPolicy(spaces.Box(-1.0, 1.0, (2,)), whole)
