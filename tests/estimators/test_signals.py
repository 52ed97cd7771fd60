"""Signals: each part once, the critic's gradient in closed form, and what is missing said."""

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor, nn

from pgtoolkit.agents.shac import Shac, ShacConfig
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.errors import NonFiniteError, RequestError
from pgtoolkit.estimators.catalogue import CATALOGUE
from pgtoolkit.estimators.mixing import cross_fitted_step_weights, mixed_surrogate_of
from pgtoolkit.estimators.signals import Signals, StateActionValue
from pgtoolkit.estimators.surrogates import matched_score_weight, window_objective
from pgtoolkit.policies.discrete import CategoricalPolicy
from pgtoolkit.policies.gaussian import GaussianHead, GaussianPolicy
from pgtoolkit.policies.policy import Policy
from pgtoolkit.rollouts.rollout import reset, unroll
from pgtoolkit.rollouts.window import Window

F64 = torch.float64
CPU = torch.device("cpu")
GAMMA = 0.9


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pendulum_policy() -> Policy:
    env = Pendulum()
    return GaussianPolicy(
        env.observation_space, env.action_space, (8,), normalize_observations=True
    )


def pendulum_window(policy: Policy, num_steps: int = 5, num_envs: int = 8) -> Window:
    env = DifferentiableVectorEnv(Pendulum(), num_envs)
    noise = policy.draw_noise(num_steps, num_envs, generator=seeded(1))
    return unroll(env, policy, reset(env, seed=0, device=CPU), noise)[0]


def make(policy: Policy, window: Window, **settings: Any) -> Signals:
    """Signals of the discounted reward of the window, with everything that can be asked for."""
    zeros = torch.zeros_like(window.log_prob)
    given: dict[str, Any] = {
        "objective": window_objective(window, zeros, GAMMA),
        "matched_weight": lambda s: matched_score_weight(s.window, zeros, zeros, GAMMA),
        "q_value": lambda features, action: -action.square().sum(-1) * features[..., 0],
    }
    return Signals(policy, window, **(given | settings))


def count_calls(policy: Policy, calls: Counter[str]) -> None:
    """Counts passes through the normaliser and through the hidden layers."""
    for name in ("normalizer", "torso"):
        module: nn.Module = getattr(policy, name)
        module.register_forward_hook(lambda *_, name=name: calls.update([name]))


# Each part once -----------------------------------------------------------------------------------


def test_observations_are_normalised_once_and_pass_through_the_policy_once() -> None:
    """Whatever is asked for, and however often; nothing is computed before."""
    policy, calls = pendulum_policy(), Counter[str]()
    window = pendulum_window(policy)
    count_calls(policy, calls)
    signals = make(policy, window)
    assert calls == {}
    for _ in range(2):
        for name in ("score_function", "pathwise", "mixed"):
            for part in CATALOGUE[name].needs:
                getattr(signals, part)
            CATALOGUE[name].surrogate(signals, signals.distribution)
            CATALOGUE[name].by_step(signals)
            CATALOGUE[name].metrics(signals)
    assert calls == {"normalizer": 1, "torso": 1}


def test_the_critics_gradient_takes_one_more_pass_without_a_graph() -> None:
    """The squashing is needed before the pass that is recorded for the gradients."""
    policy, calls = pendulum_policy(), Counter[str]()
    window = pendulum_window(policy)
    count_calls(policy, calls)
    signals = make(policy, window)
    for _ in range(2):
        assert not signals.critic_action_gradient.requires_grad
        signals.critic_surrogate(signals.distribution)
    assert calls == {"normalizer": 1, "torso": 2}


def test_a_measured_update_of_shac_normalises_and_passes_three_times() -> None:
    """Observations and next observations; the policy before the step and after it; its gain."""
    config = ShacConfig(num_envs=6, n_steps=8, hidden=(8,), diagnostics_interval=1)
    agent, calls = Shac(config, DifferentiableVectorEnv(Pendulum(), 6)), Counter[str]()
    window = agent.collect()
    count_calls(agent.policy, calls)
    metrics = agent.update(window)
    assert {"gradient/pathwise/variance", "gradient/score_function/variance"} <= metrics.keys()
    assert calls == {"normalizer": 3, "torso": 3}


def test_weights_are_computed_once_and_are_zero_on_steps_that_never_happened() -> None:
    """The matched one from its function, and the agent's own."""
    policy, asked = pendulum_policy(), []
    window = pendulum_window(policy)
    window.valid[3:, 2] = False

    def ones(signals: Signals) -> Tensor:
        asked.append(signals)
        return torch.ones_like(signals.window.reward)

    own = torch.full_like(window.reward.detach(), 2.0)
    signals = make(policy, window, matched_weight=ones, weight=own)
    expected = window.valid.float()
    for _ in range(2):
        assert torch.equal(signals.matched_weight, expected)
        assert torch.equal(signals.weight, 2 * expected)
    assert asked == [signals]
    only_matched = make(policy, window, matched_weight=ones)
    assert only_matched.weight is only_matched.matched_weight


def test_features_that_are_given_are_used() -> None:
    policy, calls = pendulum_policy(), Counter[str]()
    window = pendulum_window(policy)
    features = policy.normalizer(window.obs.detach())
    count_calls(policy, calls)
    signals = make(policy, window, features=features)
    assert signals.features is features
    assert torch.equal(signals.distribution.mode, policy(window.obs).mode)
    assert calls["normalizer"] == 1  # of the policy on the last line


def test_the_action_gradient_is_that_of_the_objective_and_frees_the_graph() -> None:
    policy = pendulum_policy()
    window = pendulum_window(policy)
    objective = window_objective(window, torch.zeros_like(window.log_prob), GAMMA)
    assert window.action_shift is not None
    (expected,) = torch.autograd.grad(objective.sum(), window.action_shift, retain_graph=True)
    signals = make(policy, window, objective=objective)
    assert torch.equal(signals.action_gradient, expected)
    assert signals.action_gradient is signals.action_gradient
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(objective.sum(), window.action_shift)


# The critic's gradient ----------------------------------------------------------------------------


def test_the_critics_gradient_of_a_quadratic_through_the_squashing() -> None:
    """Q = b.a - a'Ma/2 gives (b - Ma) scale (1 - tanh(u)^2), with bounds that are not symmetric."""
    low, high = np.array([-1.0, 0.0], np.float32), np.array([3.0, 0.5], np.float32)
    policy = GaussianPolicy(Box(-1, 1, (2,)), Box(low, high), (4,)).double()
    M, b = torch.tensor([[2.0, 0.3], [0.3, 1.0]], dtype=F64), torch.tensor([0.7, -0.2], dtype=F64)
    window = bandit(policy, policy.draw_noise(3, 5, generator=seeded()).double())

    def quadratic(features: Tensor, action: Tensor) -> Tensor:
        return action @ b - 0.5 * ((action @ M) * action).sum(-1)

    found = Signals(policy, window, q_value=quadratic).critic_action_gradient
    scale = torch.tensor([2.0, 0.25], dtype=F64)
    slope = scale * (1 - torch.tanh(window.pre_action).square())
    torch.testing.assert_close(found, (b - window.action @ M) * slope, rtol=1e-9, atol=1e-12)


def bandit(policy: Policy, noise: Tensor, obs: Tensor | None = None) -> Window:
    """Steps ``[T, N]`` that are episodes of their own, with observation 0 unless it is given."""
    obs = noise.new_zeros(*noise.shape[:2], 2) if obs is None else obs
    with torch.no_grad():
        distribution = policy(obs)
        pre_action = distribution.pre_action(noise)
        action = distribution.squash(pre_action)
    over = torch.ones(noise.shape[:2], dtype=torch.bool)
    return Window(
        obs=obs,
        next_obs=obs,
        noise=noise,
        pre_action=pre_action,
        action=action,
        log_prob=distribution.log_prob_of_pre_action(pre_action),
        reward=noise.new_zeros(noise.shape[:2]),
        terminated=over,
        truncated=~over,
        valid=over,
    )


def critic_gradients(q_value: StateActionValue, mean: float, log_std: float) -> Tensor:
    """The critic's gradient of every trajectory by (mean, log std) ``[N, 2]``, of one action."""
    line = Box(-np.inf, np.inf, (1,), np.float32)
    policy = GaussianPolicy(Box(-1, 1, (2,)), line, ()).double()
    head = policy.head
    assert isinstance(head, GaussianHead) and head.std is not None
    with torch.no_grad():
        head.output.bias.fill_(mean)
        head.std.log_std.fill_(log_std)
    noise = torch.randn(1, 20_000, 1, generator=seeded(3), dtype=F64)
    signals = Signals(policy, bandit(policy, noise), q_value=q_value)
    by_mean = signals.critic_action_gradient[0, :, 0]
    # The surrogate is sum_t g_t u_t, and du/dmean = 1, du/dlog std = std eps.
    rows = torch.stack([by_mean, by_mean * math.exp(log_std) * noise[0, :, 0]], 1)
    surrogate = signals.critic_surrogate(signals.distribution).mean()
    by_bias, by_log_std = torch.autograd.grad(surrogate, [head.output.bias, head.std.log_std])
    torch.testing.assert_close(torch.cat([by_bias, by_log_std]), rows.mean(0))
    return rows


@pytest.mark.parametrize("error", [0.0, 0.8, -2.0])
def test_the_critics_gradient_has_the_mean_of_the_true_one_plus_the_errors_slope(
    error: float,
) -> None:
    """A bandit with Q = -k (a - 1)^2 / 2 and a ~ N(m, s^2).

    The gradient of E[Q] is (k (1 - m), -k s^2) by m and log s. A learned Q that is off by c a has
    the bias (c, 0): E[a] is m, whatever s. Within 5 standard errors at 20 000 actions.
    """
    k, mean, log_std = 1.5, 0.4, -0.7
    rows = critic_gradients(
        lambda _, action: (-0.5 * k * (action - 1).square() + error * action).squeeze(-1),
        mean,
        log_std,
    )
    exact = torch.tensor([k * (1 - mean), -k * math.exp(2 * log_std)], dtype=F64)
    bias = torch.tensor([error, 0.0], dtype=F64)
    standard_error = rows.std(0) / math.sqrt(len(rows))
    assert float(((rows.mean(0) - exact - bias) / standard_error).abs().max()) < 5
    if error:  # the test could tell a gradient without this bias
        assert abs(error) > 20 * float(standard_error[0])


def test_the_critic_sees_the_normalised_observations() -> None:
    """Q(features, action) = features_0 action: the derivative by an unsquashed action is it."""
    space, line = Box(-1, 1, (2,)), Box(-np.inf, np.inf, (1,), np.float32)
    policy = GaussianPolicy(space, line, (4,), normalize_observations=True)
    obs = torch.randn(3, 4, 2, generator=seeded(4))
    policy.normalizer.update(5 * obs + 1, torch.ones(3, 4, dtype=torch.bool))
    window = bandit(policy, torch.randn(3, 4, 1, generator=seeded(5)), obs)

    def product(features: Tensor, action: Tensor) -> Tensor:
        return features[..., 0] * action[..., 0]

    found = Signals(policy, window, q_value=product).critic_action_gradient
    torch.testing.assert_close(found[..., 0], policy.normalizer(obs)[..., 0])


def test_without_a_path_through_the_environment_the_critic_is_mixed_in() -> None:
    """On a plain window the mix is of the score function and the critic, by the same weights."""
    policy = pendulum_policy()
    window = pendulum_window(policy, num_envs=12).detach()
    signals = make(policy, window, objective=None, temperature=0.1)
    assert signals.path_gradient is signals.critic_action_gradient
    score, path = signals.score_action_gradient, signals.critic_action_gradient
    assert score is not None
    weights = cross_fitted_step_weights(score.cumsum(0), path.cumsum(0))
    assert torch.equal(signals.mix, weights)
    mixed = (1 - weights).unsqueeze(-1) * score + weights.unsqueeze(-1) * path
    torch.testing.assert_close(signals.mixed_action_gradient, mixed)
    surrogate = mixed_surrogate_of(signals.distribution, window, signals.weight, path, weights)
    torch.testing.assert_close(signals.mixed_surrogate(signals.distribution), surrogate)
    for part in CATALOGUE["mixed"].needs:
        getattr(signals, part)
    # With a path through the environment that is taken, whether there is a critic or not.
    both = make(policy, pendulum_window(policy, num_envs=12))
    assert both.path_gradient is both.action_gradient


def test_the_temperature_adds_the_slope_of_the_log_density() -> None:
    """``Q - alpha log pi`` of ``a = u``: minus alpha times ``-(u - mu) / sigma^2``, at fixed mu."""
    space, line = Box(-1, 1, (2,)), Box(-np.inf, np.inf, (1,), np.float32)
    policy = GaussianPolicy(space, line, (4,), log_std_init=-0.5).double()
    noise = torch.randn(3, 5, 1, generator=seeded(2), dtype=F64)
    window = bandit(policy, noise)
    discount = torch.rand(3, 5, generator=seeded(3), dtype=F64)

    def slope(**settings: Any) -> Tensor:
        signals = Signals(policy, window, q_value=lambda _, a: 2 * a[..., 0], **settings)
        return signals.critic_action_gradient

    expected = 2 + 0.3 * noise * math.exp(0.5)
    torch.testing.assert_close(slope(temperature=0.3), expected)
    discounted = slope(temperature=0.3, critic_discount=discount)
    torch.testing.assert_close(discounted, discount.unsqueeze(-1) * expected)
    assert torch.equal(slope(), torch.full_like(noise, 2.0))


# What is missing, and what is not finite ----------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "settings", "message"),
    [
        ("action_gradient", {"objective": None}, "a pathwise gradient needs an objective"),
        ("matched_weight", {"matched_weight": None}, "the score function needs a weight"),
        ("weight", {"matched_weight": None}, "the score function needs a weight"),
        ("critic_action_gradient", {"q_value": None}, "the critic's gradient needs a Q function"),
    ],
)
def test_a_part_whose_input_was_not_given_says_so(
    part: str, settings: dict[str, Any], message: str
) -> None:
    policy = pendulum_policy()
    signals = make(policy, pendulum_window(policy), **settings)
    with pytest.raises(RequestError, match=message):
        getattr(signals, part)


def test_a_plain_window_has_no_action_gradient() -> None:
    policy = pendulum_policy()
    window = pendulum_window(policy)
    assert make(policy, window).differentiable
    assert not make(policy, window, objective=None).differentiable
    plain = make(policy, window.detach())
    assert not plain.differentiable
    with pytest.raises(RequestError, match="this window is plain"):
        _ = plain.action_gradient


def test_a_policy_without_a_mean_cannot_mix() -> None:
    env = Pendulum()
    gaussian, discrete = pendulum_policy(), CategoricalPolicy(env.observation_space, Discrete(3))
    signals = make(discrete, pendulum_window(gaussian))
    assert signals.score_action_gradient is None
    with pytest.raises(RequestError, match="only a Gaussian policy can mix"):
        _ = signals.mix


@pytest.mark.parametrize("part", ["weight", "critic_action_gradient", "action_gradient"])
def test_a_part_that_is_not_finite_names_step_and_environment(part: str) -> None:
    """The weight the first such step; a gradient that runs backwards in time the last."""
    policy = pendulum_policy()
    window = pendulum_window(policy)
    nan = torch.zeros_like(window.reward.detach())
    nan[1, 4] = nan[3, 2] = math.nan
    objective = (window.reward + nan * window.action[..., 0]).sum(0)
    signals = make(
        policy,
        window,
        objective=objective,
        weight=nan,
        q_value=lambda _, action: action[..., 0] * (1 + nan),
    )
    with pytest.raises(NonFiniteError) as caught:
        getattr(signals, part)
    place = (caught.value.step, caught.value.env_index)
    assert place == ((1, 4) if part == "weight" else (3, 2))
    assert ("dQ/du" in caught.value.tensor) == (part == "critic_action_gradient")


def test_metrics_of_the_mix_count_only_steps_that_happened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Weights 1 and 0 on two valid steps, 2 on one that never happened: mean 1/2, guarded 1/2."""
    policy = pendulum_policy()
    window = pendulum_window(policy, num_steps=2, num_envs=6)
    window.valid[1] = False
    window.valid[0, 2:] = False
    weights = torch.full((2, 6), 2.0)
    weights[0, :2] = torch.tensor([1.0, 0.0])
    monkeypatch.setattr(
        "pgtoolkit.estimators.signals.cross_fitted_step_weights", lambda score, pathwise: weights
    )
    metrics = make(policy, window).mix_metrics
    assert {tag: float(value) for tag, value in metrics.items()} == {
        "gradient/mix/weight": 0.5,
        "gradient/mix/guarded": 0.5,
    }
