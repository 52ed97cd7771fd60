import math

import pytest
import torch
from torch import Tensor

from pgtoolkit.envs.analytic.step import Step, step_moments
from pgtoolkit.envs.differentiable import GradientInfo
from pgtoolkit.errors import RequestError


def rewards(env: Step, actions: Tensor) -> Tensor:
    """Rewards of one step with each action ``[N]``."""
    state = env.initial(len(actions), torch.Generator())
    action = actions.unsqueeze(-1)
    return env.reward(state, action, env.transition(state, action, None))


def test_the_reward_is_one_beyond_the_threshold_only() -> None:
    actions = torch.tensor([-1.0, 0.5, 0.5001, 3.0], requires_grad=True)
    found = rewards(Step(threshold=0.5), actions)
    assert found.tolist() == [0, 0, 1, 1]
    (gradient,) = torch.autograd.grad(found.sum(), actions)
    assert gradient.tolist() == [0, 0, 0, 0]


def test_the_smooth_step_is_a_normal_distribution_function() -> None:
    actions = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64, requires_grad=True)
    env = Step(threshold=0.5, smoothing=0.4)
    assert rewards(env, actions).tolist() == pytest.approx(
        [0.15865525393145707, 0.5, 0.8413447460685429]
    )
    assert torch.autograd.gradcheck(lambda a: rewards(env, a), (actions,))


def test_the_quality_of_the_derivative_is_said() -> None:
    assert Step().gradient == GradientInfo(reward="approximate", contacts="stiff")
    assert Step(smoothing=0.1).gradient == GradientInfo(contacts="smooth")


def test_published_values_of_the_heaviside() -> None:
    """The published values: a = 0, and m = .5, at sigma 1."""
    by_mean, by_sigma = Step().exact_gradient(0.0, 1.0)
    assert by_mean.gradient == pytest.approx(0.39894228, abs=6e-9)
    assert by_mean.score_function_variance == pytest.approx(0.34084506, abs=6e-9)
    assert by_mean.optimal_baseline == 0.5
    assert by_mean.optimal_baseline_variance == pytest.approx(0.09084506, abs=6e-9)
    assert by_sigma.gradient == 0.0
    by_mean, by_sigma = Step(threshold=-0.5).exact_gradient(0.0, 1.0)
    assert by_mean.gradient == pytest.approx(0.35206533, abs=6e-9)
    assert by_mean.score_function_variance == pytest.approx(0.39147980, abs=6e-9)
    assert by_mean.optimal_baseline == pytest.approx(0.51542980, abs=6e-9)
    assert by_mean.optimal_baseline_variance == pytest.approx(0.12581193, abs=6e-9)
    assert by_sigma.gradient == pytest.approx(-0.17603266, abs=6e-9)
    assert by_sigma.score_function_variance == pytest.approx(1.13189659, abs=6e-9)
    for exact in (by_mean, by_sigma):
        assert exact.pathwise_mean == exact.pathwise_variance == 0.0
        assert exact.pathwise_bias == -exact.gradient


@pytest.mark.parametrize(
    ("nu", "expected"),
    [
        (1.0, 0.01431431),
        (0.3, 0.20950685),
        (0.1, 0.86827370),
        (0.03, 3.1861016),
        (0.01, 9.80745259),
        (0.001, 99.19182652),
    ],
)
def test_published_pathwise_variances_of_the_smooth_step(nu: float, expected: float) -> None:
    """At m = .5 and sigma 1 they grow as 1 / nu, and the score function's variances do not."""
    exact = Step(smoothing=nu).exact_gradient(0.5, 1.0).mean
    assert exact.pathwise_variance == pytest.approx(expected, abs=6e-8, rel=0)
    assert exact.score_function_variance < 0.42 and exact.pathwise_bias == 0.0


def test_the_score_function_does_not_see_a_little_smoothing() -> None:
    """Gradient, variance and best baseline of smoothing 1e-6 are those of the jump."""
    for jump, smooth in zip(step_moments(0.3, 0.8, 0.0), step_moments(0.3, 0.8, 1e-6), strict=True):
        for name in ("gradient", "score_function_variance", "optimal_baseline_variance"):
            assert getattr(smooth, name) == pytest.approx(getattr(jump, name), rel=1e-5)
        assert smooth.pathwise_variance > 1e4


def test_a_hundred_samples_mostly_miss_a_steep_rise() -> None:
    """Smoothing .001: the batch measures next to no variance, where the true one is 99.19.

    No action of 100 comes within 3 smoothings with probability .809.
    """
    env = Step(smoothing=0.001)
    generator = torch.Generator().manual_seed(0)
    actions = (0.5 + torch.randn(300, 100, generator=generator, dtype=torch.float64)).flatten()
    actions.requires_grad_()
    (slopes,) = torch.autograd.grad(rewards(env, actions).sum(), actions)
    batches = slopes.reshape(300, 100)
    missed = (actions.detach().reshape(300, 100).abs() > 0.003).all(1)
    expected = 0.809
    assert abs(float(missed.double().mean()) - expected) < 4.5 * math.sqrt(
        expected * (1 - expected) / 300
    )
    assert float(batches[missed].var(1).max()) < 2.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"threshold": math.inf}, "threshold is inf"), ({"smoothing": -0.1}, "smoothing is -0.1")],
)
def test_wrong_arguments_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Step(**arguments)
