"""Real trajectories with the gradient of a learned model."""

import dataclasses
import gc
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import Tensor

import pgtoolkit
from pgtoolkit.agents.shac import Shac, ShacConfig
from pgtoolkit.envs.adapters.learned.env import LearnedModel, RunningState
from pgtoolkit.envs.adapters.learned.learner import random_transitions
from pgtoolkit.envs.adapters.learned.model import ModelConfig
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.errors import RequestError
from pgtoolkit.gymnasium_types import AnyEnv
from pgtoolkit.rollouts.evaluation import evaluate
from pgtoolkit.training.checkpoint import load_checkpoint, save_checkpoint

TINY = ModelConfig(
    hidden=(8,), initial_steps=100, initial_fit_steps=5, fit_steps=2, batch_size=16, capacity=500
)


def pendulum() -> AnyEnv:
    return gymnasium.make("Pendulum-v1")


class Drift(gymnasium.Env[np.ndarray, np.ndarray]):
    """``o' = o + 0.1 a`` from a random start; above 0.5 it terminates."""

    observation_space = Box(-10, 10, (1,), np.float64)
    action_space = Box(-10, 10, (1,), np.float64)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, Any]:
        super().reset(seed=seed)
        self.place = self.np_random.uniform(-0.1, 0.1, 1)
        return self.place, {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.place += 0.1 * action  # in place, as careless environments do
        place = float(self.place[0])
        return self.place, -(place**2), place > 0.5, False, {}


def drift(config: ModelConfig = TINY, **kwargs: Any) -> LearnedModel:
    return LearnedModel(Drift, config, **{"max_episode_steps": 20} | kwargs)


def actions(num_steps: int, num_envs: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 4 * torch.rand(num_steps, num_envs, 1, generator=generator) - 2


def test_values_are_those_of_the_plain_environment_to_the_bit() -> None:
    """Compared over two episodes and their ends, while a graph is recorded."""
    env = LearnedModel(pendulum, TINY, max_episode_steps=30)
    vector = DifferentiableVectorEnv(env, 3)
    obs, _ = vector.reset(seed=5)
    state: RunningState = vector.get_state().state  # type: ignore[assignment]
    plain = [gymnasium.make("Pendulum-v1", max_episode_steps=30) for _ in range(3)]

    def restarted(seeds: Tensor) -> np.ndarray:
        return np.stack([e.reset(seed=int(s))[0] for e, s in zip(plain, seeds, strict=True)])

    assert np.array_equal(obs.numpy(), restarted(state.seed))
    vector.detach()
    for action in actions(60, 3).requires_grad_():
        obs, reward, terminated, truncated, info = vector.step(action)
        assert obs.requires_grad or bool(truncated.all())
        real = [e.step(a) for e, a in zip(plain, action.detach().numpy(), strict=True)]
        after = np.stack([step[0] for step in real])
        assert np.array_equal(info.get("final_obs", obs).detach().numpy(), after)
        assert np.array_equal(
            reward.detach().numpy(), np.array([step[1] for step in real], np.float32)
        )
        assert not terminated.any() and truncated.tolist() == [step[3] for step in real]
        if truncated.any():
            state = vector.get_state().state  # type: ignore[assignment]
            assert np.array_equal(obs.detach().numpy(), restarted(state.seed))


def test_the_gradient_is_the_chain_of_the_model_at_real_states() -> None:
    """Heess et al. 2015, equation 9 by hand: ``v_s = r_s + v'_s' f_s``, in float64."""
    env = LearnedModel(pendulum, TINY, seed=2)
    env.prepare()
    env.learner.model.double()
    vector = DifferentiableVectorEnv(env, 2, dtype=torch.float64)
    vector.reset(seed=0)
    chosen = actions(6, 2).double().requires_grad_()
    observations, rewards = [vector.detach()], []
    for action in chosen:
        obs, reward, *_ = vector.step(action)
        observations.append(obs)
        rewards.append(reward)
    total = torch.stack(rewards).sum() + observations[-1].sin().sum()
    (found,) = torch.autograd.grad(total, chosen)

    def model(row: Tensor) -> Tensor:
        predicted = env.learner.model(row[None, :3], row[None, 3:])
        means = predicted.next_obs.mean(0)[0], predicted.reward.mean(0)
        return torch.cat(means)

    for row in range(2):
        value = observations[-1][row].detach().cos()
        for t in reversed(range(6)):
            at = torch.cat([observations[t][row].detach(), chosen[t, row].detach()])
            jacobian = torch.func.jacrev(model)(at)  # [O + 1, O + A]
            by_both = value @ jacobian[:3] + jacobian[3]
            torch.testing.assert_close(by_both[3:], found[t, row], rtol=1e-10, atol=1e-12)
            value = by_both[:3]


@pytest.mark.parametrize(
    "seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]
)
def test_the_gradient_of_pendulum_is_near_the_true_one(seed: int) -> None:
    """Median cosine over 200 rows, after 10,000 steps with random actions and 25 more.

    With two steps the signal is smallest: the last action affects only its cost, whose slope is
    0.002, while rewards vary over a range of 16.
    """
    config = ModelConfig(hidden=(64, 64), initial_steps=10_000, initial_fit_steps=1000)
    env = LearnedModel(pendulum, config, seed=seed)
    state = env.initial(200, torch.Generator().manual_seed(7))
    with torch.no_grad():
        for action in actions(25, 200, seed=1):
            state = env.transition(state, action, None)
    chosen = actions(15, 200, seed=2)
    angle = torch.atan2(state.observation[:, 1], state.observation[:, 0])
    truth, exact = Pendulum(), torch.stack([angle, state.observation[:, 2]], -1)
    learned, true = [], []
    ours, theirs = chosen.clone().requires_grad_(), chosen.double().requires_grad_()
    for t in range(15):
        after = env.transition(state, ours[t], None)
        learned.append(env.reward(state, ours[t], after).sum())
        further = truth.transition(exact, theirs[t], None)
        true.append(truth.reward(exact, theirs[t], further).sum())
        state, exact = after, further
    for horizon, least in ((2, 0.9), (5, 0.97), (15, 0.98)):
        pair = (
            torch.autograd.grad(sum(rewards[:horizon]), at, retain_graph=True)[0][:horizon, :, 0]  # type: ignore[arg-type]
            for rewards, at in ((learned, ours), (true, theirs))
        )
        a, b = (gradient.double() for gradient in pair)
        assert torch.cosine_similarity(a, b, dim=0).median() > least


def test_an_old_state_is_refused_and_a_fresh_one_is_not() -> None:
    env = drift()
    start = env.initial(2, torch.Generator().manual_seed(0))
    action = torch.ones(2, 1, dtype=torch.float64)
    first = env.transition(start, action, None)
    second = env.transition(first, action, None)
    with pytest.raises(RequestError, match="environment 0 cannot step from an old state"):
        env.transition(first, action, None)
    env.transition(second, action, None)
    again = env.transition(start, action, None)
    assert torch.equal(again.observation, first.observation)
    with pytest.raises(RequestError, match="old state"):
        env.transition(second, action, None)


def test_a_start_that_its_seed_does_not_fix_is_refused() -> None:
    class Careless(Drift):
        def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, Any]:
            return super().reset()

    env = LearnedModel(Careless, TINY, max_episode_steps=20)
    state = env.initial(1, torch.Generator().manual_seed(0))
    with pytest.raises(RequestError, match="not repeatable"):
        env.transition(state, torch.ones(1, 1), None)


def test_ends_of_episodes_come_from_the_environment() -> None:
    """A terminated row is reset and has no gradient from before; the other row keeps its own."""
    env = drift()
    vector = DifferentiableVectorEnv(env, 2)
    vector.reset(seed=0)
    vector.detach()
    chosen = torch.tensor([[9.0], [0.1]]).requires_grad_()
    obs, _, terminated, truncated, info = vector.step(chosen)
    assert terminated.tolist() == [True, False] and truncated.tolist() == [False, False]
    assert info["final_obs"][0] > 0.5 and obs[0] < 0.2
    after, *_ = vector.step(torch.zeros(2, 1))
    (gradient,) = torch.autograd.grad(after.sum(), chosen)
    assert gradient[0] == 0 and gradient[1] != 0


def test_a_truncation_of_the_environment_s_own() -> None:
    class Leaves(Drift):
        def step(self, action: np.ndarray) -> Any:
            after, reward, terminated, _, info = super().step(action)
            return after, reward, terminated, bool(after[0] < -0.5), info

    env = LearnedModel(Leaves, TINY, max_episode_steps=20)
    start = env.initial(2, torch.Generator().manual_seed(0))
    after = env.transition(start, torch.tensor([[-9.0], [0.0]]), None)
    assert env.truncated(after).tolist() == [True, False]
    assert env.terminal(after).tolist() == [False, False]
    with pytest.raises(RequestError, match="episode of environment 0 has ended"):
        env.transition(after, torch.zeros(2, 1), None)
    fresh = env.reset_where(after, env.truncated(after), torch.Generator().manual_seed(1))
    assert fresh.step_token[0] == 0 and fresh.step_token[1] == after.step_token[1]
    assert env.transition(fresh, torch.zeros(2, 1), None).truncated.tolist() == [False, False]


def test_every_step_is_filed_and_one_episode_in_ten_is_held_out() -> None:
    env = drift(ModelConfig(hidden=(8,), initial_steps=0, initial_fit_steps=0, capacity=1000))
    vector = DifferentiableVectorEnv(env, 20)
    vector.reset(seed=0)
    shown = []
    for _ in range(5):
        before = vector.get_state().state[0]
        vector.step(torch.full((20, 1), 0.1))
        shown.append(before)
    observed = torch.stack(shown)
    rows = torch.tensor([0, 10])  # the first and the eleventh episode
    assert torch.equal(env.learner.held_out.newest(99).obs, observed[:, rows].flatten(0, 1))
    assert len(env.learner.training) == 90
    held, trained = (
        set(buffer.newest(99).obs.flatten().tolist())
        for buffer in (env.learner.held_out, env.learner.training)
    )
    assert not held & trained and held | trained == set(observed.flatten().tolist())


def test_it_is_fitted_where_the_graph_is_cut_and_only_to_news() -> None:
    env = drift()
    vector = DifferentiableVectorEnv(env, 2)
    vector.reset(seed=0)
    weights = env.learner.model.weights[0]

    def changed(act: Any) -> bool:
        before = weights.clone()
        act()
        return not torch.equal(before, weights)

    assert changed(vector.detach)
    assert not changed(vector.detach)
    assert not changed(lambda: vector.step(torch.zeros(2, 1, requires_grad=True)))
    assert changed(vector.detach)


def test_metrics() -> None:
    env = drift()
    vector = DifferentiableVectorEnv(env, 2)
    vector.reset(seed=0)
    vector.detach()
    vector.step(torch.zeros(2, 1))
    found = env.metrics()
    names = ("model_error", "model_reward_error", "ensemble_spread", "model_steps")
    assert set(found) == {f"environment/{name}" for name in names}
    assert all(value.isfinite() and value.dim() == 0 for value in found.values())
    assert found["environment/model_steps"] == 102


def test_memory_is_flat_over_many_windows() -> None:
    """Tensors are counted at two windows that begin at the same step of an episode.

    20 windows of 3 steps are 3 episodes of 20 steps.
    """
    env = drift(ModelConfig(hidden=(8,), initial_steps=100, capacity=500, fit_steps=1))
    vector = DifferentiableVectorEnv(env, 2)
    vector.reset(seed=0)
    gain = torch.ones(1, requires_grad=True)
    counts = []
    for window in range(1000):
        obs, total = vector.detach(), torch.zeros(())
        for _ in range(3):
            obs, reward, *_ = vector.step(-gain * obs)
            total = total + reward.sum()
        total.backward()  # type: ignore[no-untyped-call]
        if window in (299, 999):
            vector.detach()
            del obs, total, reward
            gc.collect()
            counts.append(sum(issubclass(type(thing), Tensor) for thing in gc.get_objects()))
    assert counts[0] == counts[1]
    assert all(len(row["actions"]) <= 20 for row in env.state_dict()["running_envs"]["rows"])


def shac(seed: int) -> tuple[LearnedModel, Shac]:
    env = drift(seed=seed)
    config = ShacConfig(num_envs=3, n_steps=4, hidden=(8,), diagnostics_interval=2)
    return env, Shac(config, DifferentiableVectorEnv(env, 3), seed=seed, total_steps=1000)


def test_shac_trains_and_resumes_to_the_bit(tmp_path: Any) -> None:
    """A checkpoint taken in the middle of episodes is loaded into new objects from a file."""
    env, agent = shac(seed=0)
    first = [p.clone() for p in agent.policy.parameters()]
    for _ in range(2):
        agent.update(agent.collect())
    policy = list(agent.policy.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(first, policy, strict=True))
    save_checkpoint(tmp_path / "c", {"env": env.state_dict(), "agent": agent.state_dict()})
    resumed_env, resumed = shac(seed=1)
    saved = load_checkpoint(tmp_path / "c")
    resumed_env.load_state_dict(saved["env"])
    resumed.load_state_dict(saved["agent"])
    for _ in range(3):
        agent.update(agent.collect())
        resumed.update(resumed.collect())
    pairs = zip(policy, resumed.policy.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert env.metrics() == resumed_env.metrics()


def test_an_environment_that_cannot_be_brought_back_is_refused() -> None:
    class Noisy(Drift):
        def step(self, action: np.ndarray) -> Any:
            return super().step(action + np.random.default_rng().normal())

    env, other = (LearnedModel(Noisy, TINY, max_episode_steps=20) for _ in range(2))
    state = env.initial(1, torch.Generator().manual_seed(0))
    env.transition(state, torch.zeros(1, 1), None)
    with pytest.raises(RequestError, match="not repeatable"):
        other.load_state_dict(env.state_dict())


def test_what_it_asks_of_an_environment() -> None:
    class Discrete_(Drift):
        action_space = Discrete(2)  # type: ignore[assignment]

    with pytest.raises(RequestError, match="no time limit"):
        LearnedModel(Drift)
    with pytest.raises(RequestError, match=r"Discrete_ is Discrete.*continuous actions$"):
        LearnedModel(Discrete_, max_episode_steps=5)
    assert LearnedModel(pendulum).max_episode_steps == 200
    assert LearnedModel(pendulum, max_episode_steps=50).max_episode_steps == 50


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_shac_swings_up_gymnasium_s_pendulum(seed: int) -> None:
    config = ShacConfig(diagnostics_interval=0)
    vector = DifferentiableVectorEnv(LearnedModel(pendulum, seed=seed), config.num_envs)
    agent = Shac(config, vector, seed=seed, total_steps=400_000)
    while agent.collector.num_steps < 395_000:
        agent.update(agent.collect())
    plain = SyncVectorEnv([pendulum] * 50, autoreset_mode=AutoresetMode.SAME_STEP)
    found = evaluate(plain, agent.policy, episodes=100, seed=1, device=torch.device("cpu"))
    assert found.mean_return >= -250


class Strict(Drift):
    """Takes actions from its action space only, whose bound float32 rounds outwards."""

    action_space = Box(-0.1, 0.1, (1,), np.float64)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        return super().step(action)


def test_actions_are_given_in_the_space_of_the_environment() -> None:
    env = DifferentiableVectorEnv(LearnedModel(Strict, TINY, max_episode_steps=20), 2)
    before, _ = env.reset(seed=0)
    after, *_ = env.step(torch.tensor([[0.1], [-0.1]]))
    expected = torch.tensor([[0.01], [-0.01]])
    torch.testing.assert_close(after.detach() - before, expected, atol=1e-6, rtol=0)


class Careless(Drift):
    """Returns the array that it fills again, from its reset on."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, Any]:
        return super().reset(seed=seed)[0], {}


def test_the_first_transitions_are_those_before_and_after_the_step() -> None:
    """An array that the environment fills again would hold the later observation in both."""
    found, _ = random_transitions(Careless, 50, num_episodes=2, seed=0)
    change = found.next_obs - found.obs
    torch.testing.assert_close(change, 0.1 * found.action, atol=1e-6, rtol=1e-5)


def test_without_first_steps_the_first_fit_is_at_the_first_window_with_data() -> None:
    config = dataclasses.replace(TINY, initial_steps=0)
    env = DifferentiableVectorEnv(drift(config), 3)
    model: Any = env.env
    env.reset(seed=0)
    model.begin_window()
    assert model._fitted_at is None
    for action in actions(8, 3):
        env.step(action)
    model.begin_window()
    assert model._fitted_at == 24


def test_a_run_on_a_model_is_evaluated_on_plain_environments(tmp_path: Path) -> None:
    """Only one vector environment at a time can use the model."""
    small: dict[str, Any] = {"num_envs": 4, "n_steps": 5, "eval_episodes": 3, "quiet": True}
    run = pgtoolkit.train("shac", drift, total_steps=60, run_dir=tmp_path / "run", **small)
    assert run.progress.eval_return is not None
    assert not isinstance(drift().plain_maker()().unwrapped, DifferentiableEnv)
