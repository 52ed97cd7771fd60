"""Stochastic value gradients: an update by hand, targets, the model, and what is refused."""

import math
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import Tensor

from pgtoolkit.agents.svg import Svg, SvgConfig, averaged
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.registry.resolve import find_env
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.envs.vectorized.make import make_vector_env
from pgtoolkit.errors import RequestError
from pgtoolkit.rollouts.window import Window
from pgtoolkit.scripts import resume, train

HORIZONS = ("0", "1", "infinity")
SMALL: dict[str, Any] = {
    "hidden": (4,),
    "learning_starts": 1,
    "batch_size": 8,
    "replay_ratio": 0.01,
    "window_passes": 1,
    "model_hidden": (4,),
    "model_first_fit_steps": 3,
    "model_fit_steps": 2,
    "diagnostics_interval": 0,
}


class Line(gymnasium.Env[Any, Any]):
    """``s' = 0.8 s + 0.5 a + 0.1 noise``, reward ``-s^2 - 0.1 a^2``; ends as it is told."""

    observation_space = Box(-np.inf, np.inf, (2,), np.float32)
    action_space = Box(-np.inf, np.inf, (1,), np.float32)

    def __init__(self, ends: str = "never") -> None:
        self.ends = ends

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.state = self.np_random.normal(size=2).astype(np.float32)
        return self.state, {}

    def step(self, action: Any) -> Any:
        reward = -float((self.state**2).sum()) - 0.1 * float(action[0] ** 2)
        noise = 0.1 * self.np_random.normal(size=2)
        self.state = (0.8 * self.state + 0.5 * action[0] + noise).astype(np.float32)
        return self.state, reward, self.ends == "terminated", self.ends == "truncated", {}


def line(num_envs: int, ends: str = "never") -> Any:
    return gymnasium.vector.SyncVectorEnv(
        [lambda: Line(ends)] * num_envs,
        autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP,
    )


def exact(obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of a step of :class:`Line`."""
    return 0.8 * obs + 0.5 * action, -obs.square().sum(-1) - 0.1 * action.square().sum(-1)


class Exact:
    """Stands in for the learned model."""

    def __call__(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        return exact(obs, action)

    def add(self, window: Window) -> None:
        pass

    def fit(self) -> dict[str, Tensor]:
        return {}


def mlp(module: Any, x: Tensor) -> Any:
    """Two linear layers with a SiLU between, from their parameters."""
    first, second = [m for m in module.modules() if isinstance(m, torch.nn.Linear)]
    return torch.nn.functional.silu(x @ first.weight.T + first.bias) @ second.weight.T + second.bias


def of_adam(parameters: list[Tensor], gradients: Any, rate: float, clip: float) -> list[Tensor]:
    """The first step of Adam against gradients whose norm is clipped."""
    norm = math.sqrt(sum(float(g.square().sum()) for g in gradients))
    found = [g * min(1.0, clip / (norm + 1e-6)) for g in gradients]
    return [p - rate * g / (g.abs() + 1e-8) for p, g in zip(parameters, found, strict=True)]


@pytest.mark.parametrize("horizon", HORIZONS)
def test_an_update_on_a_window_of_three_steps_by_hand(horizon: Any) -> None:
    """Q, then the policy (in front of it where the horizon is infinite), in plain torch.

    The policy has moved since it acted, so the noise is not the stored one, and weights are not 1.
    """
    config = SvgConfig(
        **SMALL,
        horizon=horizon,
        num_envs=2,
        n_steps=3,
        num_critics=1,
        normalize_observations=False,
        importance_clip=0.95,
        ent_coef=0.3,
        ent_coef_relative=0.0,
        learning_rate=2e-3,
        q_learning_rate=3e-3,
        max_grad_norm=0.5,
        tau=0.25,
    )
    agent: Any = Svg(config, line(2), seed=1, total_steps=1000)
    if horizon != "0":
        agent.model = Exact()
    window = agent.collect()
    with torch.no_grad():
        for parameter in agent.policy.parameters():
            parameter += 0.1
        for parameter in agent.q.parameters():
            parameter += 0.05
    draws = torch.Generator()
    draws.set_state(agent.generator.get_state())

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, 1, generator=draws)

    policy, log_std = agent.policy, agent.policy.head.std.log_std
    rows = {k: v.flatten(0, 1) for k, v in vars(window).items() if isinstance(v, Tensor)}

    def drawn() -> dict[str, Tensor]:
        index = torch.randint(6, (8,), generator=draws)
        return {k: v[index] for k, v in rows.items()}

    def act(obs: Tensor, eps: Tensor) -> Any:
        return mlp(policy, obs) + torch.exp(log_std) * eps

    def q(module: Any, obs: Tensor, action: Tensor) -> Any:
        return mlp(module, torch.cat([obs, action], -1)).squeeze(-1)

    def log_prob(obs: Tensor, u: Tensor) -> Any:
        z = (u - mlp(policy, obs)) * torch.exp(-log_std)
        return (-0.5 * z.square() - log_std - 0.5 * math.log(2 * math.pi)).sum(-1)

    def q_after(batch: dict[str, Tensor]) -> list[Tensor]:
        with torch.no_grad():
            following = q(
                agent.lagged.copy, batch["next_obs"], act(batch["next_obs"], noise(1, 8)[0])
            )
            target = batch["reward"] + 0.98 * following
        loss = (q(agent.q, batch["obs"], batch["action"]) - target).square().mean()
        parameters = list(agent.q.parameters())
        return of_adam(parameters, torch.autograd.grad(loss, parameters), 3e-3, 0.5)

    def policy_after(steps: dict[str, Tensor], T: int, N: int) -> list[Tensor]:
        steps = {k: v.reshape(T, N, *v.shape[1:]) for k, v in steps.items()}
        with torch.no_grad():
            eps = (steps["pre_action"] - mlp(policy, steps["obs"])) * torch.exp(-log_std)
            ratio = torch.exp(log_prob(steps["obs"], steps["pre_action"]) - steps["log_prob"])
            assert bool((ratio > 0.95).any()) and bool((ratio < 0.95).any())
        fresh = torch.zeros(T, N, 1) if horizon == "0" else noise(T, N)
        moved = torch.zeros(T, N, 1, requires_grad=True)
        s, J = steps["obs"][0], torch.zeros(N)
        for t in range(T):
            u = act(s, eps[t]) + moved[t]
            if horizon == "0":
                J = J + q(agent.q, s, u)
                break
            after, reward = exact(s, u)
            J = J + 0.98**t * reward
            s = after + (steps["next_obs"][t] - after).detach()
        if horizon != "0":
            J = J + 0.98**T * q(agent.q, s, act(s, fresh[-1]))
        (slope,) = torch.autograd.grad(J.sum(), moved)
        weighted = ratio.clamp(max=0.95).unsqueeze(-1) * slope
        noise(T, N)  # of the entropy, which is exact without bounds
        entropy = T * N * (log_std + 0.5 * math.log(2 * math.pi * math.e)).sum()
        surrogate = (weighted * act(steps["obs"], eps)).sum() + 0.3 * entropy
        parameters = list(policy.parameters())
        gradients = torch.autograd.grad(-surrogate / (T * N), parameters)
        return of_adam(parameters, gradients, 2e-3, 0.5)

    old_q = [p.detach().clone() for p in agent.lagged.copy.parameters()]
    if horizon == "infinity":
        wanted_policy = policy_after(rows, 3, 2)
        with torch.no_grad():
            saved = [p.clone() for p in policy.parameters()]
            for p, new in zip(policy.parameters(), wanted_policy, strict=True):
                p.copy_(new)
            wanted_q = torch.enable_grad()(q_after)(drawn())
            for p, old in zip(policy.parameters(), saved, strict=True):
                p.copy_(old)
    else:
        batch = drawn()
        wanted_q = q_after(batch)
        with torch.no_grad():
            saved = [p.clone() for p in agent.q.parameters()]
            for p, new in zip(agent.q.parameters(), wanted_q, strict=True):
                p.copy_(new)
            wanted_policy = torch.enable_grad()(policy_after)(batch, 1, 8)
            for p, old in zip(agent.q.parameters(), saved, strict=True):
                p.copy_(old)
    agent.update(window)
    for found, wanted in zip(policy.parameters(), wanted_policy, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=2e-6)
    for found, wanted in zip(agent.q.parameters(), wanted_q, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=2e-6)
    for found, old, new in zip(agent.lagged.copy.parameters(), old_q, wanted_q, strict=True):
        torch.testing.assert_close(found, 0.75 * old + 0.25 * new, rtol=0, atol=2e-6)


@pytest.mark.parametrize(("ends", "alive"), [("terminated", 0.0), ("truncated", 1.0)])
def test_a_terminal_state_has_no_value_and_a_time_limit_keeps_it(ends: str, alive: float) -> None:
    """Every episode has one step; the targets of a lagged Q that is 7 everywhere, reward aside."""
    agent: Any = Svg(SvgConfig(**SMALL, num_envs=2, n_steps=3), line(2, ends), total_steps=1000)
    agent.lagged = lambda features, action: torch.full((2, *action.shape[:-1]), 7.0)
    window = agent.collect()
    assert bool(getattr(window, ends).all())
    found = agent.target(window) - window.reward
    torch.testing.assert_close(found, torch.full_like(found, 0.98 * 7.0 * alive))


def test_the_target_takes_the_least_q_function() -> None:
    agent: Any = Svg(SvgConfig(**SMALL, num_envs=2, n_steps=3), line(2), total_steps=1000)
    agent.lagged = lambda features, action: torch.stack(
        [torch.full(action.shape[:-1], x) for x in (3.0, 2.0)]
    )
    window = agent.collect()
    torch.testing.assert_close(agent.target(window), window.reward + 0.98 * 2.0)


def test_nothing_is_learned_before_learning_starts() -> None:
    """And the buffer's size does not matter for when that is."""
    config = SvgConfig(
        **(SMALL | {"learning_starts": 24, "buffer_size": 10}), num_envs=2, n_steps=4
    )
    agent = Svg(config, line(2), total_steps=1000)
    moved = []
    for _ in range(4):
        before = [p.detach().clone() for p in agent.policy.parameters()]
        agent.update(agent.collect())
        after = agent.policy.parameters()
        moved.append(not all(torch.equal(a, b) for a, b in zip(before, after, strict=True)))
    assert moved == [False, False, True, True]


@pytest.mark.parametrize(("horizon", "name"), [("0", "critic"), ("1", "pathwise")])
def test_the_gradient_that_is_followed_is_measured_once_an_update(horizon: Any, name: str) -> None:
    settings: dict[str, Any] = SMALL | {"diagnostics_interval": 2, "replay_ratio": 1.0}
    agent = Svg(SvgConfig(**settings, horizon=horizon, num_envs=2, n_steps=3), line(2))
    first, second = (agent.update(agent.collect()) for _ in range(2))
    for statistic in ("variance", "signal", "norm"):
        assert bool(first[f"gradient/{name}/{statistic}"].isfinite())
    assert not any(tag.startswith(f"gradient/{name}") for tag in second)
    assert float(first["gradient/trajectories"]) == 8.0


def test_the_model_learns_the_step_and_holds_out_one_episode_in_ten() -> None:
    """Twenty episodes of five steps in two environments: the last of each ten is held out."""

    class Short(Line):
        def step(self, action: Any) -> Any:
            self.age = getattr(self, "age", 0) + 1
            return *super().step(action)[:3], self.age % 5 == 0, {}

    env = gymnasium.vector.SyncVectorEnv(
        [Short] * 2, autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP
    )
    settings: dict[str, Any] = SMALL | {"model_first_fit_steps": 500, "model_hidden": (32,)}
    config = SvgConfig(**settings, horizon="1", num_envs=2, n_steps=50)
    agent: Any = Svg(config, env, total_steps=1000)
    window = agent.collect()
    metrics = agent.update(window)
    learner = agent.model.learner
    assert (learner.training.added, learner.held_out.added) == (90, 10)
    episode = (window.done.long().cumsum(0) - window.done.long()) * 2 + torch.arange(2)
    assert torch.equal(learner.held_out.newest(99).obs, window.obs[episode % 10 == 9])
    assert float(metrics["environment/model_error"]) < 0.5
    predicted, reward = agent.predicted(
        window.obs[:3].flatten(0, 1), window.action[:3].flatten(0, 1)
    )
    assert predicted.shape == (6, 2) and reward.shape == (6,)


@pytest.mark.parametrize("horizon", HORIZONS)
def test_discrete_actions_are_refused(horizon: Any) -> None:
    env = make_vector_env(find_env("CartPole-v1"), 4)
    with pytest.raises(RequestError, match="continuous actions"):
        Svg(SvgConfig(horizon=horizon), env)


class Picture(gymnasium.Env[Any, Any]):
    observation_space = Box(0, 255, (3, 40, 40), np.uint8)
    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        return self.observation_space.sample(), -float(action[0] ** 2), False, False, {}


@pytest.mark.parametrize("horizon", ["1", "infinity"])
def test_a_model_of_images_is_refused(horizon: Any) -> None:
    """The message names the horizon that needs no model, and that one trains on images."""
    env = gymnasium.vector.SyncVectorEnv([Picture] * 2)
    config: dict[str, Any] = SMALL | {"num_envs": 2, "n_steps": 2, "buffer_size": 20}
    with pytest.raises(RequestError, match="--horizon 0"):
        Svg(SvgConfig(**config, horizon=horizon), env)
    agent = Svg(SvgConfig(**config, horizon="0"), env, total_steps=100)
    before = [p.detach().clone() for p in agent.policy.parameters()]
    agent.update(agent.collect())
    after = agent.policy.parameters()
    assert not all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert agent.replay.newest(1).obs.dtype == torch.uint8


@pytest.mark.parametrize("name", ["beta", "flow", "full_gaussian", "mixture"])
def test_a_policy_without_noise_to_infer_is_refused(name: Any) -> None:
    with pytest.raises(RequestError, match="distribution must be gaussian"):
        SvgConfig(distribution=name)


def test_the_critic_is_in_the_unit_of_the_update() -> None:
    env = DifferentiableVectorEnv(Pendulum(), 4)
    config = SvgConfig(**SMALL, num_envs=4, n_steps=8, normalize_rewards=True)
    agent = Svg(config, env, total_steps=1000)
    agent.update(agent.collect())
    assert agent.critic.module is agent.q and agent.critic.temperature == 0.0
    assert agent.critic.reward_scale == float(agent.collector.reward_normalizer.scale) != 1.0
    plain = Svg(SvgConfig(**SMALL, num_envs=4, n_steps=8), env, total_steps=1000)
    assert plain.critic.reward_scale == 1.0


def test_metrics_are_averaged_over_those_that_have_them() -> None:
    two = [{"a": torch.tensor(1.0), "b": torch.tensor(5.0)}, {"a": torch.tensor(2.0)}]
    assert averaged(two) == {"a": torch.tensor(1.5), "b": torch.tensor(5.0)}
    assert averaged([]) == {}


@pytest.mark.parametrize("critic", ["mse", "hl_gauss"])
@pytest.mark.parametrize("horizon", HORIZONS)
def test_the_command_line_trains_it_on_an_ordinary_environment(
    horizon: str, critic: str, tmp_path: Path
) -> None:
    """No adapter is named; the run can be resumed."""
    flags = ["--horizon", horizon, "--critic", critic, "--total-steps", "128", "--hidden", "4"]
    flags += ["--learning-starts", "64", "--replay-ratio", "0.1", "--batch-size", "8"]
    flags += ["--model-first-fit-steps", "2", "--eval-interval", "0", "--critic-layer-norm"]
    run = tmp_path / "run"
    train.run(["svg", "--env", "Pendulum-v1", *flags, "--run-dir", str(run)])
    resume.run([str(run), "--total-steps", "192"])


@pytest.mark.slow
@pytest.mark.parametrize("horizon", ["0", "1"])
def test_it_learns_the_pendulum(horizon: Any) -> None:
    """An untrained policy returns about -1200; 100 episodes from starts unseen in training."""
    from pgtoolkit.rollouts.evaluation import evaluate

    config = SvgConfig(horizon=horizon)
    agent = Svg(config, make_vector_env(find_env("Pendulum-v1"), config.num_envs))
    while agent.collector.num_steps < 20_000:
        agent.update(agent.collect())
    env = make_vector_env(find_env("Pendulum-v1"), 20)
    cpu = torch.device("cpu")
    found = evaluate(env, agent.policy, episodes=100, seed=7, device=cpu).mean_return
    assert found > -170.0


def test_comparisons_of_the_exact_gradients_are_not_told_as_those_of_a_models() -> None:
    """With a model, ``pathwise`` is through it; the tags of pairs name no estimator."""
    pair = ("gradient/bias_z", "gradient/variance_ratio", "gradient/cosine")
    found = {}
    for horizon in ("0", "1"):
        settings: dict[str, Any] = SMALL | {"num_envs": 6, "diagnostics_interval": 1}
        config = SvgConfig(**settings, horizon=horizon)
        agent = Svg(config, DifferentiableVectorEnv(Pendulum(), 6), seed=0)
        for _ in range(3):
            found[horizon] = agent.update(agent.collect())
    assert all(tag in found["0"] for tag in pair)
    assert not any(tag in found["1"] for tag in pair)
    for metrics in found.values():
        assert "gradient/critic/bias_z" in metrics
        assert "gradient/probe/pathwise/variance" in metrics


class Clock(gymnasium.Env[np.ndarray, np.ndarray]):
    """Observes ``1.7e9 + 10 x``, which float32 rounds to one number."""

    observation_space = Box(-np.inf, np.inf, (1,), np.float64)
    action_space = Box(-1, 1, (1,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: Any = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self.look(), {}

    def look(self) -> np.ndarray:
        return 1.7e9 + 10 * self.np_random.uniform(-1, 1, 1)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return self.look(), -(float(action[0]) ** 2), False, self.steps >= 10, {}


def test_without_a_model_replayed_observations_keep_their_digits() -> None:
    config = SvgConfig(num_envs=2, n_steps=40, learning_starts=10**6, horizon="0", hidden=(8,))
    agent = Svg(config, Clock, seed=0)
    for _ in range(2):
        agent.update(agent.collect())
    features = agent.policy.normalizer(agent.draw().obs)
    assert features.dtype == torch.float32 and len(features.unique()) > 40
