"""Evaluation: a fixed number of whole episodes of every environment, and nothing learns."""

import functools
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from pgtoolkit.policies.gaussian import GaussianPolicy
from pgtoolkit.policies.policy import Policy
from pgtoolkit.rollouts.evaluation import Evaluation, EvaluationStopped, evaluate

CPU = torch.device("cpu")
SPACE = Box(-np.inf, np.inf, (1,), np.float32)
MODES = list(AutoresetMode)


class Clock(gym.Env[np.ndarray, np.ndarray]):
    """Episodes of a given length; the reward of every step is 1, or the action."""

    observation_space, action_space = SPACE, SPACE

    def __init__(self, length: int, reward: str = "one") -> None:
        self.length, self.pays, self.count = length, reward, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.count = 0
        return self.np_random.normal(size=1).astype(np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.count += 1
        reward = 1.0 if self.pays == "one" else float(action[0])
        return np.ones(1, np.float32), reward, self.count == self.length, False, {}


def clocks(*lengths: int, reward: str = "one", mode: AutoresetMode = MODES[0]) -> SyncVectorEnv:
    makers = [functools.partial(Clock, length, reward) for length in lengths]
    return SyncVectorEnv(makers, autoreset_mode=mode)


def policy_of(**kwargs: Any) -> Policy:
    return GaussianPolicy(SPACE, SPACE, (4,), **kwargs)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("chunk", [1, 7, 50])
def test_short_episodes_are_not_favoured(mode: AutoresetMode, chunk: int) -> None:
    """Lengths 2 and 9, five episodes: three of the first environment and two of the second.

    Had the first five to end been taken, all would have length 2.
    """
    env = clocks(2, 9, mode=mode)
    found = evaluate(env, policy_of(), episodes=5, seed=0, device=CPU, chunk=chunk)
    assert found.lengths == [2, 2, 2, 9, 9]
    assert found.returns == [2.0, 2.0, 2.0, 9.0, 9.0]
    env.close()


def test_the_policy_acts_by_its_mode_unless_asked_to_sample() -> None:
    """Without noise two evaluations agree whatever the seed's noise; with it sigma shows."""
    policy = policy_of(log_std_init=1.0)
    returns = {}
    for stochastic in (False, True):
        env = clocks(1, 1, reward="action")
        returns[stochastic] = evaluate(
            env, policy, episodes=400, seed=1, device=CPU, stochastic=stochastic
        ).returns
        env.close()
    assert np.abs(returns[False]).max() < 0.1  # the head starts small
    # sigma = e; the standard error of a sample deviation of 400 is e / sqrt(800).
    assert np.std(returns[True]) == pytest.approx(np.e, abs=4.5 * np.e / np.sqrt(800))


def test_the_seed_decides_starts_and_noise() -> None:
    """The same seed gives the same returns, another seed gives others."""

    def returns(seed: int) -> list[float]:
        env = clocks(3, 3, reward="action")
        found = evaluate(env, policy_of(), episodes=4, seed=seed, device=CPU, stochastic=True)
        env.close()
        return found.returns

    assert returns(1) == returns(1)
    assert returns(1) != returns(2)


def test_nothing_learns() -> None:
    """Evaluation changes neither the parameters nor the normaliser, and sets no gradient."""
    policy = policy_of(normalize_observations=True)
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    env = clocks(3)
    evaluate(env, policy, episodes=2, seed=0, device=CPU, stochastic=True)
    env.close()
    after = policy.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(parameter.grad is None for parameter in policy.parameters())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("chunk", [1, 7, 50])
def test_episodes_without_an_end_are_cut_off(mode: AutoresetMode, chunk: int) -> None:
    """Lengths 3, 12 and without end, cut off after 12 steps: only the last are cut off.

    Every environment gives two episodes whatever the others do, and each starts with a reset.
    """
    env = clocks(3, 12, 10**9, mode=mode)
    found = evaluate(
        env, policy_of(), episodes=6, seed=0, device=CPU, chunk=chunk, max_episode_steps=12
    )
    assert found.lengths == [3, 3, 12, 12, 12, 12]
    assert found.returns == [3.0, 3.0, 12.0, 12.0, 12.0, 12.0]
    assert (found.cut_off, found.cut_off_share) == (2, 1 / 3)
    env.close()


@pytest.mark.parametrize("mode", MODES)
def test_what_follows_a_cut_is_not_an_episode(mode: AutoresetMode) -> None:
    """Length 20, cut off after 8: three episodes of 8 steps, none of the 12 that remain."""
    env = clocks(20, mode=mode)
    found = evaluate(env, policy_of(), episodes=3, seed=0, device=CPU, max_episode_steps=8)
    assert (found.lengths, found.cut_off) == ([8, 8, 8], 3)
    env.close()


def test_a_limit_beyond_all_episodes_changes_nothing() -> None:
    def returns(max_episode_steps: int) -> list[float]:
        env = clocks(3, 5, reward="action")
        arguments: dict[str, Any] = {"episodes": 7, "seed": 0, "device": CPU, "stochastic": True}
        found = evaluate(env, policy_of(), max_episode_steps=max_episode_steps, **arguments)
        env.close()
        return found.returns

    assert returns(5) == returns(1_000_000)


def test_mean_and_deviation_are_those_of_the_episodes() -> None:
    """Returns 1, 2, 6: mean 3, variance (4 + 1 + 9) / 3."""
    found = Evaluation([1.0, 2.0, 6.0], [2, 4, 6])
    assert found.mean_return == 3
    assert found.std_return == pytest.approx((14 / 3) ** 0.5)
    assert found.standard_error == pytest.approx((14 / 2 / 3) ** 0.5)
    assert found.mean_length == 4
    assert Evaluation([1.0], [2]).standard_error is None


def test_an_evaluation_is_printed_in_a_line() -> None:
    """It names successes and cut episodes where there are any, and not each return."""
    found = Evaluation([1.0, 2.0, 6.0], [2, 4, 6])
    assert str(found) == "Evaluation(return 3.00 +- 1.53, 3 episodes of 4.0 steps)"
    rare = Evaluation([1.0], [2], cut_off=1, successes=[True])
    assert str(rare) == "Evaluation(return 1.00, 1 episode of 2.0 steps, 100% successes, 1 cut off)"


def test_an_evaluation_stops_between_two_chunks() -> None:
    """Asked for the third time, after 15 of 30 steps; the next evaluation is a whole one."""
    env, asked = clocks(30, 30), [0]

    def third_time() -> bool:
        asked[0] += 1
        return asked[0] == 3

    settings: dict[str, Any] = {"episodes": 2, "seed": 0, "device": CPU, "chunk": 5}
    with pytest.raises(EvaluationStopped):
        evaluate(env, policy_of(), stop_requested=third_time, **settings)
    assert asked == [3]
    assert evaluate(env, policy_of(), stop_requested=third_time, **settings).lengths == [30, 30]
    env.close()
