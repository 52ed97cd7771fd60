"""SAC and TD3: an update by hand, targets at ends of episodes, starts, memory, compiled loops."""

import math
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import Tensor, nn

from pgtoolkit.agent import HasCritic
from pgtoolkit.agents.sac import Sac, SacBatch, SacConfig
from pgtoolkit.agents.td3 import Td3, Td3Batch, Td3Config
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.errors import NonFiniteError, RequestError
from pgtoolkit.learners.replay_batches import bytes_of_transition, replay_sentence
from pgtoolkit.rollouts.window import Window

SMALL: dict[str, Any] = {
    "num_envs": 2,
    "n_steps": 8,
    "hidden": (8,),
    "batch_size": 16,
    "learning_starts": 16,
    "compile": "never",
    "diagnostics_interval": 0,
    "buffer_size": 200,
}
MAKERS: dict[str, Any] = {"sac": (Sac, SacConfig), "td3": (Td3, Td3Config)}
BOTH = pytest.mark.parametrize("name", MAKERS)


def pendulum(name: str, **settings: Any) -> Any:
    kind, config = MAKERS[name]
    made = config(**(SMALL | settings))
    return kind(made, DifferentiableVectorEnv(Pendulum(), made.num_envs), seed=1)


def linear(name: str, **settings: Any) -> Any:
    """An agent whose policy and critics are linear, in float64 arithmetic by hand below."""
    return pendulum(name, hidden=(), **settings)


def three_steps(agent: Any) -> Window:
    """A window of three steps of one environment: an ordinary one, a terminal one, a time limit."""
    window: Window = agent.collect()
    flags = torch.tensor([[False], [True], [False]])
    cut = torch.tensor([[False], [False], [True]])
    return Window(
        obs=window.obs[:3],
        next_obs=window.next_obs[:3],
        noise=window.noise[:3],
        pre_action=window.pre_action[:3],
        action=window.action[:3],
        log_prob=window.log_prob[:3],
        reward=window.reward[:3],
        terminated=flags,
        truncated=cut,
        valid=torch.ones_like(flags),
    )


def numbers(layer: nn.Linear) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    weight, bias = layer.weight.detach(), layer.bias.detach()
    return weight.double().numpy(), bias.double().numpy()


def q_of(member: Any, obs: Any, action: Any) -> Any:
    """A linear Q function of an action in [-2, 2]."""
    weight, bias = numbers(member.network[0])
    return np.concatenate([obs, action / 2], 1) @ weight[0] + bias[0]


def adam(gradient: Any, rate: float) -> Any:
    """Adam's first step."""
    return -rate * gradient / (np.abs(gradient) + 1e-8)


def as_numpy(*tensors: Tensor) -> list[Any]:
    return [x.double().numpy() for x in tensors]


def test_sac_by_hand() -> None:
    """One gradient step with linear networks on three steps: temperature, critics, policy."""
    agent = linear("sac", num_envs=1, learning_rate=1e-2, tau=0.25, gamma=0.9)
    window = three_steps(agent)
    rows = window.transitions()
    noise = torch.tensor([[0.5], [-1.0], [0.3]])
    mini = SacBatch(
        rows.obs,
        rows.action,
        rows.reward,
        rows.next_obs,
        (~rows.terminated).float(),
        noise,
        -noise,
    )
    with torch.no_grad():
        agent.policy.head.output.weight.normal_(generator=torch.Generator().manual_seed(0))
    weight, bias = numbers(agent.policy.head.output)
    q_before = [numbers(m.network[0]) for m in agent.q.members]
    obs, action, reward, next_obs, _, eps, next_eps = as_numpy(*mini)

    def act(at: Any, noise: Any) -> tuple[Any, Any, Any, Any]:
        output = at @ weight.T + bias
        mean, log_std = output[:, :1], output[:, 1:]
        u = mean + np.exp(log_std) * noise
        log_normal = -0.5 * noise**2 - log_std - 0.5 * math.log(2 * math.pi)
        return 2 * np.tanh(u), (log_normal - np.log(1 - np.tanh(u) ** 2))[:, 0], u, log_std

    next_action, next_log_prob, _, _ = act(next_obs, next_eps)
    value = np.minimum(*(q_of(m, next_obs, next_action) for m in agent.target.copy.members))
    target = reward + 0.9 * np.array([1, 0, 1]) * (value - next_log_prob)
    expected_q = []
    for member, (w, b) in zip(agent.q.members, q_before, strict=True):
        error = (q_of(member, obs, action) - target)[:, None]
        inputs = np.concatenate([obs, action / 2, np.ones((3, 1))], 1)
        gradient = (error * inputs).mean(0)
        expected_q.append(np.append(w[0], b) + adam(gradient, 1e-2))
    new_action, log_prob, u, log_std = act(obs, eps)
    inputs = np.concatenate([obs, new_action / 2, np.ones((3, 1))], 1)
    values = np.stack([inputs @ w for w in expected_q])
    slope = np.array([expected_q[j][3] for j in values.argmin(0)])[:, None]
    squashed = np.tanh(u)
    # d log pi / du = 2 tanh(u), with the density of the action in [-1, 1]; d a / du = 1 - tanh^2.
    by_mean = 2 * squashed - slope * (1 - squashed**2)
    by_log_std = by_mean * np.exp(log_std) * eps - 1
    by_output = np.concatenate([by_mean, by_log_std], 1)
    policy_gradient = by_output.T @ np.concatenate([obs, np.ones((3, 1))], 1) / 3
    expected_policy = np.concatenate([weight, bias[:, None]], 1) + adam(policy_gradient, 1e-2)
    expected_alpha = adam(-(log_prob.mean() - 1), 1e-2)

    agent.take(SacBatch(*(x[None] for x in mini)), 1e-2)
    for member, old, wanted in zip(agent.q.members, q_before, expected_q, strict=True):
        found = np.append(*numbers(member.network[0]))
        assert np.abs(found - wanted).max() < 1e-6
        assert np.abs(found - np.append(*old)).max() > 1e-3
    found = np.concatenate(
        [w if w.ndim == 2 else w[:, None] for w in numbers(agent.policy.head.output)], 1
    )
    assert np.abs(found - expected_policy).max() < 1e-6
    assert float(agent.alpha_rule.parameters[0].detach()) == pytest.approx(
        float(expected_alpha), abs=1e-6
    )
    for lagging, (w, b), wanted in zip(
        agent.target.copy.members, q_before, expected_q, strict=True
    ):
        mixed = 0.75 * np.append(w[0], b) + 0.25 * wanted
        assert np.abs(np.append(*numbers(lagging.network[0])) - mixed).max() < 1e-6


def test_td3_by_hand() -> None:
    """A gradient step with linear networks on three steps, smoothed target actions included."""
    agent = linear("td3", num_envs=1, learning_rate=1e-2, tau=0.25, gamma=0.9, policy_delay=1)
    rows = three_steps(agent).transitions()
    noise = torch.tensor([[0.5], [-1.0], [9.0]])  # the last one is clipped at 0.5
    mini = Td3Batch(
        rows.obs, rows.action, rows.reward, rows.next_obs, (~rows.terminated).float(), noise
    )
    weight, bias = numbers(agent.policy.head.output)
    obs, action, reward, next_obs, _, eps = as_numpy(*mini)
    mean = np.tanh(next_obs @ weight.T + bias) + np.clip(0.2 * eps, -0.5, 0.5)
    next_action = 2 * np.clip(mean, -1, 1)
    value = np.minimum(*(q_of(m, next_obs, next_action) for m in agent.target_q.copy.members))
    target = reward + 0.9 * np.array([1, 0, 1]) * value
    expected_q = []
    for member in agent.q.members:
        error = 2 * (q_of(member, obs, action) - target)[:, None]
        inputs = np.concatenate([obs, action / 2, np.ones((3, 1))], 1)
        start = np.append(*(x[0] if x.ndim == 2 else x for x in numbers(member.network[0])))
        expected_q.append(start + adam((error * inputs).mean(0), 1e-2))
    squashed = np.tanh(obs @ weight.T + bias)
    by_output = -expected_q[0][3] * (1 - squashed**2)
    gradient = by_output.T @ np.concatenate([obs, np.ones((3, 1))], 1) / 3
    expected = np.append(weight[0], bias) + adam(gradient[0], 1e-2)
    agent.take(Td3Batch(*(x[None] for x in mini)), 1e-2)
    for member, wanted in zip(agent.q.members, expected_q, strict=True):
        found = np.append(*numbers(member.network[0]))
        assert np.abs(found - wanted).max() < 1e-6
    assert np.abs(np.append(*numbers(agent.policy.head.output)) - expected).max() < 1e-6
    mixed = 0.75 * np.append(weight[0], bias) + 0.25 * expected
    lagging = np.append(*numbers(agent.target_policy.copy.head.output))
    assert np.abs(lagging - mixed).max() < 1e-6
    assert float(agent.policy.head.std.log_std.detach()) == pytest.approx(math.log(0.1))


@BOTH
def test_a_time_limit_is_no_end(name: str) -> None:
    """What is stored of a truncated step has a future, of a terminated one it has none."""
    agent = pendulum(name, num_envs=1)
    agent.update(three_steps(agent))
    alive = agent.batch_of(agent.replay.newest(3).map(lambda x: x[None])).alive
    assert alive.tolist() == [[1.0, 0.0, 1.0]]


@pytest.mark.parametrize(("target", "rises"), [(-50.0, False), (50.0, True)])
def test_the_temperature_rises_while_the_entropy_is_too_small(target: float, rises: bool) -> None:
    agent = pendulum("sac", target_entropy=target)
    for _ in range(4):
        agent.update(agent.collect())
    assert (agent.critic.temperature > 1) == rises


def test_a_given_temperature_stays() -> None:
    agent = pendulum("sac", ent_coef=0.2)
    for _ in range(4):
        metrics = agent.update(agent.collect())
    assert agent.critic.temperature == pytest.approx(0.2)
    assert float(metrics["train/ent_coef"]) == pytest.approx(0.2)


@BOTH
def test_the_first_actions_are_uniform_and_nothing_is_learned_then(name: str) -> None:
    """The moments of 4096 actions of the box [-2, 2], within 5 standard errors."""
    agent = pendulum(name, num_envs=64, n_steps=64, learning_starts=4096)
    before = [p.clone() for p in agent.policy.parameters()]
    window = agent.collect()
    metrics = agent.update(window)
    scaled = window.action.double() / 2
    assert abs(float(scaled.mean())) < 5 * (1 / 3 / 4096) ** 0.5
    assert abs(float(scaled.square().mean()) - 1 / 3) < 5 * (4 / 45 / 4096) ** 0.5
    assert torch.allclose(window.log_prob, torch.tensor(-math.log(4.0)))
    assert "train/critic_loss" not in metrics
    assert all(map(torch.equal, agent.policy.parameters(), before))
    agent.update(agent.collect())
    assert not all(map(torch.equal, agent.policy.parameters(), before))


@BOTH
def test_the_critic_is_a_view(name: str) -> None:
    agent = pendulum(name, normalize_rewards=True)
    agent.update(agent.collect())
    view = agent.critic
    assert view.module is agent.q
    assert view.module.choice == {"sac": "least", "td3": "first"}[name]
    assert view.reward_scale == pytest.approx(float(agent.collector.reward_normalizer.scale))
    assert view.temperature == {"sac": 1.0, "td3": 0.0}[name]
    assert isinstance(agent, HasCritic)


@BOTH
def test_replayed_rewards_are_divided_by_the_latest_scale(name: str) -> None:
    """One outlier shrinks rewards for a while only: what is stored keeps the environment's unit."""
    agent = pendulum(name, normalize_rewards=True)
    window = agent.collect()
    agent.update(window)
    stored = agent.replay.newest(16).reward
    assert torch.equal(stored, window.reward.flatten())
    drawn = agent.batch_of(agent.replay.newest(16).map(lambda x: x[None])).reward[0]
    assert torch.allclose(drawn, stored / float(agent.collector.reward_normalizer.scale))


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize("critic", ["mse", "hl_gauss"])
def test_compiled_equals_plain(name: str, critic: str) -> None:
    """After three updates, to float32 rounding and the compiled tanh's 4e-7."""
    ends = []
    for compile in ("never", "always"):
        agent = pendulum(name, compile=compile, critic=critic, critic_layer_norm=True)
        for _ in range(4):
            agent.update(agent.collect())
        ends.append(
            [p.detach().clone() for p in [*agent.policy.parameters(), *agent.q.parameters()]]
        )
    for plain, compiled in zip(*ends, strict=True):
        assert torch.allclose(plain, compiled, atol=2e-4)


@BOTH
def test_a_loss_that_is_not_finite_changes_nothing(name: str) -> None:
    agent = pendulum(name)
    for _ in range(2):
        agent.update(agent.collect())
    before = [p.detach().clone() for p in [*agent.policy.parameters(), *agent.q.parameters()]]
    agent.replay._storage["reward"][:] = torch.inf
    with pytest.raises(NonFiniteError, match="critic_loss of minibatch 0"):
        agent.update(agent.collect())
    after = [*agent.policy.parameters(), *agent.q.parameters()]
    assert all(map(torch.equal, after, before))


class Pictures(gymnasium.Env[Any, Any]):
    """Observations are pictures of 12 by 12 bytes; the reward is minus the action's size."""

    observation_space = Box(0, 255, (12, 12, 1), np.uint8)
    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.observation_space.sample(), -float(abs(action[0])), False, False, {}


@BOTH
def test_pictures_are_stored_as_bytes(name: str) -> None:
    kind, config = MAKERS[name]
    env = gymnasium.vector.SyncVectorEnv([Pictures, Pictures])
    agent = kind(config(**SMALL), env, seed=1)
    for _ in range(3):
        window = agent.collect()
        metrics = agent.update(window)
    assert bool(metrics["train/critic_loss"].isfinite())
    newest = agent.replay.newest(16)
    assert newest.obs.dtype == newest.next_obs.dtype == torch.uint8
    assert torch.equal(newest.obs.float(), window.obs.flatten(0, 1))
    assert bytes_of_transition(agent.collector.spaces) == 2 * 144 + 4 * 2 + 1
    stored = sum(x[:1].numel() * x.element_size() for x in agent.replay._storage.values())
    assert stored == bytes_of_transition(agent.collector.spaces)


@BOTH
def test_memory_is_stated_and_refused_before_it_is_taken(name: str) -> None:
    with pytest.raises(RequestError, match="buffer_size smaller"):
        pendulum(name, buffer_size=10**9)
    spaces = pendulum(name).collector.spaces
    assert replay_sentence(1_000_000, spaces) == (
        "replay buffer: up to 33.0 MB of memory, taken as it fills "
        "(1,000,000 transitions of 33 bytes)"
    )


@BOTH
def test_discrete_actions_are_refused(name: str) -> None:
    kind, config = MAKERS[name]
    env = gymnasium.make_vec("CartPole-v1", 2, vectorization_mode="sync")
    with pytest.raises(RequestError, match="continuous actions"):
        kind(config(**SMALL), env)


@pytest.mark.parametrize(("delay", "steps", "policy_steps"), [(2, 5, 2), (3, 4, 1), (1, 5, 5)])
def test_rounds_span_updates(delay: int, steps: int, policy_steps: int) -> None:
    """The policy moves at every ``delay``-th step of all, wherever an update begins."""
    agent = pendulum("td3", policy_delay=delay, gradient_steps=1)
    agent.update(agent.collect())
    agent.update(agent.collect())
    moved = 0
    agent.num_minibatches = 0
    for _ in range(steps):
        before = float(agent.policy_rule.state.steps)
        agent.update(agent.collect())
        moved += int(float(agent.policy_rule.state.steps) > before)
    assert moved == policy_steps
    whole = pendulum("td3", policy_delay=delay, gradient_steps=steps)
    whole.update(whole.collect())
    whole.update(whole.collect())
    assert float(whole.policy_rule.state.steps) == policy_steps


@BOTH
def test_correlated_noise_is_the_noise_of_the_policys_actions_alone(name: str) -> None:
    """Uniformly random actions stay independent; after them the noise is the filtered one."""
    agent = pendulum(name, noise_correlation=0.9)
    independent = pendulum(name)
    for _ in range(2):
        before = agent.collector.correlate.before
        found, drawn = agent.collect().noise, independent.collect().noise
        agent.collector.num_steps = independent.collector.num_steps = 16
    row = 0.9 * before + math.sqrt(0.19) * drawn[0]
    torch.testing.assert_close(found[0], row)
    assert torch.equal(pendulum(name, noise_correlation=0.9).collect().noise, first_noise(name))


def first_noise(name: str) -> Tensor:
    """The noise of the uniformly random actions at the start."""
    found: Tensor = pendulum(name).collect().noise
    return found


@BOTH
def test_correlated_noise_goes_on_after_a_resume(name: str) -> None:
    one, other = (pendulum(name, noise_correlation=0.9, learning_starts=0) for _ in range(2))
    one.collect()
    other.collector.load_state_dict(one.collector.state_dict())
    assert torch.equal(one.collect().noise, other.collect().noise)
