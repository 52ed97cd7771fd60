"""The clipped Gaussian: densities of the unclipped one, actions within bounds."""

import torch

from pgtoolkit.diagnostics.per_trajectory import GradientRecorder
from pgtoolkit.distributions.clipped import ClippedGaussian
from pgtoolkit.distributions.gaussian import DiagonalGaussian
from pgtoolkit.envs.analytic.exact import Phi
from pgtoolkit.policies.gaussian import ClippedGaussianHead

LOW, HIGH = torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 3.0])


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
    found = make()
    assert found.rsample(torch.tensor([[2.0, -1.0]])).tolist() == [[1.0, 0.0]]
    torch.testing.assert_close(found.mode, torch.tensor([[0.9, 0.0]]))
    inside = found.rsample(torch.zeros(1, 2))
    torch.testing.assert_close(inside[0, 0], torch.tensor(0.9))


def test_its_score_is_unbiased_for_a_reward_of_the_clipped_action() -> None:
    """``d/dmu E[clip(u)] = P(inside)``, ``u ~ N(0.5, 1)`` clipped to [-1, 1]."""
    mean = torch.full((400_000, 1), 0.5, requires_grad=True)
    law = ClippedGaussian(mean, torch.zeros(1), torch.tensor([-1.0]), torch.tensor([1.0]))
    action, pre_action = (
        f(torch.randn(400_000, 1, generator=torch.Generator().manual_seed(0)))
        for f in (law.rsample, law.pre_action)
    )
    score = law.log_prob_of_pre_action(pre_action.detach())
    (by_sample,) = torch.autograd.grad((action.detach().squeeze(-1) * score).sum(), mean)
    exact = Phi(1.0 - 0.5) - Phi(-1.0 - 0.5)
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
