"""Rollouts: transitions under every autoreset mode, the graph of a window, and its noise."""

import functools
from collections.abc import Callable
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from torch import Tensor, nn

from pgtoolkit.envs import DifferentiableEnv, DifferentiableVectorEnv
from pgtoolkit.errors import EnvFaultError, NonFiniteError, RequestError
from pgtoolkit.estimators.returns import gae, reward_to_go, td_lambda_returns
from pgtoolkit.estimators.surrogates import action_gradient, matched_score_weight, window_objective
from pgtoolkit.policies.discrete import CategoricalPolicy
from pgtoolkit.policies.gaussian import GaussianPolicy
from pgtoolkit.policies.policy import Policy
from pgtoolkit.rollouts.rollout import RolloutState, autoreset_mode, collect, reset, unroll
from pgtoolkit.rollouts.whole_episodes import collect_episodes
from pgtoolkit.rollouts.window import Window, concatenate

CPU = torch.device("cpu")
MODES = list(AutoresetMode)
GAMMA = 0.5

End = Literal["terminated", "truncated", "both"]
Plan = list[tuple[int, End]]

# Length and kind of end of each episode, one plan an environment, repeated for ever. The last
# environment never ends within the tests.
PLANS: list[Plan] = [
    [(3, "terminated"), (2, "truncated"), (1, "both")],
    [(2, "truncated"), (4, "terminated")],
    [(1, "terminated")],
    [(5, "both"), (1, "truncated")],
    [(1000, "truncated")],
]


class Counter(gym.Env[np.ndarray, np.ndarray]):
    """Observation: the number of the episode, and of the step in it.

    Reward ``step + 10 episode + action``, step counted from 1. What is not finite, where asked, is
    the observation or the reward of the step with that number in the first episode.
    """

    observation_space = Box(-1000, 1000, (2,), np.float32)
    action_space = Box(-np.inf, np.inf, (1,), np.float32)

    def __init__(self, plan: Plan, broken: str = "", at: int = 0) -> None:
        self.plan, self.broken, self.at = plan, broken, at
        self.episode, self.count = -1, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.episode, self.count = self.episode + 1, 0
        return self.observe(broken=self.broken == "reset" and self.episode == 1), {}

    def observe(self, broken: bool) -> np.ndarray:
        return np.array([np.inf if broken else self.episode, self.count], np.float32)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.count += 1
        length, end = self.plan[self.episode % len(self.plan)]
        reward = self.count + 10 * self.episode + float(action[0])
        here = self.episode == 0 and self.count == self.at
        reward = float("nan") if here and self.broken == "reward" else reward
        over = self.count == length
        return (
            self.observe(here and self.broken == "observation"),
            reward,
            over and end in ("terminated", "both"),
            over and end in ("truncated", "both"),
            {},
        )


def counters(plans: list[Plan], mode: AutoresetMode, **broken: Any) -> SyncVectorEnv:
    """The first environment has the fault, if there is one, at index 1."""
    kinds: list[dict[str, Any]] = [broken if i == 1 else {} for i in range(len(plans))]
    return SyncVectorEnv(
        [functools.partial(Counter, p, **k) for p, k in zip(plans, kinds, strict=True)],
        autoreset_mode=mode,
    )


def linear_policy() -> Policy:
    """Mean 0.25 step + 0.5 episode - 1, sigma 1."""
    policy = GaussianPolicy(Counter.observation_space, Counter.action_space, ())
    output = policy.head.output
    assert isinstance(output, nn.Linear)
    with torch.no_grad():
        output.weight.copy_(torch.tensor([[0.5, 0.25]]))
        output.bias.fill_(-1.0)
    return policy


def zeros(num_steps: int, num_envs: int) -> Tensor:
    return torch.zeros(num_steps, num_envs, 1)


def value(obs: Tensor) -> Tensor:
    """A value function that tells all states apart: 100 + 3 episode + step."""
    return 100 + 3 * obs[..., 0] + obs[..., 1]


Row = tuple[float, ...]


def by_hand(plan: Plan, num_steps: int) -> list[Row]:
    """Episode and step before and after, action, reward, and both flags, of a zero-noise run."""
    rows: list[Row] = []
    episode, count = 0, 0
    for _ in range(num_steps):
        length, end = plan[episode % len(plan)]
        action = 0.5 * episode + 0.25 * count - 1
        over = count + 1 == length
        terminated, truncated = over and end != "truncated", over and end != "terminated"
        reward = count + 1 + 10 * episode + action
        rows.append((episode, count, episode, count + 1, action, reward, terminated, truncated))
        episode, count = (episode + 1, 0) if over else (episode, count + 1)
    return rows


def rows_of(window: Window, env: int) -> list[Row]:
    """A window's valid steps in one environment, as rows like those of :func:`by_hand`."""
    names = ("obs", "next_obs", "action", "reward", "terminated", "truncated")
    columns = [getattr(window, name)[window.valid[:, env], env].float() for name in names]
    parts = [column.reshape(column.shape[0], -1) for column in columns]
    return [tuple(row) for row in torch.cat(parts, 1).tolist()]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("window_length", [1, 2, 3, 7, 24])
def test_valid_transitions_are_those_of_the_environment(
    mode: AutoresetMode, window_length: int
) -> None:
    """24 steps in windows of any length, with boundaries on ends: nothing lost, nothing invented.

    In particular ``next_obs`` is the observation before the reset, in every mode.
    """
    env, policy = counters(PLANS, mode), linear_policy()
    rollout_state, windows = reset(env, seed=0, device=CPU), []
    for _ in range(24 // window_length):
        window, rollout_state = collect(
            env, policy, rollout_state, zeros(window_length, len(PLANS))
        )
        windows.append(window)
    whole = concatenate(windows)
    for index, plan in enumerate(PLANS):
        rows = rows_of(whole, index)
        assert rows == by_hand(plan, len(rows))
        assert len(rows) == int(whole.valid[:, index].sum())
    env.close()


def test_only_the_step_after_an_end_is_invalid_under_next_step() -> None:
    """Episodes of 3, 2, 1 steps: x x x - x x - x - x x x; no other mode has an invalid step."""
    for mode in MODES:
        env = counters(PLANS, mode)
        window, rollout_state = collect(
            env, linear_policy(), reset(env, seed=0, device=CPU), zeros(12, len(PLANS))
        )
        if mode is AutoresetMode.NEXT_STEP:
            assert window.valid[:, 0].int().tolist() == [1, 1, 1, 0, 1, 1, 0, 1, 0, 1, 1, 1]
            assert window.valid[1:].equal(~window.done[:-1])
            assert rollout_state.needs_reset.equal(window.done[-1])
        else:
            assert bool(window.valid.all())
            assert not bool(rollout_state.needs_reset.any())
        assert not bool((window.done & ~window.valid).any())
        env.close()


def test_the_first_step_of_a_window_is_invalid_if_the_last_window_ended_an_episode() -> None:
    """The rollout state carries the pending reset: environment 0 ends on step 3."""
    env = counters(PLANS, AutoresetMode.NEXT_STEP)
    first, rollout_state = collect(
        env, linear_policy(), reset(env, seed=0, device=CPU), zeros(3, len(PLANS))
    )
    assert bool(first.terminated[2, 0]) and bool(rollout_state.needs_reset[0])
    second, _ = collect(env, linear_policy(), rollout_state, zeros(2, len(PLANS)))
    assert second.valid[:, 0].tolist() == [False, True]
    assert second.obs[1, 0].tolist() == [1.0, 0.0]
    env.close()


@pytest.mark.parametrize("mode", MODES)
def test_the_first_step_of_every_episode_is_marked(mode: AutoresetMode) -> None:
    """Over window boundaries too: it is the valid step whose observation has count 0."""
    env, policy = counters(PLANS, mode), linear_policy()
    rollout_state, windows = reset(env, seed=0, device=CPU), []
    for _ in range(8):
        window, rollout_state = collect(env, policy, rollout_state, zeros(3, len(PLANS)))
        windows.append(window)
    whole = concatenate(windows)
    assert whole.episode_start is not None
    assert whole.episode_start.equal(whole.valid & (whole.obs[..., 1] == 0))
    env.close()


def brute_force_returns(rows: list[Row], lambda_: float) -> list[float]:
    """TD(lambda) returns of one environment's valid rows, from the definition."""
    returns: list[float] = []
    for first in range(len(rows)):
        rewards, n_step = 0.0, []
        for t in range(first, len(rows)):
            _, _, episode, count, _, reward, terminated, truncated = rows[t]
            rewards += GAMMA ** (t - first) * reward
            bootstrap = 0.0 if terminated else 100 + 3 * episode + count
            n_step.append(rewards + GAMMA ** (t - first + 1) * bootstrap)
            if terminated or truncated:
                break
        total = sum((1 - lambda_) * lambda_**n * g for n, g in enumerate(n_step[:-1]))
        returns.append(total + lambda_ ** (len(n_step) - 1) * n_step[-1])
    return returns


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("lambda_", [0.0, 0.5, 1.0])
def test_returns_under_every_mode_equal_brute_force(mode: AutoresetMode, lambda_: float) -> None:
    """TD(lambda), GAE and reward-to-go on valid steps, with V = 100 + 3 episode + step."""
    env = counters(PLANS, mode)
    window, _ = collect(env, linear_policy(), reset(env, seed=0, device=CPU), zeros(16, len(PLANS)))
    flags = (window.terminated, window.truncated)
    next_value = value(window.next_obs).double()
    reward = window.reward.double()
    found = td_lambda_returns(reward, next_value, *flags, gamma=GAMMA, lambda_=lambda_)
    advantage = gae(
        reward, value(window.obs).double(), next_value, *flags, gamma=GAMMA, lambda_=lambda_
    )
    to_go = reward_to_go(reward, *flags, gamma=GAMMA, next_value=next_value)
    for index, plan in enumerate(PLANS):
        valid = window.valid[:, index]
        rows = by_hand(plan, int(valid.sum()))
        expected = brute_force_returns(rows, lambda_)
        assert found[valid, index].tolist() == pytest.approx(expected, rel=1e-12)
        values = [100 + 3 * row[0] + row[1] for row in rows]
        expected_advantage = [g - v for g, v in zip(expected, values, strict=True)]
        assert advantage[valid, index].tolist() == pytest.approx(expected_advantage, abs=1e-9)
        assert to_go[valid, index].tolist() == pytest.approx(
            brute_force_returns(rows, 1.0), rel=1e-12
        )
    env.close()


@pytest.mark.parametrize("mode", MODES)
def test_the_objective_under_every_mode_equals_brute_force(mode: AutoresetMode) -> None:
    """Sum over segments of the discounted reward from each segment's first *valid* step.

    The fake step of NEXT_STEP must not count as a step of the discount: with it, every episode but
    the first would weigh gamma times too little.
    """
    env = counters(PLANS, mode)
    window, _ = collect(env, linear_policy(), reset(env, seed=0, device=CPU), zeros(16, len(PLANS)))
    found = window_objective(window, value(window.next_obs), GAMMA)
    for index, plan in enumerate(PLANS):
        rows = by_hand(plan, int(window.valid[:, index].sum()))
        returns = brute_force_returns(rows, 1.0)
        expected = sum(g for t, g in enumerate(returns) if t == 0 or any(rows[t - 1][6:]))
        assert float(found[index]) == pytest.approx(expected, rel=1e-5)
    env.close()


@pytest.mark.parametrize("mode", MODES)
def test_the_matched_score_weight_under_every_mode_equals_brute_force(mode: AutoresetMode) -> None:
    """gamma^k (G_t - 7), k counted over valid steps from the segment's start."""
    env = counters(PLANS, mode)
    window, _ = collect(env, linear_policy(), reset(env, seed=0, device=CPU), zeros(16, len(PLANS)))
    baseline = torch.full_like(window.reward, 7.0)
    found = matched_score_weight(window, value(window.next_obs), baseline, GAMMA)
    for index, plan in enumerate(PLANS):
        valid = window.valid[:, index]
        rows = by_hand(plan, int(valid.sum()))
        returns = brute_force_returns(rows, 1.0)
        expected = [GAMMA ** row[1] * (g - 7) for row, g in zip(rows, returns, strict=True)]
        assert found[valid, index].tolist() == pytest.approx(expected, rel=1e-5)
    env.close()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_an_asynchronous_vector_environment_gives_the_same_transitions() -> None:
    """Environments in subprocesses, with autoreset SAME_STEP."""
    env = AsyncVectorEnv(
        [functools.partial(Counter, p) for p in PLANS], autoreset_mode=AutoresetMode.SAME_STEP
    )
    try:
        window, _ = collect(
            env, linear_policy(), reset(env, seed=0, device=CPU), zeros(9, len(PLANS))
        )
        for index, plan in enumerate(PLANS):
            assert rows_of(window, index) == by_hand(plan, 9)
    finally:
        env.close()


def test_valid_steps_of_a_natively_vectorised_cart_pole_are_those_of_a_single_one() -> None:
    """NEXT_STEP, from Gymnasium's own vector class: each valid step is one step of the dynamics."""
    env = gym.make_vec("CartPole-v1", num_envs=4, vectorization_mode="vector_entry_point")
    assert autoreset_mode(env) is AutoresetMode.NEXT_STEP
    policy = CategoricalPolicy(env.single_observation_space, env.single_action_space)
    noise = policy.draw_noise(80, 4, generator=torch.Generator().manual_seed(0))
    window, _ = collect(env, policy, reset(env, seed=0, device=CPU), noise)
    assert int((~window.valid).sum()) >= 4  # a random cart pole falls within about 25 steps
    assert window.valid[1:].equal(~window.done[:-1])
    single: Any = gym.make("CartPole-v1").unwrapped
    single.reset(seed=0)
    for t, index in window.valid.nonzero().tolist():
        single.state = window.obs[t, index].double().numpy()
        single.steps_beyond_terminated = None
        after, reward, terminated, _, _ = single.step(int(window.action[t, index]))
        assert window.next_obs[t, index].tolist() == pytest.approx(after.tolist(), abs=1e-5)
        assert float(window.reward[t, index]) == reward
        assert bool(window.terminated[t, index]) == terminated
    for t, index in (~window.valid).nonzero().tolist():
        assert window.next_obs[t, index].abs().max() <= 0.05  # CartPole's start
    env.close()


@pytest.mark.parametrize("mode", [None, "NextStepp", 3])
def test_an_unknown_autoreset_mode_is_a_request_error(mode: object) -> None:
    """Without a known mode it is unknown at which step an episode ends."""
    env = counters(PLANS, AutoresetMode.NEXT_STEP)
    env.metadata = {**env.metadata, "autoreset_mode": mode}
    with pytest.raises(RequestError, match="AutoresetMode"):
        collect(env, linear_policy(), reset(env, seed=0, device=CPU), zeros(1, len(PLANS)))
    env.close()


def test_an_autoreset_mode_may_be_given_by_its_value() -> None:
    """The mode may be the enum's value, as in metadata that was saved as JSON."""
    env = counters(PLANS, AutoresetMode.NEXT_STEP)
    env.metadata = {**env.metadata, "autoreset_mode": AutoresetMode.SAME_STEP.value}
    assert autoreset_mode(env) is AutoresetMode.SAME_STEP
    env.close()


def collect_once(noise: Tensor) -> Window:
    env = counters(PLANS, AutoresetMode.SAME_STEP)
    window, _ = collect(env, linear_policy(), reset(env, seed=0, device=CPU), noise)
    env.close()
    return window


def normal_noise(seed: int, num_steps: int = 6, num_envs: int = len(PLANS)) -> Tensor:
    return torch.randn(num_steps, num_envs, 1, generator=torch.Generator().manual_seed(seed))


def test_a_collected_window_carries_no_graph() -> None:
    """No field of the window requires a gradient, though the policy has parameters."""
    window = collect_once(normal_noise(0))
    assert not window.differentiable
    fields = [getattr(window, name) for name in window.__dataclass_fields__]
    assert not any(field.requires_grad for field in fields if field is not None)


def test_the_same_noise_gives_the_same_window_and_other_noise_another() -> None:
    """No random number is drawn but the noise: 'reuse' happens only when the same is given."""
    first, again, other = (collect_once(normal_noise(seed)) for seed in (0, 0, 1))
    for name in ("obs", "action", "pre_action", "reward", "log_prob", "noise"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert not bool((first.action == other.action).any())
    assert not bool((first.reward == other.reward).any())


def test_a_window_holds_what_its_noise_and_the_policy_say() -> None:
    """pre_action = mean + sigma noise; its log density by the formula; reward adds the action."""
    noise = normal_noise(2)
    window = collect_once(noise)
    mean = window.obs @ torch.tensor([0.5, 0.25]) - 1
    torch.testing.assert_close(window.pre_action, mean.unsqueeze(-1) + noise)
    torch.testing.assert_close(window.action, window.pre_action)
    normal = torch.distributions.Normal(mean, 1.0)
    density: Tensor = normal.log_prob(window.action.squeeze(-1))  # type: ignore[no-untyped-call]
    torch.testing.assert_close(window.log_prob, density)
    step = window.next_obs[..., 1] + 10 * window.next_obs[..., 0]
    torch.testing.assert_close(window.reward, step + window.action.squeeze(-1))


def test_zero_noise_acts_by_the_mode() -> None:
    """The mode is a Gaussian's mean and a categorical policy's likeliest choice."""
    window = collect_once(zeros(6, len(PLANS)))
    torch.testing.assert_close(window.action, linear_policy()(window.obs).mode)
    env = gym.make_vec("CartPole-v1", num_envs=2, vectorization_mode="vector_entry_point")
    policy = CategoricalPolicy(env.single_observation_space, env.single_action_space)
    cart, _ = collect(env, policy, reset(env, seed=0, device=CPU), torch.zeros(5, 2, 2))
    assert torch.equal(cart.action, policy(cart.obs).mode)
    env.close()


def episode_noise(num_envs: int) -> Callable[[int], Tensor]:
    return lambda num_steps: zeros(num_steps, num_envs)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("chunk", [1, 2, 64])
def test_whole_episodes_are_each_environments_first_and_no_more(
    mode: AutoresetMode, chunk: int
) -> None:
    """Lengths 3, 2, 1, 5: the window is as long as the longest, one end in each column."""
    env = counters(PLANS[:4], mode)
    window, _ = collect_episodes(env, linear_policy(), episode_noise(4), chunk=chunk)
    assert window.num_steps == 5
    assert window.valid.sum(0).tolist() == [3, 2, 1, 5]
    assert (window.done & window.valid).sum(0).tolist() == [1, 1, 1, 1]
    for index, length in enumerate((3, 2, 1, 5)):
        rows = rows_of(window, index)
        # The environments have been reset before by no one else: episode 0.
        assert rows == by_hand(PLANS[index], length)
    env.close()


def test_an_episode_that_does_not_end_is_a_request_error() -> None:
    """Collection stops after ``max_steps`` steps with an error that advises a time limit."""
    env = counters(PLANS, AutoresetMode.NEXT_STEP)
    with pytest.raises(RequestError, match="time limit"):
        collect_episodes(env, linear_policy(), episode_noise(len(PLANS)), chunk=8, max_steps=32)
    env.close()


def test_an_episode_as_long_as_the_limit_is_no_error() -> None:
    """An episode of five steps is collected with ``max_steps=5``."""
    env = counters(PLANS[:4], AutoresetMode.SAME_STEP)
    window, _ = collect_episodes(env, linear_policy(), episode_noise(4), chunk=1, max_steps=5)
    assert window.num_steps == 5
    env.close()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("broken", ["observation", "reward"])
def test_what_is_not_finite_is_named_with_its_step_and_environment(
    mode: AutoresetMode, broken: str
) -> None:
    """Environment 1 breaks on its fourth step: step 3 of the window."""
    plans: list[Plan] = [[(100, "terminated")], [(100, "terminated")], [(1, "terminated")]]
    env = counters(plans, mode, broken=broken, at=4)
    with pytest.raises(NonFiniteError) as caught:
        collect(env, linear_policy(), reset(env, seed=0, device=CPU), zeros(6, 3))
    assert (caught.value.tensor, caught.value.step, caught.value.env_index) == (broken, 3, 1)
    env.close()


@pytest.mark.parametrize("mode", MODES)
def test_a_final_observation_that_is_not_finite_is_named(mode: AutoresetMode) -> None:
    """Under SAME_STEP the reset hides the last observation, which the bootstrap needs."""
    plans: list[Plan] = [[(9, "truncated")], [(2, "truncated")]]
    env = counters(plans, mode, broken="observation", at=2)
    with pytest.raises(NonFiniteError) as caught:
        collect(env, linear_policy(), reset(env, seed=0, device=CPU), zeros(6, 2))
    assert (caught.value.tensor, caught.value.step, caught.value.env_index) == ("observation", 1, 1)
    env.close()


class Loose(SyncVectorEnv):
    """Returns flags of another dtype, and rewards of another shape if told to."""

    wide = False

    def step(self, actions: Any) -> Any:
        obs, reward, terminated, truncated, info = super().step(actions)
        flags = terminated.astype(np.int64), truncated.astype(np.uint8)
        return obs, (reward[:, None] if self.wide else reward.tolist()), *flags, info


def collect_loose(noise: Tensor, *, wide: bool) -> Window:
    makers = [functools.partial(Counter, plan) for plan in PLANS]
    env = Loose(makers, autoreset_mode=AutoresetMode.SAME_STEP)
    env.wide = wide
    return collect(env, linear_policy(), reset(env, seed=0, device=CPU), noise)[0]


def test_flags_of_a_vector_environment_may_be_integers_and_rewards_a_list() -> None:
    noise = normal_noise(0)
    found, expected = collect_loose(noise, wide=False), collect_once(noise)
    assert torch.equal(found.terminated, expected.terminated)
    assert torch.equal(found.reward, expected.reward)


def test_rewards_of_another_shape_are_told() -> None:
    with pytest.raises(EnvFaultError, match=r"returned rewards of the shape \[5, 1\]"):
        collect_loose(normal_noise(0), wide=True)


class Forgetful(SyncVectorEnv):
    """Resets in the same step and keeps no last observation, against Gymnasium's contract."""

    def step(self, actions: Any) -> Any:
        *outputs, info = super().step(actions)
        info.pop("final_obs", None)
        return (*outputs, info)


def test_a_same_step_reset_without_the_last_observation_is_refused() -> None:
    """The observation after the reset would take its place, and its value enter the returns."""
    plan: Plan = [(2, "truncated")]
    make = [functools.partial(Counter, plan)] * 2
    env = Forgetful(make, autoreset_mode=AutoresetMode.SAME_STEP)
    with pytest.raises(EnvFaultError, match='info has no "final_obs": the last observation'):
        collect(env, linear_policy(), reset(env, seed=0, device=CPU), zeros(6, 2))
    env.close()


@pytest.mark.parametrize("mode", MODES)
def test_an_observation_after_a_reset_that_is_not_finite_is_named(mode: AutoresetMode) -> None:
    """Environment 1's second episode starts at infinity; nothing may be learned from it."""
    env = counters([[(9, "truncated")], [(2, "truncated")]], mode, broken="reset")
    with pytest.raises(NonFiniteError) as caught:
        collect(env, linear_policy(), reset(env, seed=0, device=CPU), zeros(6, 2))
    assert caught.value.tensor == "observation"
    assert caught.value.env_index == 1
    env.close()


class Drift(DifferentiableEnv[Tensor]):
    """s' = 0.9 s + 0.5 a + 0.1 w, reward -s'^2, terminal beyond 1.5, cut after seven steps."""

    observation_space = Box(-np.inf, np.inf, (1,), np.float32)
    action_space = Box(-2.0, 2.0, (1,), np.float32)
    max_episode_steps = 7
    noise_shape = (1,)

    def initial(self, num_envs: int, generator: torch.Generator) -> Tensor:
        return torch.randn(num_envs, 1, generator=generator)

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        assert noise is not None
        return 0.9 * state + 0.5 * action + 0.1 * noise

    def observation(self, state: Tensor) -> Tensor:
        return state

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return -next_state[:, 0].square()

    def terminal(self, state: Tensor) -> Tensor:
        return state[:, 0].abs() > 1.5


def drifting(num_envs: int) -> tuple[DifferentiableVectorEnv, Policy, RolloutState]:
    env = DifferentiableVectorEnv(Drift(), num_envs)
    policy = GaussianPolicy(Drift.observation_space, Drift.action_space, (8,))
    return env, policy, reset(env, seed=3, device=CPU)


def test_unroll_and_collect_give_the_same_numbers() -> None:
    """Same seed, same noise, two windows in a row, with resets of both kinds among them."""
    env, policy, rollout_state = drifting(16)
    other_env, _, other_state = drifting(16)
    for seed in range(2):
        noise = normal_noise(seed, 10, 16)
        window, rollout_state = unroll(env, policy, rollout_state, noise)
        other, other_state = collect(other_env, policy, other_state, noise)
        assert bool(window.terminated.any()) and bool(window.truncated.any())
        for name in other.__dataclass_fields__:
            if name not in ("action_shift", "success"):
                assert torch.equal(getattr(window, name).detach(), getattr(other, name)), name
        assert torch.equal(rollout_state.obs, other_state.obs)


def test_an_unrolled_window_carries_the_graph_and_its_copy_does_not() -> None:
    """Observation, action and reward carry the graph; the log density does not."""
    env, policy, rollout_state = drifting(4)
    window, rollout_state = unroll(env, policy, rollout_state, normal_noise(0, 3, 4))
    assert window.differentiable
    for name in ("obs", "next_obs", "action", "pre_action", "reward", "action_shift"):
        assert getattr(window, name).requires_grad, name
    for name in ("log_prob", "noise", "terminated", "truncated", "valid"):
        assert not getattr(window, name).requires_grad, name
    assert not rollout_state.obs.requires_grad
    plain = window.detach()
    assert not plain.differentiable and not plain.reward.requires_grad
    assert torch.equal(plain.reward, window.reward)


def test_the_graph_is_cut_where_a_window_starts() -> None:
    """No gradient reaches an earlier window, and freeing its graph breaks nothing."""
    env, policy, rollout_state = drifting(4)
    first, rollout_state = unroll(env, policy, rollout_state, normal_noise(0, 3, 4))
    second, _ = unroll(env, policy, rollout_state, normal_noise(1, 3, 4))
    assert first.action_shift is not None and second.action_shift is not None
    objective = window_objective(second, torch.zeros_like(second.reward), 0.9)
    own, earlier = torch.autograd.grad(
        objective.sum(),
        [second.action_shift, first.action_shift],
        allow_unused=True,
        retain_graph=True,
    )
    assert own is not None and bool((own != 0).any())
    assert earlier is None
    objective = window_objective(first, torch.zeros_like(first.reward), 0.9)
    action_gradient(objective, first)  # frees the first graph
    objective = window_objective(second, torch.zeros_like(second.reward), 0.9)
    torch.testing.assert_close(action_gradient(objective, second), own)


def test_a_step_after_a_reset_does_not_depend_on_the_action_before_it() -> None:
    """D reward_t / d u_k is zero for k before the reset, and is not for k since."""
    env, policy, rollout_state = drifting(16)
    window, _ = unroll(env, policy, rollout_state, normal_noise(0, 10, 16))
    last = window.reward[-1]
    assert window.action_shift is not None
    (gradient,) = torch.autograd.grad(last.sum(), window.action_shift)
    for index in range(16):
        ends = window.done[:-1, index].nonzero().flatten()
        since = int(ends[-1]) + 1 if len(ends) else 0
        assert bool((gradient[:since, index] == 0).all())
        assert bool((gradient[since:, index] != 0).all())
    assert bool(window.done[:-1].any())


# Observations beyond float32 ----------------------------------------------------------------------


class Clock(gym.Env[np.ndarray, np.ndarray]):
    """Observes 1.7e9 plus the number of steps; episodes of three steps."""

    action_space = Box(-1, 1, (1,), np.float32)

    def __init__(self, dtype: type[np.number[Any]]) -> None:
        self.observation_space = Box(0, 2_000_000_000, (1,), dtype)
        self.dtype, self.count = dtype, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        self.count = 0
        return np.array([1_700_000_000], self.dtype), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.count += 1
        obs = np.array([1_700_000_000 + self.count], self.dtype)
        return obs, 0.0, False, self.count == 3, {}


def clock_window(dtype: type[np.number[Any]], **settings: Any) -> tuple[Window, RolloutState]:
    env = SyncVectorEnv(
        [functools.partial(Clock, dtype)] * 2, autoreset_mode=AutoresetMode.SAME_STEP
    )
    policy = GaussianPolicy(env.single_observation_space, env.single_action_space, **settings)
    return collect(env, policy, reset(env, seed=0, device=CPU), torch.zeros(4, 2, 1))


@pytest.mark.parametrize("dtype", [np.float64, np.int32, np.int64, np.uint32, np.uint64])
def test_a_normaliser_gets_every_digit_of_the_observations(dtype: type[np.number[Any]]) -> None:
    """Those before and after a reset too, and the one to act on next."""
    window, after = clock_window(dtype, normalize_observations=True)
    since = (window.obs - 1.7e9)[..., 0]
    assert window.obs.dtype == window.next_obs.dtype == torch.float64
    assert since[:, 0].tolist() == [0, 1, 2, 0]
    assert (window.next_obs - 1.7e9)[:, 1, 0].tolist() == [1, 2, 3, 1]
    assert (after.obs - 1.7e9).flatten().tolist() == [1, 1]
    # Everything else, and with it all arithmetic of agents, stays in float32.
    for name in ("pre_action", "action", "log_prob", "reward"):
        assert getattr(window, name).dtype == torch.float32


@pytest.mark.parametrize("dtype", [np.float64, np.int64])
def test_without_a_normaliser_observations_are_cast_when_they_are_collected(
    dtype: type[np.number[Any]],
) -> None:
    window, after = clock_window(dtype)
    assert window.obs.dtype == window.next_obs.dtype == torch.float32
    assert (after.obs - 1.7e9).flatten().tolist() == [1, 1]


def test_float32_observations_stay_float32() -> None:
    window, after = clock_window(np.float32, normalize_observations=True)
    assert window.obs.dtype == after.obs.dtype == torch.float32
