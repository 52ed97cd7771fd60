"""The three gradients of one objective with a critic, against closed forms and each other."""

import functools
import math
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import Tensor, nn

from pgtoolkit.diagnostics.monitor import GradientMonitor
from pgtoolkit.diagnostics.per_trajectory import per_trajectory_gradients
from pgtoolkit.distributions.quadrature import gauss_hermite
from pgtoolkit.envs.analytic.lqg.env import LQG, LQGState
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.envs.wrappers.base import DifferentiableWrapper
from pgtoolkit.estimators.catalogue import CATALOGUE
from pgtoolkit.estimators.signals import Signals, StateActionValue
from pgtoolkit.estimators.soft_value import SoftCritic, critic_signals, soft_window
from pgtoolkit.learners.policy_step import measure_matched
from pgtoolkit.policies.gaussian import GaussianHead, GaussianPolicy
from pgtoolkit.policies.policy import Policy
from pgtoolkit.rollouts.rollout import reset, unroll

F64 = torch.float64
CPU = torch.device("cpu")
K, OFFSET, SIGMA, GAMMA = -0.4, 0.2, 0.3, 0.95
REFERENCE = (K, OFFSET, SIGMA)
THREE = ("score_function", "pathwise", "critic")
N = 100_000
"""With fewer, the mean of squared deviations of such a tail is not yet normal."""


class Timed(DifferentiableWrapper[Any]):
    """LQG that shows its time: the observation is ``[s, t]``, so that a critic can know it."""

    def __init__(self, env: LQG) -> None:
        super().__init__(env)
        self.observation_space = Box(-np.inf, np.inf, (2,), np.float32)

    def observation(self, state: LQGState) -> Tensor:
        return torch.cat([state.position, state.time.unsqueeze(-1).to(state.position)], -1)


def linear_policy() -> Policy:
    """``u = K s + k + sigma eps``, whatever the time."""
    space, line = Box(-np.inf, np.inf, (2,)), Box(-np.inf, np.inf, (1,), np.float32)
    policy = GaussianPolicy(space, line, ()).double()
    assert isinstance(policy.head, GaussianHead) and policy.head.std is not None
    assert isinstance(policy.head.output, nn.Linear)
    with torch.no_grad():
        policy.head.output.weight.copy_(torch.tensor([[K, 0.0]]))
        policy.head.output.bias.fill_(OFFSET)
        policy.head.std.log_std.fill_(math.log(SIGMA))
    return policy


def true_q(env: LQG, temperature: float) -> StateActionValue:
    """The soft ``Q``: the closed form and the worth of the later steps' entropies, a constant."""
    entropy = 0.5 * math.log(2 * math.pi * math.e) + math.log(SIGMA)

    def q_value(features: Tensor, action: Tensor) -> Tensor:
        flat, time = features.reshape(-1, 2), features[..., 1].reshape(-1).round().long()
        state = LQGState(flat[:, :1], time)
        value = env.action_value(state, action.reshape(-1, 1), *REFERENCE)
        powers = GAMMA ** torch.arange(1, env.system.horizon + 1, dtype=F64)
        worth = torch.cat([torch.zeros(1, dtype=F64), powers.cumsum(0)])
        later = worth[(env.system.horizon - 1 - time).clamp(min=0)]
        return (value + temperature * entropy * later).reshape(features.shape[:-1])

    return q_value


def lqg_signals(
    num_steps: int, *, temperature: float = 0.0, error: StateActionValue | None = None, num: int = N
) -> Signals:
    """Signals of ``num`` trajectories of that many steps from the start, of five."""
    env, policy = LQG(), linear_policy()
    generator = torch.Generator().manual_seed(2)
    draw = functools.partial(noise_of, (num_steps, num, 1), generator)
    vector = DifferentiableVectorEnv(Timed(env), num, dtype=F64)
    window, _ = unroll(vector, policy, reset(vector, seed=1, device=CPU), draw())
    exact = true_q(env, temperature)

    def q_value(features: Tensor, action: Tensor) -> Tensor:
        value = exact(features, action)
        return value if error is None else value + error(features, action)

    critic = SoftCritic(q_value, temperature)
    return critic_signals(policy, window, critic, gamma=GAMMA, draw_noise=draw)


def noise_of(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=F64)


def gradients(signals: Signals) -> dict[str, Tensor]:
    """Each estimator's gradients ``[N, P]`` by weight and bias of the mean and by log sigma."""
    found = {}
    for name in THREE:
        for part in CATALOGUE[name].needs:
            getattr(signals, part)

        def surrogate(name: str = name) -> Tensor:
            signals.renew_distribution()
            return CATALOGUE[name].surrogate(signals, signals.distribution)

        by_name = per_trajectory_gradients(signals.policy, surrogate)
        found[name] = torch.cat([g.flatten(1) for g in by_name.values()], 1)
    return found


def errors(sample: Tensor, truth: Tensor | float) -> Tensor:
    """The mean less the truth, in standard errors; where there is no spread, 0 if they agree."""
    error = sample.std(0) / math.sqrt(len(sample))
    return (sample.mean(0) - truth) / error.clamp_min(1e-12)


# The linear-quadratic system ----------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_all_three_have_the_mean_of_the_exact_gradient(temperature: float) -> None:
    """Whole episodes. The entropy adds ``alpha sum_k gamma^k`` to the derivative by log sigma."""
    by = LQG().return_gradient(*REFERENCE)
    entropy = temperature * sum(GAMMA**k for k in range(5))
    # By log sigma, the derivative is sigma times that by sigma.
    truth = torch.tensor([float(by.K), float(by.k), SIGMA * float(by.sigma) + entropy], dtype=F64)
    found = gradients(lqg_signals(5, temperature=temperature))
    for name, sample in found.items():
        kept = sample[:, [0, 2, 3]]  # without the weight on the time
        assert float(errors(kept, truth).abs().max()) < 4.5, name
    critic = found["critic"][:, [0, 2, 3]].var(0)
    if temperature == 0:
        exact = LQG().gradient_moments(*REFERENCE, "critic").variance
        squares = (found["critic"][:, [0, 2, 3]] - truth).square()
        scale = torch.tensor([1.0, 1.0, SIGMA**2], dtype=F64)
        expected = torch.tensor([float(exact.K), float(exact.k), float(exact.sigma)], dtype=F64)
        assert float(errors(squares, scale * expected).abs().max()) < 4.5
        assert bool((critic < found["pathwise"][:, [0, 2, 3]].var(0)).all())


@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("num_steps", [1, 3])
def test_all_three_have_one_mean_with_a_bootstrap(num_steps: int, temperature: float) -> None:
    """The value at the end is that of the critic, and its part of the gradient passes the state."""
    found = gradients(lqg_signals(num_steps, temperature=temperature))
    for first, second in (("score_function", "critic"), ("pathwise", "critic")):
        difference = found[first] - found[second]
        assert float(errors(difference, 0.0).abs().max()) < 4.5
    # Without the bootstrap the means would be others: the test could tell.
    assert float(errors(found["critic"], 0.0).abs().max()) > 20


def test_without_the_discount_the_means_differ() -> None:
    """What an agent climbs counts late states as much as early ones: the sum is another one."""
    signals = lqg_signals(5)
    matched = gradients(signals)["critic"]
    signals = lqg_signals(5)
    signals.critic_discount = None
    assert not signals.critic_is_matched
    climbed = gradients(signals)["critic"]
    assert float(errors(climbed - matched, 0.0).abs().max()) > 20
    # At each step the two are parallel.
    by_step = lqg_signals(5)
    discount = by_step.critic_discount
    assert discount is not None
    torch.testing.assert_close(
        discount.unsqueeze(-1) * signals.critic_action_gradient, by_step.critic_action_gradient
    )


@pytest.mark.parametrize(
    ("matrix", "error"),
    [
        ((0, 2), lambda f, a: 0.6 * f[..., 0] * a[..., 0]),
        ((1, 2), lambda f, a: 0.6 * a[..., 0]),
        ((2, 2), lambda f, a: 0.6 * a[..., 0].square()),
    ],
)
def test_the_bias_of_a_wrong_q_is_that_of_the_closed_form(
    matrix: tuple[int, int], error: StateActionValue
) -> None:
    """``Q + c s a``, ``Q + c a`` and ``Q + c a^2``, mean and variance; and the tags say it."""
    q_error = torch.zeros(3, 3, dtype=F64)
    q_error[matrix] += 0.3
    q_error[matrix[::-1]] += 0.3
    exact, truth = (
        LQG().gradient_moments(*REFERENCE, "critic", q_error=q_error),
        LQG().return_gradient(*REFERENCE),
    )
    scale = torch.tensor([1.0, 1.0, SIGMA], dtype=F64)
    mean, variance, unbiased = (
        torch.cat([x.flatten() for x in moments]) for moments in (exact.mean, exact.variance, truth)
    )
    found = gradients(lqg_signals(5, error=error))
    kept = {name: sample[:, [0, 2, 3]] for name, sample in found.items()}
    bias = scale * (mean - unbiased)
    assert float(errors(kept["critic"], scale * mean).abs().max()) < 4.5
    squares = (kept["critic"] - scale * mean).square()
    assert float(errors(squares, scale**2 * variance).abs().max()) < 4.5
    assert float(errors(kept["critic"] - kept["pathwise"], bias).abs().max()) < 4.5
    assert float(errors(kept["pathwise"], scale * unbiased).abs().max()) < 4.5


def test_the_tags_have_the_bias_and_its_interval() -> None:
    """The squared bias of ``Q + c a`` by all parameters, the weight on the time among them."""
    c = 0.6
    signals = lqg_signals(5, error=lambda f, a: c * a[..., 0])
    metrics = measure_matched(signals, GradientMonitor(1, "gradient/probe"))
    by_time = c * sum(t * GAMMA**t for t in range(5))
    error = torch.zeros(3, 3, dtype=F64)
    error[1, 2] = error[2, 1] = c / 2
    moments = LQG().gradient_moments(*REFERENCE, "critic", q_error=error)
    truth = LQG().return_gradient(*REFERENCE)
    by_gain, by_offset = (float(a - b) for a, b in zip(moments.mean[:2], truth[:2], strict=True))
    exact = by_gain**2 + by_offset**2 + by_time**2
    assert metrics["gradient/critic/bias_low"] < exact < metrics["gradient/critic/bias_high"]
    assert float(metrics["gradient/critic/bias"]) == pytest.approx(exact, rel=0.1)
    assert float(metrics["gradient/critic/bias_z"]) > 5
    signal = float(metrics["gradient/probe/pathwise/signal"])
    assert float(metrics["gradient/critic/relative_bias"]) == pytest.approx(exact / signal, rel=0.1)
    assert metrics["gradient/critic/cosine_high"] < 1
    for name in ("score_function", "pathwise", "mixed", "critic"):
        assert f"gradient/probe/{name}/variance" in metrics
        assert metrics[f"gradient/by_step/{name}"].shape == (5,)
    # By step the bias is that of dQ/du: gamma^t c, squared.
    expected = torch.tensor([(c * GAMMA**t) ** 2 for t in range(5)], dtype=F64)
    torch.testing.assert_close(
        metrics["gradient/critic/bias_by_step"], expected, rtol=0.15, atol=0.0
    )


def test_a_true_q_shows_no_bias() -> None:
    metrics = measure_matched(lqg_signals(5, temperature=0.3), GradientMonitor(1, "gradient/probe"))
    assert float(metrics["gradient/critic/bias_z"]) < 5
    assert float(metrics["gradient/critic_to_score/bias_z"]) < 5
    assert metrics["gradient/critic/bias_low"] < 0
    assert float(metrics["gradient/critic/cosine"]) > 0.999
    assert float(metrics["gradient/critic/variance_ratio"]) > 1  # pathwise's over the critic's


# An entropy that depends on the state -------------------------------------------------------------


class Line(DifferentiableEnv[Tensor]):
    """Two steps of ``s' = s + a / 2`` with the reward ``cos(2 s' + a)``; state ``[N, 2]``: s, t."""

    max_episode_steps = 10

    def __init__(self) -> None:
        self.observation_space = Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = Box(-1.0, 2.0, (1,), np.float32)

    def initial(self, num_envs: int, generator: torch.Generator) -> Tensor:
        position = torch.randn(num_envs, 1, generator=generator)
        return torch.cat([position, torch.zeros_like(position)], -1)

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        return torch.cat([state[:, :1] + action / 2, state[:, 1:] + 1], -1)

    def observation(self, state: Tensor) -> Tensor:
        return state

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return torch.cos(2 * next_state[:, 0] + action[:, 0])

    def terminal(self, state: Tensor) -> Tensor:
        return state[:, 1] >= 2


@pytest.mark.parametrize("num_steps", [1, 2])
def test_all_three_agree_where_the_entropy_depends_on_state_and_action(num_steps: int) -> None:
    """A squashed Gaussian whose standard deviation depends on the state; Q by quadrature.

    After one step the value is the critic's, after two the episode has terminated.
    """
    alpha, num = 0.8, 40_000
    env = Line()
    policy = GaussianPolicy(
        env.observation_space,
        env.action_space,
        (6,),
        std="state_dependent",
        log_std_init=-0.5,
        generator=torch.Generator().manual_seed(7),
    ).double()
    with torch.no_grad():  # so that mean and standard deviation depend on the state
        for parameter in policy.parameters():
            parameter.add_(0.5 * noise_of((*parameter.shape,), torch.Generator().manual_seed(8)))
    nodes, weights = gauss_hermite(24)

    def q_value(features: Tensor, action: Tensor) -> Tensor:
        """``r + gamma (1 - terminated) E[r' - alpha log pi(a'|s')]`` from either step."""
        after = torch.cat([features[..., :1] + action / 2, features[..., 1:] + 1], -1)
        reward = torch.cos(2 * after[..., 0] + action[..., 0])
        distribution, value = policy(after), torch.zeros_like(reward)
        for node, weight in zip(nodes, weights, strict=True):
            pre_action = distribution.pre_action(node.expand_as(action))
            following = distribution.squash(pre_action)
            last = torch.cos(2 * (after[..., 0] + following[..., 0] / 2) + following[..., 0])
            value = value + weight * (
                last - alpha * distribution.log_prob_of_pre_action(pre_action)
            )
        return reward + GAMMA * torch.where(after[..., 1] < 1.5, value, 0.0)

    generator = torch.Generator().manual_seed(3)
    draw = functools.partial(noise_of, (num_steps, num, 1), generator)
    vector = DifferentiableVectorEnv(env, num, dtype=F64)
    window, _ = unroll(vector, policy, reset(vector, seed=1, device=CPU), draw())
    critic = SoftCritic(q_value, alpha)
    found = gradients(critic_signals(policy, window, critic, gamma=GAMMA, draw_noise=draw))
    for first, second in (("score_function", "critic"), ("pathwise", "critic")):
        z = errors(found[first] - found[second], 0.0)
        assert float(z.abs().max()) < 4.5, (first, second)
        # All parameters together: at most as spread as one squared normal number times their count.
        assert float(z.square().mean()) < 1 + 5 * math.sqrt(2)
    assert float(errors(found["critic"], 0.0).abs().max()) > 20


def test_the_soft_reward_has_the_log_density_with_its_graph() -> None:
    """``r - alpha (log pi + h)``: its derivative by the action's shift is ``alpha eps / sigma``."""
    policy = linear_policy()
    vector = DifferentiableVectorEnv(Timed(LQG()), 6, dtype=F64)
    noise = noise_of((1, 6, 1), torch.Generator().manual_seed(0))
    window, _ = unroll(vector, policy, reset(vector, seed=1, device=CPU), noise)
    critic = SoftCritic(true_q(LQG(), 0.5), 0.5, entropy_target=-2.0)
    soft = soft_window(window, policy, critic)
    extra = soft.reward - window.reward
    torch.testing.assert_close(extra, 1.0 - 0.5 * window.log_prob)
    assert window.action_shift is not None
    (slope,) = torch.autograd.grad(extra.sum(), window.action_shift)
    torch.testing.assert_close(slope, 0.5 * noise / SIGMA)
    assert soft_window(window, policy, SoftCritic(critic.q_value)) is window


def test_an_entropy_at_its_target_is_worth_nothing() -> None:
    """The mean value is that of ``Q``; the same of a baseline."""
    policy, entropy = linear_policy(), 0.5 * math.log(2 * math.pi * math.e) + math.log(SIGMA)
    features = noise_of((1, 1, 2), torch.Generator().manual_seed(4)).expand(1, N, 2)
    noise = noise_of((1, N, 1), torch.Generator().manual_seed(5))
    plain = SoftCritic(lambda features, action: features.sum(-1))
    soft = SoftCritic(plain.q_value, 0.7, entropy)
    distribution = policy(features)
    worth, value = (critic.value(distribution, features, noise)[0] for critic in (soft, plain))
    assert abs(errors((worth - value).detach(), 0.0).item()) < 4.5
    torch.testing.assert_close(
        soft.baseline(distribution, features, noise), plain.baseline(distribution, features, noise)
    )
