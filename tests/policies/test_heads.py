"""Heads: which spaces they take, their first distributions, gradients by trajectory, training."""

import dataclasses
from collections.abc import Callable
from typing import Any, cast

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import Tensor, nn

from pgtoolkit.agents.apg import Apg, ApgConfig
from pgtoolkit.agents.reinforce import Reinforce, ReinforceConfig
from pgtoolkit.agents.shac import Shac, ShacConfig
from pgtoolkit.diagnostics.per_trajectory import GradientRecorder
from pgtoolkit.distributions.base import Distribution
from pgtoolkit.distributions.beta import Beta
from pgtoolkit.distributions.discrete import Bernoulli, MultiCategorical
from pgtoolkit.distributions.gaussian import DiagonalGaussian, FullGaussian
from pgtoolkit.distributions.mixture import GaussianMixture
from pgtoolkit.distributions.squashed import Squashed, TanhGaussian
from pgtoolkit.distributions.transformed import Transformed
from pgtoolkit.envs import DifferentiableVectorEnv, Pendulum
from pgtoolkit.errors import RequestError
from pgtoolkit.estimators.surrogates import (
    action_gradient,
    pathwise_surrogate,
    score_function_surrogate,
    window_objective,
)
from pgtoolkit.networks.mlp import Activation, Std
from pgtoolkit.policies.factory import DistributionName, make_policy
from pgtoolkit.policies.gaussian import FullGaussianHead, GaussianHead
from pgtoolkit.policies.policy import Policy
from pgtoolkit.rollouts.rollout import reset, unroll
from pgtoolkit.rollouts.window import Window

F64 = torch.float64
CPU = torch.device("cpu")
FEW = 4
OBS = spaces.Box(-np.inf, np.inf, (3,), np.float32)
BOUNDED = spaces.Box(np.array([-2.0, 1.0], np.float32), np.array([2.0, 5.0], np.float32))
UNBOUNDED = spaces.Box(-np.inf, np.inf, (2,), np.float32)
MULTI_DISCRETE = spaces.MultiDiscrete([3, 2])
MULTI_BINARY = spaces.MultiBinary(2)
CONTINUOUS: tuple[DistributionName, ...] = ("full_gaussian", "mixture", "beta", "flow")
UNSQUASHED: tuple[DistributionName, ...] = ("full_gaussian", "mixture", "flow")
Gradients = dict[str, Tensor]


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings that an agent's configuration has."""

    distribution: DistributionName = "gaussian"
    hidden: tuple[int, ...] = (7, 5)
    activation: Activation = "tanh"
    layer_norm: bool = False
    first_bias: float = 0.0
    std: Std = "state_independent"
    log_std_init: float = -0.5
    normalize_observations: bool = False


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=F64)


def shaken(policy: Policy) -> Policy:
    """The policy in float64, moved from its initial weights, many of which are 0, 1 or tiny."""
    policy.double()
    with torch.no_grad():
        for i, parameter in enumerate(policy.parameters()):
            parameter.add_(0.3 * normal(*parameter.shape, seed=100 + i))
    return policy


def policy_for(action_space: spaces.Space[Any], **changes: Any) -> Policy:
    return make_policy(Settings(**changes), OBS, action_space, seeded())


CASES: dict[str, tuple[spaces.Space[Any], DistributionName]] = (
    {f"{name}, bounded": (BOUNDED, name) for name in CONTINUOUS}
    | {f"{name}, unbounded": (UNBOUNDED, name) for name in UNSQUASHED}
    | {"multi-discrete": (MULTI_DISCRETE, "gaussian"), "multi-binary": (MULTI_BINARY, "gaussian")}
)


@pytest.mark.parametrize("case", CASES)
def test_the_distribution_fits_the_space(case: str) -> None:
    """Distribution class and noise size are as declared, and actions are in the space."""
    action_space, name = CASES[case]
    policy = policy_for(action_space, distribution=name)
    assert isinstance(policy, Policy)
    distribution = policy(torch.randn(6, 5, 3, generator=seeded(1)))
    kinds = {"full_gaussian": FullGaussian, "mixture": GaussianMixture, "flow": Transformed}
    discrete: Any = MultiCategorical if action_space is MULTI_DISCRETE else Bernoulli
    if isinstance(distribution, Squashed):
        assert action_space is BOUNDED
        assert isinstance(distribution.base, kinds[name])
    else:
        assert isinstance(distribution, kinds.get(name, Beta if name == "beta" else discrete))
    noise = policy.draw_noise(6, 5, generator=seeded(2))
    assert noise.shape == (6, 5, policy.noise_size) and noise.dtype == torch.float32
    assert noise.shape == distribution.draw_noise(seeded()).shape
    pre_action = distribution.pre_action(noise)
    assert pre_action.shape == (6, 5, policy.action_size)
    action = distribution.squash(pre_action).detach().numpy()
    assert all(action_space.contains(row) for row in action.reshape(-1, 2))
    zeros = torch.zeros_like(noise)
    torch.testing.assert_close(distribution.sample(zeros), distribution.mode)


REFUSED: dict[str, tuple[DistributionName, spaces.Space[Any], str]] = {
    "beta without bounds": ("beta", UNBOUNDED, "needs bounds.*full_gaussian"),
    "beta on a matrix": ("beta", spaces.Box(-1, 1, (2, 2), np.float32), "one dimension"),
    "flow over a choice": ("flow", spaces.Discrete(3), "leave distribution out"),
    "mixture over choices": ("mixture", MULTI_DISCRETE, "leave distribution out"),
    "beta over multi-binary": ("beta", MULTI_BINARY, "leave distribution out"),
    "bounded on one side": ("mixture", spaces.Box(0, np.inf, (2,), np.float32), "both"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_combination_that_cannot_be_is_refused_with_advice(case: str) -> None:
    """The error says how to get a valid combination."""
    name, action_space, advice = REFUSED[case]
    with pytest.raises(RequestError, match=advice):
        policy_for(action_space, distribution=name)


WIDTHS = spaces.Box(np.array([-1, 0.3, 2], np.float32), np.array([1, 0.3, 4], np.float32))
"""The second entry has no width."""
BOXED: tuple[DistributionName, ...] = ("gaussian", "clipped_gaussian", *CONTINUOUS)


@pytest.mark.parametrize("name", BOXED)
def test_an_entry_without_width_is_a_constant(name: DistributionName) -> None:
    """Its action is the bound; densities, entropy and all gradients are finite."""
    policy = shaken(policy_for(WIDTHS, distribution=name))
    obs, noise = normal(50, 3, seed=1), policy.draw_noise(50, generator=seeded(2)).double()
    law = policy(obs)
    action = law.rsample(noise)
    assert bool((action[:, 1] == torch.tensor(0.3)).all())
    pre_action = law.pre_action(noise).detach()
    for value in (
        action.sum(-1),
        law.log_prob_of_pre_action(pre_action),
        law.log_prob(action.detach()),
        law.entropy(noise),
        law.kl_divergence(policy(obs + 1), noise),
    ):
        gradients = torch.autograd.grad(
            value.sum(), list(policy.parameters()), retain_graph=True, materialize_grads=True
        )
        assert bool(value.isfinite().all()) and all(bool(g.isfinite().all()) for g in gradients)
    assert bool(law.sample_with_log_prob(noise)[1].isfinite().all())


@pytest.mark.parametrize("name", ["gaussian", "beta"])
def test_an_entry_without_width_adds_the_density_of_the_unit_interval(
    name: DistributionName,
) -> None:
    """As if its scale were 1: ``log scale`` (or ``log range``) is left out."""
    unit = {"gaussian": (-1.0, 1.0), "beta": (0.0, 1.0)}[name]
    low, high = WIDTHS.low.copy(), WIDTHS.high.copy()
    low[1], high[1] = unit
    first, second = (
        policy_for(space, distribution=name)(torch.zeros(1, 3))
        for space in (WIDTHS, spaces.Box(low, high))
    )
    noise = torch.randn(40, 3, generator=seeded(3))
    pre_action = first.pre_action(noise)
    torch.testing.assert_close(
        first.log_prob_of_pre_action(pre_action), second.log_prob_of_pre_action(pre_action)
    )
    torch.testing.assert_close(first.entropy(noise), second.entropy(noise))


@pytest.mark.parametrize("name", BOXED)
def test_huge_bounds_are_none(name: DistributionName) -> None:
    space = spaces.Box(-1e38, 1e38, (2,), np.float32)
    if name == "beta":
        with pytest.raises(RequestError, match="entry 0"):
            policy_for(space, distribution=name)
        return
    law = policy_for(space, distribution=name)(torch.zeros(1, 3))
    free = policy_for(UNBOUNDED, distribution=name)(torch.zeros(1, 3))
    noise = law.draw_noise(seeded())
    assert type(law) is type(free) and torch.equal(law.sample(noise), free.sample(noise))


def test_gaussian_stays_the_gaussian_policy() -> None:
    """The default distribution makes a Gaussian head."""
    assert isinstance(policy_for(BOUNDED).head, GaussianHead)
    assert isinstance(policy_for(UNBOUNDED, std="state_dependent").head, GaussianHead)


@pytest.mark.parametrize("name", ["full_gaussian", "flow"])
@pytest.mark.parametrize("bounded", [False, True])
def test_in_one_dimension_they_are_the_gaussian_policy(
    name: DistributionName, bounded: bool
) -> None:
    """With equal seeds even the weights are the same: density, action and entropy agree."""
    limit = 2.0 if bounded else np.inf
    space = spaces.Box(-limit, limit, (1,), np.float32)
    obs, noise = torch.randn(6, 3, generator=seeded(1)), torch.randn(6, 1, generator=seeded(2))
    one = policy_for(space, distribution=name)(obs)
    other = policy_for(space)(obs)
    assert isinstance(other, TanhGaussian if bounded else DiagonalGaussian)
    torch.testing.assert_close(one.sample(noise), other.sample(noise))
    action = other.sample(noise)
    torch.testing.assert_close(one.log_prob(action), other.log_prob(action))
    torch.testing.assert_close(one.entropy(noise), other.entropy(noise))


@pytest.mark.parametrize("std", ["state_independent", "state_dependent"])
@pytest.mark.parametrize("name", UNSQUASHED)
def test_the_spread_starts_where_it_is_told(name: DistributionName, std: Std) -> None:
    """``exp(log_std_init)`` within 5 %, in every dimension, of each component of a mixture."""
    policy = policy_for(UNBOUNDED, distribution=name, std=std, log_std_init=-1.2)
    assert isinstance(policy, Policy)
    features = policy.torso(torch.randn(20, 3, generator=seeded(1)))
    log_std = cast(Any, policy.head).std(features)
    assert float((log_std + 1.2).detach().abs().max()) < 0.05
    noise = torch.cat([torch.zeros(4), torch.ones(2)]) if name == "mixture" else torch.ones(2)
    distribution = policy(torch.randn(20, 3, generator=seeded(1)))
    shift = distribution.sample(noise.expand(20, -1)) - distribution.mode.detach()
    assert float((shift - np.exp(-1.2)).abs().max()) < 0.05 * np.exp(-1.2)


def test_the_factor_of_a_full_gaussian_has_sigma_on_its_diagonal() -> None:
    """``L = [[s1, 0, 0], [s2 r1, s2, 0], [s3 r2, s3 r3, s3]]``; ``r`` follows the mean."""
    head = FullGaussianHead(4, 3, std="state_dependent", log_std_init=-1.0, generator=seeded())
    features = torch.randn(5, 4, generator=seeded(1))
    with torch.no_grad():
        head.output.bias.copy_(torch.arange(6.0))
        found = head.forward(features)
        output, sigma = head.output(features), head.std(features).exp()
    assert torch.equal(found.mean, output[:, :3])
    r, one, zero = output[:, 3:], torch.ones(5), torch.zeros(5)
    rows = [[one, zero, zero], [r[:, 0], one, zero], [r[:, 1], r[:, 2], one]]
    unit = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
    torch.testing.assert_close(found.scale_tril, sigma.unsqueeze(-1) * unit)


def test_a_flow_joins_all_dimensions() -> None:
    """Masks alternate: every entry of the action depends on every entry of the noise."""
    space = spaces.Box(-np.inf, np.inf, (3,), np.float32)
    policy = shaken(policy_for(space, distribution="flow"))
    obs, noise = normal(1, 3, seed=1), normal(1, 3, seed=2)
    jacobian: Any = torch.autograd.functional.jacobian(  # type: ignore[no-untyped-call]
        lambda eps: policy(obs).rsample(eps), noise
    )
    assert float(jacobian.abs().min()) > 1e-4


def test_the_components_of_a_mixture_start_apart() -> None:
    """Equal components would have equal gradients and stay equal."""
    policy = policy_for(UNBOUNDED, distribution="mixture", log_std_init=-1.0)
    distribution = policy(torch.zeros(1, 3))
    assert isinstance(distribution, GaussianMixture)
    distance = torch.pdist(distribution.mean[0].detach())
    assert float(distance.min()) > 0.1 * np.exp(-1.0)
    assert float(distribution.mean.detach().mean(1).abs().max()) < 0.05


def test_the_parameters_of_a_beta_policy_are_at_least_one() -> None:
    """Both parameters are at least 1 for any features, so the density is finite."""
    policy = policy_for(BOUNDED, distribution="beta", hidden=())
    distribution = policy(1e6 * torch.randn(50, 3, generator=seeded(1)))
    assert isinstance(distribution, Beta)
    assert float(torch.min(distribution.alpha, distribution.beta).detach().min()) >= 1


@pytest.mark.parametrize("case", CASES)
def test_weights_and_noise_come_from_generators(case: str) -> None:
    """The global random state is left alone; equal seeds, equal weights."""
    torch.manual_seed(0)
    before = torch.get_rng_state()
    action_space, name = CASES[case]
    first, again = (policy_for(action_space, distribution=name) for _ in range(2))
    noise = first.draw_noise(5, generator=seeded(3))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(noise, again.draw_noise(5, generator=seeded(3)))
    for one, other in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def recorded(module: nn.Module, surrogate: Callable[[], Tensor]) -> Gradients:
    recorder = GradientRecorder(module)
    with recorder.recording():
        values = surrogate()
    return recorder.per_trajectory(values)


def looped(module: nn.Module, surrogate: Callable[[], Tensor]) -> Gradients:
    """Each trajectory's gradients, from one backward pass for each trajectory."""
    values, parameters = surrogate(), dict(module.named_parameters())
    rows = [
        torch.autograd.grad(
            value, list(parameters.values()), retain_graph=True, materialize_grads=True
        )
        for value in values
    ]
    columns = list(zip(*rows, strict=True))
    return {name: torch.stack(column) for name, column in zip(parameters, columns, strict=True)}


def assert_same(found: Gradients, expected: Gradients, tolerance: float = 1e-9) -> None:
    """Tolerances are relative to each parameter's largest gradient, which must not be 0."""
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        scale = float(gradient.abs().max())
        assert scale > 0, name
        assert float((found[name] - gradient).abs().max()) <= tolerance * scale, name


def random_window(policy: Policy, num_steps: int) -> Window:
    """Random observations with the policy's samples."""
    obs = normal(num_steps, FEW, 3, seed=1)
    distribution = policy(obs)
    noise = policy.draw_noise(num_steps, FEW, generator=seeded(2)).double()
    with torch.no_grad():
        pre_action = distribution.pre_action(noise)
    no, zeros = torch.zeros(num_steps, FEW, dtype=torch.bool), torch.zeros(num_steps, FEW)
    return Window(
        obs=obs,
        next_obs=obs,
        noise=noise,
        pre_action=pre_action,
        action=distribution.squash(pre_action),
        log_prob=zeros,
        reward=zeros,
        terminated=no,
        truncated=no,
        valid=(torch.rand(num_steps, FEW, generator=seeded(3)) < 0.9) | (num_steps == 1),
    )


def surrogate_of(estimator: str, policy: Policy, num_steps: int) -> Callable[[], Tensor]:
    window, weight = random_window(policy, num_steps), normal(num_steps, FEW, 2, seed=9)
    if estimator == "score function":
        return lambda: score_function_surrogate(policy, window, weight[..., 0])
    return lambda: pathwise_surrogate(policy, window, weight)


@pytest.mark.parametrize("num_steps", [1, 50])
@pytest.mark.parametrize("estimator", ["score function", "pathwise"])
@pytest.mark.parametrize("std", ["state_independent", "state_dependent"])
@pytest.mark.parametrize("case", [case for case in CASES if not case.startswith("multi-")])
def test_gradients_by_trajectory_are_those_of_a_loop(
    case: str, std: Std, estimator: str, num_steps: int
) -> None:
    """Every continuous head, both estimators, one step and many."""
    action_space, name = CASES[case]
    policy = shaken(policy_for(action_space, distribution=name, std=std, layer_norm=True))
    surrogate = surrogate_of(estimator, policy, num_steps)
    assert_same(recorded(policy, surrogate), looped(policy, surrogate))


@pytest.mark.parametrize("num_steps", [1, 50])
@pytest.mark.parametrize("case", ["multi-discrete", "multi-binary"])
def test_discrete_gradients_by_trajectory_are_those_of_a_loop(case: str, num_steps: int) -> None:
    """A discrete head has gradients by the score function only."""
    policy = shaken(policy_for(CASES[case][0]))
    surrogate = surrogate_of("score function", policy, num_steps)
    assert_same(recorded(policy, surrogate), looped(policy, surrogate))


@pytest.mark.parametrize("case", CASES)
def test_every_parameter_belongs_to_a_layer_with_a_rule(case: str) -> None:
    """Every layer has the fast rule for its gradients per trajectory."""
    action_space, name = CASES[case]
    for std in ("state_independent", "state_dependent"):
        policy = policy_for(action_space, distribution=name, std=std)
        kinds = {type(m).__name__ for m in policy.modules() if list(m.parameters(recurse=False))}
        assert kinds <= {"Linear", "LayerNorm", "StateIndependentStd"}


@pytest.mark.parametrize("name", ["gaussian", *CONTINUOUS])
def test_back_propagation_and_the_pathwise_surrogate_agree(name: DistributionName) -> None:
    """They agree through 20 steps of the Pendulum, for every continuous head."""
    env = Pendulum()
    settings = Settings(distribution=name, std="state_dependent")
    policy = shaken(make_policy(settings, env.observation_space, env.action_space, seeded()))
    noise = policy.draw_noise(20, FEW, generator=seeded(3)).double()

    def rollout() -> tuple[Window, Tensor]:
        vector = DifferentiableVectorEnv(env, FEW, dtype=F64)
        window, _ = unroll(vector, policy, reset(vector, seed=0, device=CPU), noise)
        return window, window_objective(window, window.next_obs.square().sum(-1), 0.99)

    window, objective = rollout()
    assert window.pre_action.shape == window.action.shape == (20, FEW, 1)
    weight = action_gradient(objective, window)
    assert weight.shape == (20, FEW, 1)
    plain = window.detach()
    torch.testing.assert_close(
        policy(plain.obs).log_prob_of_pre_action(plain.pre_action).detach(), plain.log_prob
    )
    found = recorded(policy, lambda: pathwise_surrogate(policy, plain, weight))
    assert_same(found, looped(policy, lambda: rollout()[1]))


@pytest.mark.parametrize("agent_class", [Shac, Apg, Reinforce])
@pytest.mark.parametrize("name", CONTINUOUS)
def test_every_agent_takes_a_step_with_every_head(agent_class: Any, name: DistributionName) -> None:
    """Measured and with an entropy bonus; all metrics are finite and all parameters move."""
    configs = {Shac: ShacConfig, Apg: ApgConfig, Reinforce: ReinforceConfig}
    settings: dict[str, Any] = {"num_envs": 6, "n_steps": 4, "hidden": (8,), "ent_coef": 0.05}
    config = configs[agent_class](distribution=name, std="state_dependent", **settings)
    agent = agent_class(config, DifferentiableVectorEnv(Pendulum(), 6), seed=0, total_steps=100)
    policy = agent.policy
    before = [parameter.clone() for parameter in policy.parameters()]
    metrics = agent.update(agent.collect())
    assert all(bool(value.isfinite().all()) for value in metrics.values())
    assert "gradient/score_function/variance" in metrics
    assert ("train/saturated_actions" in metrics) == (name != "beta")
    for old, new in zip(before, policy.parameters(), strict=True):
        assert not torch.equal(old, new)


class Bandit(gymnasium.Env[np.ndarray, np.ndarray]):
    """One step: 1 for each entry of the action that is what the observation asks for."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, action_space: spaces.Space[Any]) -> None:
        self.action_space = action_space

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, Any]:
        super().reset(seed=seed)
        self.wanted = self.np_random.integers(0, 2, 2)
        return (2 * self.wanted - 1).astype(np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, Any]:
        assert self.action_space.contains(action)
        reward = float((action == self.wanted).mean())
        return np.zeros(2, np.float32), reward, True, False, {}


@pytest.mark.parametrize("space", [MULTI_DISCRETE, MULTI_BINARY], ids=["discrete", "binary"])
def test_reinforce_learns_multi_discrete_and_multi_binary_actions(space: spaces.Space[Any]) -> None:
    """An observation tells what to do; at random 1/2 of it is right, 5/12 if multi-discrete."""
    env: Any = SyncVectorEnv([lambda: Bandit(space)] * 16, autoreset_mode=AutoresetMode.SAME_STEP)
    config = ReinforceConfig(num_envs=16, n_steps=8, learning_rate=0.02, hidden=(16,))
    agent = Reinforce(config, env, seed=0, total_steps=16 * 8 * 40)
    rewards = []
    for _ in range(40):
        window = agent.collect()
        assert window.action.shape == (8, 16, 2)
        metrics = agent.update(window)
        rewards.append(float(window.reward.mean()))
    assert all(bool(torch.as_tensor(value).isfinite().all()) for value in metrics.values())
    assert rewards[0] < 0.65
    assert np.mean(rewards[-5:]) > 0.9


def test_a_policy_with_a_head_is_saved_whole() -> None:
    """A loaded policy gives the same actions, so its weights and normaliser are restored."""
    space = spaces.Box(-1, 1, (2,), np.float32)
    policy = policy_for(BOUNDED, distribution="flow", normalize_observations=True)
    other = make_policy(
        Settings(distribution="flow", normalize_observations=True), OBS, space, seeded(5)
    )
    policy.normalizer.update(5 + normal(7, 4, 3), torch.ones(7, 4, dtype=torch.bool))
    other.load_state_dict(policy.state_dict())
    obs, noise = torch.randn(4, 3, generator=seeded(1)), torch.randn(4, 2, generator=seeded(2))
    one: Distribution = policy(obs)
    assert torch.equal(one.sample(noise), other(obs).sample(noise))
