"""Estimators on the device equal those on the processor, in value and in gradient."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch import distributions as td

from pgtoolkit.distributions.beta import Beta
from pgtoolkit.distributions.discrete import Bernoulli, Categorical
from pgtoolkit.distributions.gaussian import DiagonalGaussian
from pgtoolkit.distributions.mixture import GaussianMixture
from pgtoolkit.distributions.squashed import TanhGaussian
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.estimators.bias_limited import aobg_weight
from pgtoolkit.estimators.catalogue import CATALOGUE
from pgtoolkit.estimators.expectation import expectation
from pgtoolkit.estimators.returns import gae, reward_to_go, td_lambda_returns
from pgtoolkit.estimators.signals import Signals
from pgtoolkit.estimators.surrogates import matched_score_weight, window_objective
from pgtoolkit.networks.value import HLGauss, QEnsemble, QFunction, SquaredError
from pgtoolkit.policies.factory import DistributionName, make_policy
from pgtoolkit.rollouts.replay import ReplayBuffer
from pgtoolkit.rollouts.rollout import reset, unroll
from pgtoolkit.rollouts.transitions import Transitions
from pgtoolkit.seeding import stream
from tests.cuda.same_draws import same_draws

pytestmark = pytest.mark.cuda

CPU = torch.device("cpu")
SMOOTH = ("score_function", "pathwise", "mixed")
DISCRETE = ("score_function", "rebar", "straight_through", "gumbel_softmax")

Make = Callable[[Tensor], Any]
DISTRIBUTIONS: dict[str, tuple[Make, tuple[str, ...]]] = {
    "gaussian": (lambda x: DiagonalGaussian(x, 0.3 * x), (*SMOOTH, "measure_valued")),
    "tanh": (
        lambda x: TanhGaussian(x, 0.3 * x, low=x.new_full((2,), -1.0), high=x.new_full((2,), 2.0)),
        SMOOTH,
    ),
    "mixture": (
        lambda x: GaussianMixture(
            x, torch.stack([x, -x]).reshape(2, 2), torch.stack([0.1 * x, 0.2 * x]).reshape(2, 2)
        ),
        SMOOTH,
    ),
    "beta": (lambda x: Beta(1.5 + x.square(), 2 + x.square(), x - 3, x + 3), SMOOTH[:1]),
    "categorical": (Categorical, DISCRETE),
    "bernoulli": (Bernoulli, DISCRETE),
}
CASES = [(name, method) for name, (_, methods) in DISTRIBUTIONS.items() for method in methods]


def cubic(x: Tensor) -> Tensor:
    x = x.to(torch.float64)
    powers = x + 0.5 * x.square() - 0.1 * x**3
    return powers.sum(-1) if x.dim() > 1 else powers


@pytest.mark.parametrize(("name", "method"), CASES)
def test_expectations(name: str, method: Any, device: torch.device) -> None:
    """Value and gradient of every method, by our distributions, with equal draws."""
    make = DISTRIBUTIONS[name][0]
    found = []
    for place in (CPU, device):
        with same_draws():
            x = torch.tensor([0.3, -0.7], device=place, dtype=torch.float64, requires_grad=True)
            generator = torch.Generator(place).manual_seed(1)
            surrogate = expectation(
                cubic, make(x), method=method, num_samples=50, generator=generator
            )
            (gradient,) = torch.autograd.grad(surrogate.mean(), x)
        assert surrogate.device.type == gradient.device.type == place.type
        found.append((surrogate.detach().cpu(), gradient.cpu()))
    for here, there in zip(*found, strict=True):
        torch.testing.assert_close(there, here, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("method", SMOOTH)
def test_expectations_of_torch_distributions(method: Any, device: torch.device) -> None:
    """They draw from torch's global generators, whose states stay as they were."""
    x = torch.tensor([0.3, -0.7], device=device, requires_grad=True)
    generator = torch.Generator(device).manual_seed(1)
    before = torch.get_rng_state()
    surrogate = expectation(
        cubic, td.Normal(x, x.exp()), method=method, num_samples=50, generator=generator
    )
    (gradient,) = torch.autograd.grad(surrogate.mean(), x)
    assert gradient.device.type == device.type and bool(gradient.isfinite().all())
    assert torch.equal(before, torch.get_rng_state())


def policy_on(place: torch.device, distribution: DistributionName = "gaussian", **kw: Any) -> Any:
    from pgtoolkit.agents.shac import ShacConfig

    env = Pendulum()
    config = ShacConfig(hidden=(8,), distribution=distribution, num_envs=6, **kw)
    made = make_policy(config, env.observation_space, env.action_space, stream(0, "policy weights"))
    return made.to(place)


def window_on(place: torch.device, policy: Any) -> Any:
    env = DifferentiableVectorEnv(Pendulum(), 8, device=place)
    start = reset(env, seed=0, device=place)
    noise = policy.draw_noise(6, 8, generator=stream(0, "noise", place))
    return unroll(env, policy, start, noise)[0]


def q_ensemble(place: torch.device, head: Callable[[], Any]) -> QEnsemble:
    weights = torch.Generator().manual_seed(5)
    members = [
        QFunction(3, 1, (8,), activation="tanh", layer_norm=True, generator=weights, head=head())
        for _ in range(2)
    ]
    return QEnsemble(members).to(place)


def matched_weight(signals: Signals) -> Tensor:
    """The score function's weight that matches the objective, without baseline."""
    no_value = torch.zeros_like(signals.window.log_prob)
    return matched_score_weight(signals.window, no_value, no_value, 0.99)


@pytest.mark.parametrize("name", CATALOGUE)
def test_the_catalogue(name: str, device: torch.device) -> None:
    """Gradients of every estimator's surrogate by the policy, from the same window."""
    found = []
    for place in (CPU, device):
        with same_draws():
            policy = policy_on(place)
            window = window_on(place, policy)
        no_value = torch.zeros_like(window.log_prob)
        objective = window_objective(window, no_value, 0.99)
        critic = q_ensemble(place, SquaredError)
        signals = Signals(
            policy,
            window,
            objective=objective,
            matched_weight=matched_weight,
            q_value=critic.policy_value,
        )
        row = CATALOGUE[name]
        for part in row.needs:
            getattr(signals, part)
        surrogate = row.surrogate(signals, signals.distribution)
        gradient = torch.autograd.grad(surrogate.mean(), list(policy.parameters()))
        by_step = row.by_step(signals)
        assert by_step is not None
        found.append([*gradient, surrogate.detach(), by_step.detach()])
        assert all(bool(value.isfinite().all()) for value in row.metrics(signals).values())
    for here, there in zip(*found, strict=True):
        scale = float(here.abs().max())
        torch.testing.assert_close(there.cpu(), here, rtol=1e-3, atol=1e-4 * scale)


@pytest.mark.parametrize(
    "distribution", ["gaussian", "clipped_gaussian", "full_gaussian", "mixture", "beta", "flow"]
)
def test_every_head(distribution: DistributionName, device: torch.device) -> None:
    """Log densities, entropies and the gradient of a log density."""
    found = []
    for place in (CPU, device):
        with same_draws():
            policy = policy_on(place, distribution, std="state_dependent")
            obs = torch.linspace(-1, 1, 12).reshape(4, 3).to(place)
            noise = policy.draw_noise(1, 4, generator=stream(0, "noise", place))[0]
        distribution_there = policy(obs)
        pre_action = distribution_there.pre_action(noise)
        log_prob = distribution_there.log_prob_of_pre_action(pre_action.detach())
        gradients = torch.autograd.grad(
            log_prob.sum(), list(policy.parameters()), allow_unused=True
        )
        entropy = distribution_there.entropy(noise)
        assert log_prob.device.type == place.type
        found.append([log_prob, entropy, *(g for g in gradients if g is not None)])
    for here, there in zip(*found, strict=True):
        torch.testing.assert_close(there.detach().cpu(), here.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("head", [SquaredError, lambda: HLGauss(-10.0, 10.0)])
def test_q_functions(head: Callable[[], Any], device: torch.device) -> None:
    """Values, the loss, and the slope by the action."""
    found = []
    for place in (CPU, device):
        critic = q_ensemble(place, head)
        features = torch.linspace(-1, 1, 12).reshape(4, 3).to(place)
        action = torch.linspace(-1, 1, 4).unsqueeze(1).to(place).requires_grad_()
        value = critic.policy_value(features, action)
        slope = torch.autograd.grad(value.sum(), action)[0]
        loss = critic.loss(features, action.detach(), torch.ones(4, device=place))
        found.append([value, slope, loss])
    for here, there in zip(*found, strict=True):
        torch.testing.assert_close(there.detach().cpu(), here.detach(), rtol=1e-5, atol=1e-6)


def test_returns(device: torch.device) -> None:
    """Reward-to-go, GAE and lambda returns with terminations and truncations."""
    generator = torch.Generator().manual_seed(0)
    reward, value, next_value = torch.randn(3, 9, 5, generator=generator).unbind()
    terminated, truncated = (torch.rand(2, 9, 5, generator=generator) < 0.2).unbind()

    def all_of(place: torch.device) -> list[Tensor]:
        r, v, w, t, u = (x.to(place) for x in (reward, value, next_value, terminated, truncated))
        return [
            reward_to_go(r, t, u, gamma=0.9),
            gae(r, v, w, t, u, gamma=0.9, lambda_=0.95),
            td_lambda_returns(r, w, t, u, gamma=0.9, lambda_=0.95),
        ]

    for here, there in zip(all_of(CPU), all_of(device), strict=True):
        torch.testing.assert_close(there.cpu(), here)


def test_replay(device: torch.device) -> None:
    """A buffer on the device, filled around its end, draws with a generator of the device."""
    buffer = ReplayBuffer(10)
    for start in (0, 7, 14):
        step = torch.arange(start, start + 7, dtype=torch.float32, device=device)
        false = torch.zeros(7, dtype=torch.bool, device=device)
        column = step.unsqueeze(1)
        buffer.add(
            Transitions(obs=column, action=column, reward=step, next_obs=column, terminated=false)
        )
    drawn = buffer.draw((4, 3), torch.Generator(device).manual_seed(0))
    assert drawn.reward.device.type == device.type and drawn.reward.shape == (4, 3)
    assert sorted(buffer.newest(10).reward.tolist()) == list(range(11, 21))
    other = ReplayBuffer(10, buffer.newest(1), device=device)
    other.load_state_dict(buffer.state_dict())
    assert torch.equal(other.newest(10).reward, buffer.newest(10).reward)


def test_weights_of_limited_bias(device: torch.device) -> None:
    generator = torch.Generator().manual_seed(0)
    score, pathwise = torch.randn(2, 32, 6, generator=generator, dtype=torch.float64).unbind()
    weights = [
        aobg_weight({"a": score.to(place)}, {"a": pathwise.to(place)}, bound=5.0, bias_limit=0.5)
        for place in (CPU, device)
    ]
    torch.testing.assert_close(torch.as_tensor(weights[1]).cpu(), torch.as_tensor(weights[0]))


def test_everything_of_a_policy_moves(device: torch.device) -> None:
    """The bounds of a box are buffers."""
    policy = policy_on(device)
    assert all(x.device.type == device.type for x in (*policy.parameters(), *policy.buffers()))
