"""Transitions: the valid steps of a window as rows, and the checks on their shapes."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from pgtoolkit.errors import RequestError
from pgtoolkit.policies.gaussian import GaussianPolicy
from pgtoolkit.rollouts.rollout import collect, reset
from pgtoolkit.rollouts.transitions import Transitions
from pgtoolkit.rollouts.window import Window


class Timer(gym.Env[np.ndarray, np.ndarray]):
    """Observation: ``[episode, step]``. Episodes end after 2 steps; even ones are truncated."""

    observation_space = gym.spaces.Box(-100, 100, (2,))
    action_space = gym.spaces.Box(-1, 1, (1,))
    episode, count = -1, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.episode, self.count = self.episode + 1, 0
        return self.observe(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.count += 1
        over, odd = self.count == 2, self.episode % 2 == 1
        return self.observe(), 10 * self.episode + self.count, over and odd, over and not odd, {}

    def observe(self) -> np.ndarray:
        return np.array([self.episode, self.count], np.float32)


def collected(mode: AutoresetMode, num_steps: int, num_envs: int = 1) -> Window:
    env = SyncVectorEnv([Timer] * num_envs, autoreset_mode=mode)
    policy = GaussianPolicy(Timer.observation_space, Timer.action_space, ())
    rollout_state = reset(env, seed=0, device=torch.device("cpu"))
    window, _ = collect(env, policy, rollout_state, torch.zeros(num_steps, num_envs, 1))
    return window


def made_by_hand(num_steps: int, num_envs: int) -> Window:
    """Every number of a window is different; action is discrete, and no step is invalid."""
    shape = (num_steps, num_envs)
    count = torch.arange(num_steps * num_envs).reshape(shape).float()
    no = torch.zeros(shape, dtype=torch.bool)
    return Window(
        obs=torch.stack([count, -count], -1),
        next_obs=torch.stack([count, -count], -1) + 0.5,
        noise=torch.stack([count, count, count], -1),
        pre_action=count,
        action=count,
        log_prob=-count,
        reward=10 * count,
        terminated=no,
        truncated=no,
        valid=~no,
    )


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_transitions_are_the_steps_that_happened_in_every_autoreset_mode(
    mode: AutoresetMode,
) -> None:
    """Episodes of 2 steps; under NEXT_STEP every third step only resets and is left out.

    ``next_obs`` is the observation before the reset. The ends of the episodes 0 and 2 are
    truncations, so ``terminated`` is true at the end of the episodes 1 and 3 alone.
    """
    num_steps = 11 if mode is AutoresetMode.NEXT_STEP else 8
    window = collected(mode, num_steps)
    found = window.transitions("truncated")
    assert found.obs.tolist() == [[i, j] for i in range(4) for j in range(2)]
    assert found.next_obs.tolist() == [[i, j] for i in range(4) for j in (1, 2)]
    assert found.reward.tolist() == [1, 2, 11, 12, 21, 22, 31, 32]
    assert found.terminated.tolist() == [False, False, False, True] * 2
    assert found.extras["truncated"].tolist() == [False, True, False, False] * 2
    assert found.terminated.dtype == torch.bool


def test_rows_are_ordered_by_time_and_then_by_environment() -> None:
    """The order is the same with and without invalid steps."""
    window = made_by_hand(3, 2)
    assert window.transitions().reward.tolist() == [0, 10, 20, 30, 40, 50]
    window.valid[1, 0] = False
    found = window.transitions("log_prob", "noise")
    assert found.reward.tolist() == [0, 10, 30, 40, 50]
    assert found.action.tolist() == [0, 1, 3, 4, 5]
    assert found.extras["log_prob"].tolist() == [0, -1, -3, -4, -5]
    assert found.extras["noise"].shape == (5, 3)


def test_transitions_of_a_window_without_invalid_steps_are_views() -> None:
    window = made_by_hand(3, 2)
    found = window.transitions("pre_action", "noise")
    for name, tensor in found.tensors().items():
        assert tensor.data_ptr() == getattr(window, name).data_ptr()
    window.reward[2, 1] = 7
    assert found.reward[5] == 7


def test_transitions_keep_the_graph_of_a_window() -> None:
    window = made_by_hand(3, 2)
    window.action.requires_grad_()
    for valid in (True, False):
        window.valid[0, 0] = valid
        (gradient,) = torch.autograd.grad(window.transitions().action.sum(), window.action)
        assert gradient.tolist() == [[float(valid), 1], [1, 1], [1, 1]]


@pytest.mark.parametrize("name", ["action_shift", "num_steps", "nothing"])
def test_extras_that_a_window_has_not_are_refused(name: str) -> None:
    with pytest.raises(RequestError, match=f"no tensor '{name}'"):
        made_by_hand(3, 2).transitions(name)


def test_rows_and_map_keep_the_extras() -> None:
    found = made_by_hand(3, 2).transitions("log_prob")
    mask = torch.tensor([True, False, False, False, False, True])
    for rows in (mask, torch.tensor([0, 5]), slice(0, 6, 5)):
        chosen = found.rows(rows)
        assert chosen.reward.tolist() == [0, 50]
        assert chosen.next_obs.tolist() == [[0.5, 0.5], [5.5, -4.5]]
        assert chosen.extras["log_prob"].tolist() == [0, -5]
    folded = found.rows(torch.tensor([[0, 1], [2, 3], [4, 5]]))
    assert folded.obs.shape == (3, 2, 2) and folded.reward.shape == (3, 2)
    doubled = found.map(lambda x: x.double() if x.is_floating_point() else x)
    assert doubled.extras["log_prob"].dtype == torch.float64
    assert doubled.terminated.dtype == torch.bool


def test_tensors_and_from_tensors_are_inverse() -> None:
    found = made_by_hand(2, 2).transitions("log_prob", "truncated")
    again = Transitions.from_tensors(found.tensors())
    assert list(again.extras) == ["log_prob", "truncated"]
    assert all(again.tensors()[name] is tensor for name, tensor in found.tensors().items())


def test_wrong_leading_axes_are_named() -> None:
    """``[M, 1]`` beside ``[M]`` would broadcast to ``[M, M]`` later."""
    tensors = made_by_hand(3, 2).transitions().tensors()
    with pytest.raises(RequestError, match=r"obs of transitions has shape \[6, 2\].*\[6, 1\]"):
        Transitions.from_tensors(tensors | {"reward": tensors["reward"].unsqueeze(-1)})
    with pytest.raises(RequestError, match=r"weight of transitions has shape \[5\]"):
        Transitions.from_tensors(tensors | {"weight": torch.ones(5)})
    with pytest.raises(RequestError, match=r"repeat fields: rename \['obs'\]"):
        Transitions(**tensors, extras={"obs": tensors["obs"]})
