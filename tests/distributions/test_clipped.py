"""The clipped Gaussian: densities of the unclipped one, actions within bounds."""

import math

import pytest
import torch

from pgtoolkit.diagnostics.per_trajectory import GradientRecorder
from pgtoolkit.distributions.clipped import ClippedGaussian, unit_box
from pgtoolkit.distributions.gaussian import DiagonalGaussian
from pgtoolkit.envs.analytic.exact import Phi
from pgtoolkit.policies.clipped import ClippedGaussianHead

LOW, HIGH = torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 3.0])
INF = float("inf")
KINDS = {
    "unit": (-1.0, 1.0, 0.0, 1.0),
    "offset": (10.0, 20.0, 15.0, 5.0),
    "wide": (0.0, 1000.0, 500.0, 500.0),
    "narrow": (-0.0078125, 0.0078125, 0.0, 0.0078125),
    "no width": (3.0, 3.0, 3.0, 0.0),
    "no bound": (-INF, INF, 0.0, 1.0),
    "lower bound": (5.0, INF, 6.0, 1.0),
    "upper bound": (-INF, 5.0, 4.0, 1.0),
}
"""Low, high, centre and scale of an entry of each kind."""


def make() -> ClippedGaussian:
    return ClippedGaussian(torch.tensor([[0.9, -2.0]]), torch.tensor([0.0, 1.0]), LOW, HIGH)


def test_its_density_and_entropy_are_the_gaussians() -> None:
    found, base = make(), DiagonalGaussian(make().mean, make().log_std)
    noise = torch.tensor([[2.0, -1.0]])
    pre_action = found.pre_action(noise)
    assert torch.equal(pre_action, base.pre_action(noise))
    assert torch.equal(
        found.log_prob_of_pre_action(pre_action), base.log_prob_of_pre_action(pre_action)
    )
    assert torch.equal(found.entropy(), base.entropy())


def test_its_actions_are_clipped() -> None:
    """``a = clip(1.5 + 1.5 u, 0, 3)`` in the second entry."""
    found = make()
    assert found.rsample(torch.tensor([[2.0, -1.0]])).tolist() == [[1.0, 0.0]]
    torch.testing.assert_close(found.mode, torch.tensor([[0.9, 0.0]]))
    expected = torch.tensor([[0.9, 1.5 + 1.5 * (0.5 * math.e - 2)]])
    torch.testing.assert_close(found.rsample(torch.tensor([[0.0, 0.5]])), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_the_unit_box_is_mapped_to_the_bounds(kind: str) -> None:
    low, high, centre, scale = KINDS[kind]
    found = unit_box(torch.tensor([low]), torch.tensor([high]))
    assert [x.item() for x in found] == [centre, scale]
    zero = torch.zeros(1)
    law = ClippedGaussian(zero, zero, torch.tensor([low]), torch.tensor([high]))
    assert law.mode.item() == centre
    for u in (-50.0, -1.0, -0.25, 0.5, 1.0, 50.0):
        assert law.squash(torch.tensor([u])).item() == min(max(centre + scale * u, low), high)


def test_its_derivative_carries_the_scale() -> None:
    """``da/du = scale`` inside and 0 outside, in all kinds of entries at once."""
    low, high, centre, scale = (torch.tensor(x) for x in zip(*KINDS.values(), strict=True))
    u = torch.tensor([[0.5] * len(KINDS), [7.0] * len(KINDS)], requires_grad=True)
    zero = torch.zeros(len(KINDS))
    law = ClippedGaussian(zero, zero, low, high)
    (found,) = torch.autograd.grad(law.squash(u).sum(), u)
    assert found[0].tolist() == scale.tolist()
    inside = (centre + 7 * scale <= high) & (centre + 7 * scale >= low)
    assert found[1].tolist() == torch.where(inside, scale, 0).tolist()


def test_a_density_of_the_action_is_that_of_u() -> None:
    """The inverse within the bounds; an entry without width counts as at ``u = 0``."""
    low, high, _, scale = (torch.tensor(x).double() for x in zip(*KINDS.values(), strict=True))
    mean, log_std = torch.full_like(low, 0.2), torch.full_like(low, -0.5)
    law, base = ClippedGaussian(mean, log_std, low, high), DiagonalGaussian(mean, log_std)
    u = torch.linspace(-0.9, 0.9, len(KINDS), dtype=torch.float64)
    expected = base.log_prob(torch.where(scale > 0, u, 0))
    torch.testing.assert_close(law.log_prob(law.squash(u)), expected)
    assert torch.equal(law.log_prob_of_pre_action(u), base.log_prob_of_pre_action(u))
    assert torch.equal(law.entropy(), base.entropy())


def test_on_the_unit_box_every_bit_is_that_of_a_plain_clip() -> None:
    """Actions, densities and gradients for bounds of -1 and 1, where nothing is to be scaled."""
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(500, 3, generator=generator).requires_grad_()
    noise, weight = (torch.randn(500, 3, generator=generator) for _ in range(2))
    one, log_std = torch.ones(3), torch.full((3,), -0.3)
    law, base = ClippedGaussian(mean, log_std, -one, one), DiagonalGaussian(mean, log_std)
    found, expected = law.rsample(noise), torch.clamp(base.pre_action(noise), -1, 1)
    assert torch.equal(found, expected) and bool((found.abs() == 1).any())
    gradients = [torch.autograd.grad((weight * x).sum(), mean)[0] for x in (found, expected)]
    assert torch.equal(*gradients)
    assert torch.equal(law.log_prob(found), base.log_prob(found))


def test_only_one_map_has_a_closed_form_divergence() -> None:
    zero, one = torch.zeros(1), torch.ones(1)
    law = ClippedGaussian(zero, zero, -one, one)
    assert law.closed_form_kl_divergence(ClippedGaussian(one, zero, -one, one)) == 0.5
    other = ClippedGaussian(one, zero, -one, one, centre=zero, scale=2 * one)
    assert law.closed_form_kl_divergence(other) is None


def test_its_score_is_unbiased_for_a_reward_of_the_clipped_action() -> None:
    """``d/dmu E[clip(10 + 4 u)] = 4 P(inside)``, ``u ~ N(0.5, 1)``, clipped to [6, 14]."""
    mean = torch.full((400_000, 1), 0.5, requires_grad=True)
    law = ClippedGaussian(mean, torch.zeros(1), torch.tensor([6.0]), torch.tensor([14.0]))
    action, pre_action = (
        f(torch.randn(400_000, 1, generator=torch.Generator().manual_seed(0)))
        for f in (law.rsample, law.pre_action)
    )
    score = law.log_prob_of_pre_action(pre_action.detach())
    (by_sample,) = torch.autograd.grad((action.detach().squeeze(-1) * score).sum(), mean)
    exact = 4 * (Phi(1.0 - 0.5) - Phi(-1.0 - 0.5))
    error = by_sample.std() / len(by_sample) ** 0.5
    assert (by_sample.mean() - exact).abs() < 4.5 * error


def test_the_heads_gradients_are_recorded_by_trajectory() -> None:
    generator = torch.Generator().manual_seed(0)
    head = ClippedGaussianHead(
        4, LOW, HIGH, std="state_independent", log_std_init=-0.5, generator=generator
    )
    features, weight = torch.randn(6, 3, 4, generator=generator), torch.arange(3.0)
    recorder = GradientRecorder(head)
    with recorder.recording():
        law = head(features)
        surrogate = (weight * law.log_prob_of_pre_action(torch.ones(6, 3, 2))).sum(0)
    expected = torch.autograd.grad(surrogate.sum(), list(head.parameters()), retain_graph=True)
    found = recorder.per_trajectory(surrogate)
    assert not recorder.without_rule()
    for name, gradient in zip(dict(head.named_parameters()), expected, strict=True):
        torch.testing.assert_close(found[name].sum(0), gradient, rtol=1e-4, atol=1e-5)
