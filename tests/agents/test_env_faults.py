"""Updates on windows in which an environment failed: only the steps that were taken count."""

import dataclasses
import itertools
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import Tensor

from pgtoolkit.agents.a2c import A2c, A2cConfig
from pgtoolkit.agents.npg import Npg, NpgConfig
from pgtoolkit.agents.ppo import Ppo, PpoConfig
from pgtoolkit.agents.reinforce import Reinforce, ReinforceConfig
from pgtoolkit.agents.reppo import Reppo, ReppoConfig
from pgtoolkit.agents.svg import Svg, SvgConfig
from pgtoolkit.agents.trpo import Trpo, TrpoConfig
from pgtoolkit.envs.registry.guard import guard
from pgtoolkit.envs.vectorized.stepping import OnFault, Stepping
from pgtoolkit.envs.vectorized.vector_env import OrdinaryVectorEnv
from pgtoolkit.estimators.returns import window_returns
from pgtoolkit.rollouts.reward_normalizer import RewardNormalizer
from pgtoolkit.rollouts.window import Window, map_window
from pgtoolkit.training.progress import Progress

NUM_ENVS, NUM_STEPS, BAD_STEP, LENGTH = 3, 8, 4, 6


class Fails(gymnasium.Env[Any, Any]):
    """Observation: drawn numbers plus the step; episodes of six steps.

    Args:
        bad_step: the step at which it fails, counted over all episodes; 0 for never.
    """

    observation_space = Box(-99, 99, (2,), np.float32)
    action_space = Box(-1, 1, (1,), np.float32)

    def __init__(self, bad_step: int) -> None:
        self.bad_step = bad_step

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.start, self.count = self.np_random.normal(size=2), 0
        return self.look(), {}

    def look(self) -> Any:
        return (self.start + self.count).astype(np.float32)

    def step(self, action: Any) -> Any:
        self.count += 1
        if self.count == self.bad_step:
            raise ValueError("lost")
        reward = float(self.start.sum() - (action**2).sum())
        return self.look(), reward, False, self.count == LENGTH, {}


def make(on_fault: OnFault) -> OrdinaryVectorEnv:
    """The second of the environments fails, and the one that replaces it does not."""
    steps = itertools.chain([0, BAD_STEP, 0], itertools.repeat(0))
    return OrdinaryVectorEnv(
        lambda: guard(Fails(next(steps)), "Fails"), NUM_ENVS, stepping=Stepping(on_fault=on_fault)
    )


SMALL: dict[str, Any] = {"num_envs": NUM_ENVS, "n_steps": NUM_STEPS}
AGENTS: dict[str, Any] = {
    "reinforce": lambda env, **kw: Reinforce(ReinforceConfig(**SMALL, **kw), env),
    "a2c": lambda env, **kw: A2c(A2cConfig(**SMALL, **kw), env),
    "npg": lambda env, **kw: Npg(NpgConfig(**SMALL, **kw), env),
    "trpo": lambda env, **kw: Trpo(TrpoConfig(**SMALL, **kw), env),
    "ppo": lambda env, **kw: Ppo(
        PpoConfig(**SMALL, batch_size=5, n_epochs=2, compile="never", **kw), env
    ),
    **{
        f"svg {horizon}": lambda env, horizon=horizon, **kw: Svg(
            SvgConfig(**SMALL, horizon=horizon, learning_starts=1, batch_size=8, **kw), env
        )
        for horizon in ("0", "infinity")
    },
    "reppo": lambda env, **kw: Reppo(
        ReppoConfig(**SMALL, batch_size=5, n_epochs=2, compile="never", **kw), env
    ),
}


def collected(name: str, on_fault: OnFault, **kwargs: Any) -> tuple[Any, Window]:
    agent = AGENTS[name](make(on_fault), **kwargs)
    return agent, agent.collect()


def test_the_window_says_which_steps_were_not_taken() -> None:
    _, window = collected("reinforce", "restart")
    taken = torch.ones(NUM_STEPS, NUM_ENVS, dtype=torch.bool)
    taken[BAD_STEP - 1, 1] = False
    assert torch.equal(window.valid, taken)
    column = BAD_STEP - 1
    assert window.reward[column, 1] == 0 and not window.done[column, 1]
    assert torch.equal(window.next_obs[column, 1], window.obs[column, 1])
    # The segment ends with the last good observation; the episode is neither done nor counted.
    assert torch.equal(window.next_obs[column - 1, 1], window.obs[column, 1])
    assert window.segment_end[:, 1].nonzero().flatten().tolist() == [2, 3, 7]
    assert window.episode_start is not None
    assert window.episode_start[:, 1].nonzero().flatten().tolist() == [0, 4]
    assert window.segment_end[:, 0].nonzero().flatten().tolist() == [5, 7]


def test_a_dropped_environment_takes_no_more_steps() -> None:
    agent, window = collected("reinforce", "drop")
    for number, found in enumerate((window, agent.collect())):
        assert found.valid[:, [0, 2]].all()
        assert found.valid[:, 1].tolist() == [k < BAD_STEP - 1 and number == 0 for k in range(8)]
    assert agent.collector.num_steps == 2 * 2 * NUM_STEPS + BAD_STEP - 1
    assert float(agent.collector.metrics()["rollout/env_faults"]) == 1.0


def test_returns_are_those_of_the_parts_alone() -> None:
    """Before the fault with a bootstrap from the last good observation, and after it."""
    _, window = collected("reinforce", "restart")
    next_value = torch.randn(NUM_STEPS, NUM_ENVS, generator=torch.Generator().manual_seed(0))

    def returns(rows: slice) -> Tensor:
        whole = dataclasses.replace(window, segment_end=torch.zeros_like(window.valid))
        part = map_window(lambda x: x[rows, 1:2], whole)
        return window_returns(part, next_value[rows, 1:2], gamma=0.9, lambda_=0.8)[:, 0]

    whole = window_returns(window, next_value, gamma=0.9, lambda_=0.8)[:, 1]
    torch.testing.assert_close(whole[: BAD_STEP - 1], returns(slice(0, BAD_STEP - 1)))
    torch.testing.assert_close(whole[BAD_STEP:], returns(slice(BAD_STEP, None)))


def with_garbage(window: Window) -> Window:
    """Other numbers in the steps that were not taken."""
    lost = ~window.valid

    def changed(x: Tensor, by: float) -> Tensor:
        return torch.where(lost.view(*lost.shape, *[1] * (x.dim() - 2)), x + by, x)

    names = ("obs", "next_obs", "reward", "pre_action", "action", "noise", "log_prob")
    return dataclasses.replace(
        window, **{name: changed(getattr(window, name), 0.37) for name in names}
    )


@pytest.mark.parametrize("on_fault", ["restart", "drop"])
@pytest.mark.parametrize("normalize_rewards", [False, True])
@pytest.mark.parametrize("name", AGENTS)
def test_nothing_of_such_a_step_reaches_the_update(
    name: str, on_fault: OnFault, normalize_rewards: bool
) -> None:
    """Other numbers there change no parameter, no normaliser and no metric."""

    def updated(change: Any) -> tuple[Any, dict[str, float]]:
        agent, window = collected(name, on_fault, normalize_rewards=normalize_rewards)
        metrics = agent.update(change(window))
        numbers = {k: v.tolist() for k, v in metrics.items() if k != "gradient/overhead"}
        return agent.policy.state_dict(), numbers

    (state, metrics), (other, numbers) = updated(lambda w: w), updated(with_garbage)
    for key, tensor in state.items():
        assert torch.equal(tensor, other[key]), key
    assert metrics.keys() == numbers.keys()
    for key in metrics:
        assert metrics[key] == pytest.approx(numbers[key], nan_ok=True), key


def test_the_gradient_is_the_sum_over_the_steps_that_were_taken() -> None:
    """REINFORCE without a baseline: ``sum_t G_t dlog pi_t``, over the two parts, by hand."""
    agent, window = collected(
        "reinforce",
        "restart",
        baseline="none",
        advantage="reward_to_go",
        max_grad_norm=1e9,
        normalize_observations=False,
        ent_coef_relative=0.0,
    )
    gradients: dict[str, Tensor] = {}
    step = agent.learner.rule.step

    def noting(module: Any, problem: Any = None) -> Any:
        for key, parameter in module.named_parameters():
            gradients[key] = parameter.grad.clone()
        return step(module, problem)

    agent.learner.rule.step = noting
    value = agent.value.lagged(window.next_obs).detach()
    log_prob = agent.policy(window.obs).log_prob_of_pre_action(window.pre_action)
    gamma, total = agent.config.gamma, torch.zeros(())
    for env in range(NUM_ENVS):
        cuts = [0, BAD_STEP - 1, BAD_STEP, NUM_STEPS] if env == 1 else [0, LENGTH, NUM_STEPS]
        for first, after in itertools.pairwise(cuts):
            if env == 1 and first == BAD_STEP - 1:
                continue  # the step that was not taken
            following = value[after - 1, env]
            for t in range(after - 1, first - 1, -1):
                following = window.reward[t, env] + gamma * following
                total = total + following * log_prob[t, env]
    wanted = torch.autograd.grad(-total / NUM_ENVS / NUM_STEPS, list(agent.policy.parameters()))
    agent.update(window)
    for (key, found), by_hand in zip(gradients.items(), wanted, strict=True):
        torch.testing.assert_close(found, by_hand, rtol=1e-4, atol=1e-6, msg=key)


def test_broken_off_episodes_are_not_counted() -> None:
    """After the fault at its fourth step, episodes of environment 1 end with steps 10 and 16."""
    agent, window = collected("reinforce", "restart")
    progress = Progress()
    windows = [window, agent.collect()]
    for each in windows:
        progress.count(each)
    assert list(progress.lengths) == [LENGTH] * 6
    joined = torch.cat([w.reward[:, 1] for w in windows])
    assert any(x == pytest.approx(float(joined[4:10].sum())) for x in progress.returns)
    assert progress.num_steps == 2 * NUM_STEPS * NUM_ENVS - 1


def test_the_discounted_return_of_the_reward_scale_begins_anew() -> None:
    _, window = collected("reinforce", "restart")
    normalizer = RewardNormalizer(NUM_ENVS, 0.5)
    normalizer.update(window)
    running = 0.0
    for reward in window.reward[BAD_STEP:, 1].double():
        running = 0.5 * running + float(reward)
    assert float(normalizer.running[1]) == pytest.approx(running)


def test_whole_episodes_are_whole() -> None:
    """With ``--rollout episodes`` the part before the fault does not count."""
    agent, window = collected("reinforce", "restart", rollout="episodes")
    assert window.valid[:, 1].nonzero().flatten().tolist() == list(range(BAD_STEP, BAD_STEP + 6))
    assert window.valid[:, 0].nonzero().flatten().tolist() == list(range(6))
    assert len(window.valid) == BAD_STEP + LENGTH
    agent.update(window)
    agent, window = collected("reinforce", "drop", rollout="episodes")
    assert window.valid.sum(0).tolist() == [LENGTH, 0, LENGTH]
    agent.update(window)
    assert agent.collect().valid.sum(0).tolist() == [LENGTH, 0, LENGTH]


def test_a_window_of_nothing_but_faults_is_collected_again() -> None:
    steps = iter([1, 1, 0])
    env = OrdinaryVectorEnv(
        lambda: guard(Fails(next(steps)), "Fails"), 1, stepping=Stepping(on_fault="restart")
    )
    window = Reinforce(ReinforceConfig(num_envs=1, n_steps=1), env).collect()
    assert window.valid.tolist() == [[True]] and env.num_faults == 2
