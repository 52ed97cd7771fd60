"""Statistics of gradients on the device equal those on the processor."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from pgtoolkit.diagnostics.monitor import GradientMonitor, Pair, variance_by_step
from pgtoolkit.diagnostics.paired import PairStatistics
from pgtoolkit.diagnostics.per_trajectory import per_sample_gradients, per_trajectory_gradients
from pgtoolkit.diagnostics.statistics import GradientStatistics
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.estimators.horizon_study import measure_horizon
from pgtoolkit.estimators.mixing import cross_fitted_step_weights, cross_fitted_weight
from pgtoolkit.policies.gaussian import GaussianPolicy
from pgtoolkit.rollouts.evaluation import evaluate
from pgtoolkit.rollouts.reward_normalizer import RewardNormalizer
from pgtoolkit.rollouts.rollout import collect, reset
from pgtoolkit.seeding import stream
from tests.cuda.same_draws import same_draws

pytestmark = pytest.mark.cuda

CPU = torch.device("cpu")
N = 24
PENDULUM, SHORT = Pendulum(), Pendulum()
SHORT.max_episode_steps = 15


def gradients(place: torch.device, seed: int, mean: float = 0.3) -> dict[str, Tensor]:
    """Gradients of 24 trajectories by two parameters, with a signal."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"weight": (N, 4, 3), "bias": (N, 4)}
    return {n: (mean + torch.randn(s, generator=generator)).to(place) for n, s in shapes.items()}


def numbers(value: Any) -> list[Tensor]:
    """Every tensor and number of a dataclass, in order."""
    if dataclasses.is_dataclass(value):
        fields = dataclasses.fields(value)
        return [x for field in fields for x in numbers(getattr(value, field.name))]
    if isinstance(value, dict):
        return [x for one in value.values() for x in numbers(one)]
    if isinstance(value, tuple | list):
        return [x for one in value for x in numbers(one)]
    if isinstance(value, Tensor):
        return [value.detach().cpu()]
    return [torch.tensor(float(value))] if isinstance(value, int | float) else []


def require_equal(here: Any, there: Any) -> None:
    pairs = list(zip(numbers(here), numbers(there), strict=True))
    assert pairs
    for one, other in pairs:
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5, equal_nan=True)


def test_statistics_and_intervals(device: torch.device) -> None:
    found = [GradientStatistics.of(gradients(place, 0)) for place in (CPU, device)]
    require_equal(*found)
    for name in ("snr", "noise_scale", "effective_dimension", "detectability", "significance"):
        require_equal(getattr(found[0], name), getattr(found[1], name))


def test_statistics_of_many(device: torch.device) -> None:
    """More trajectories than one Gram matrix takes."""

    def many(place: torch.device) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(0)
        return {"weight": torch.randn(100, 5, generator=generator).to(place)}

    require_equal(*(GradientStatistics.of(many(place)) for place in (CPU, device)))


def test_pairs(device: torch.device) -> None:
    found = []
    for place in (CPU, device):
        first, second = gradients(place, 0), gradients(place, 1)
        statistics = GradientStatistics.of(first), GradientStatistics.of(second)
        found.append(PairStatistics.of(first, second, statistics))
    require_equal(*found)


def test_weights_of_the_mix(device: torch.device) -> None:
    found = []
    for place in (CPU, device):
        score, pathwise = gradients(place, 0), gradients(place, 1)
        steps = score["weight"].permute(1, 0, 2), pathwise["weight"].permute(1, 0, 2)
        found.append([cross_fitted_weight(score, pathwise), cross_fitted_step_weights(*steps)])
    require_equal(*found)


@pytest.mark.parametrize("hidden", [(8,), (8, 8)])
def test_the_gradient_of_every_trajectory(hidden: tuple[int, ...], device: torch.device) -> None:
    """By layers' rules, by vmap, and by a row of the identity."""
    found = []
    for place in (CPU, device):
        policy = GaussianPolicy(PENDULUM.observation_space, PENDULUM.action_space, hidden)
        with torch.no_grad():
            generator = torch.Generator().manual_seed(2)
            for parameter in policy.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        policy = policy.to(place)
        obs = torch.linspace(-1, 1, 2 * N * 3).reshape(2, N, 3).to(place)
        action = torch.linspace(-1, 1, 2 * N).reshape(2, N, 1).to(place)

        def surrogate(policy: Any = policy, obs: Tensor = obs, action: Tensor = action) -> Tensor:
            found: Tensor = policy(obs).log_prob_of_pre_action(action).sum(0)
            return found

        by_layer = per_trajectory_gradients(policy, surrogate)
        by_row = per_sample_gradients(surrogate(), dict(policy.named_parameters()), chunk=7)
        for name, value in by_layer.items():
            torch.testing.assert_close(value, by_row[name], rtol=1e-3, atol=1e-4)
        found.append(by_layer)
    require_equal(*found)


def test_the_monitors_report(device: torch.device) -> None:
    """Every tag is a number, whatever the device of the gradients."""
    found = []
    for place in (CPU, device):
        first, second = gradients(place, 0), gradients(place, 1)
        monitor = GradientMonitor(1)
        report = monitor.report(
            {"score_function": first, "pathwise": second}, [Pair(first, second)]
        )
        found.append(report | {"by_step": variance_by_step(first["weight"].permute(1, 0, 2))})
    assert found[0].keys() == found[1].keys()
    require_equal(*found)


def test_the_horizon_study(device: torch.device) -> None:
    """``pgtoolkit variance``: all estimators at one horizon on the same trajectories."""
    found = []
    for place in (CPU, device):
        with same_draws():
            env = DifferentiableVectorEnv(PENDULUM, N, device=place)
            policy = GaussianPolicy(PENDULUM.observation_space, PENDULUM.action_space, (8,))
            with torch.no_grad():
                generator = torch.Generator().manual_seed(2)
                for parameter in policy.parameters():
                    parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
            measured = measure_horizon(
                env,
                policy.to(place),
                5,
                trajectories=N,
                estimators=("score_function", "pathwise", "mixed"),
                gamma=0.99,
                seed=0,
            )
        found.append([(m.variance, m.signal, m.snr, m.mean_length) for m in measured])
    for here, there in zip(*found, strict=True):
        assert there == pytest.approx(here, rel=1e-2, nan_ok=True)


def test_evaluation_and_reward_scale(device: torch.device) -> None:
    """Whole episodes on the device; the rewards' running scale from its windows."""
    found = []
    for place in (CPU, device):
        with same_draws():
            env = DifferentiableVectorEnv(SHORT, 3, device=place)
            policy = GaussianPolicy(PENDULUM.observation_space, PENDULUM.action_space, (8,))
            with torch.no_grad():
                for parameter in policy.parameters():
                    parameter.zero_()
            policy = policy.to(place)
            result = evaluate(
                env, policy, episodes=5, seed=1, device=place, stochastic=True, chunk=10
            )
            start = reset(env, seed=2, device=place)
            noise = policy.draw_noise(12, 3, generator=stream(0, "noise", place))
            window, _ = collect(env, policy, start, noise)
            normalizer = RewardNormalizer(3, 0.99)
            normalizer.update(window)
            scaled = normalizer(window).reward
            assert scaled.device.type == place.type
        found.append([torch.tensor(result.returns), scaled.cpu(), normalizer.scale])
    for here, there in zip(*found, strict=True):
        torch.testing.assert_close(there, here, rtol=1e-3, atol=1e-3)
