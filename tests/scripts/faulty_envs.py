"""Environments in which one thing goes wrong, at one step of one environment."""

from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box
from torch import Tensor

from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.errors import EnvFaultError
from pgtoolkit.seeding import stream_seed

AT, WHICH = 9, 2
"""The step, counted over all episodes, and the environment."""


class PointState(NamedTuple):
    """Position, steps so far and the environment's number, ``[N]`` each."""

    position: Tensor
    age: Tensor
    number: Tensor


class Point(DifferentiableEnv[PointState]):
    """A point on a line that is pushed; ``fault`` says what goes wrong."""

    observation_space = Box(-np.inf, np.inf, (1,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)
    max_episode_steps = 1000

    def __init__(self, fault: str = "none", at: int = AT) -> None:
        self.fault, self.at = fault, at
        if fault == "reset":
            self.max_episode_steps = 6

    def initial(self, num_envs: int, generator: torch.Generator) -> PointState:
        position = torch.rand(num_envs, generator=generator) - 0.5
        number = torch.arange(num_envs, dtype=torch.float32)
        return PointState(position, torch.zeros(num_envs), number)

    def reset_where(
        self, state: PointState, mask: Tensor, generator: torch.Generator
    ) -> PointState:
        fresh = super().reset_where(state, mask, generator)
        if self.fault != "reset":
            return fresh._replace(age=state.age)
        bad = mask & (state.number == WHICH) & (state.age > 8)
        return fresh._replace(age=state.age, position=torch.where(bad, torch.nan, fresh.position))

    def here(self, state: PointState) -> Tensor:
        """Whether this is the step and the environment of the fault ``[N]``."""
        return (state.age == self.at) & (state.number == WHICH)

    def transition(self, state: PointState, action: Tensor, noise: Tensor | None) -> PointState:
        here, push = self.here(state), action[..., 0].clamp(-1, 1)
        position = 0.9 * state.position + 0.1 * push
        if self.fault == "raises" and bool(here.any()):
            raise ArithmeticError("the solver diverged")
        if self.fault == "transition":
            position = torch.where(here, torch.nan, position)
        if self.fault == "square root":
            # The root of exactly 0, whose derivative is infinite; the value is 0.
            zero = position - position.detach()
            position = torch.where(here, torch.sqrt(torch.where(here, zero, 1.0)), position)
        if self.fault == "steep chain":
            # Two steps whose product of derivatives is no float32, with a finite value.
            steep = (state.age >= self.at) & (state.age <= self.at + 1) & (state.number == WHICH)
            position = position.detach() + torch.where(steep, 1e30, 1.0) * (
                position - position.detach()
            )
        if self.fault == "wall":
            position = position.detach() + torch.where(here, 1e7, 1.0) * (
                position - position.detach()
            )
        return PointState(position, state.age + 1, state.number)

    def observation(self, state: PointState) -> Tensor:
        obs = state.position.unsqueeze(-1)
        if self.fault == "observation":
            bad = (state.age == self.at + 1) & (state.number == WHICH)
            obs = torch.where(bad.unsqueeze(-1), torch.nan, obs)
        return obs

    def reward(self, state: PointState, action: Tensor, next_state: PointState) -> Tensor:
        reward = -next_state.position.square() - 0.01 * action[..., 0].square()
        value = {"nan reward": torch.nan, "inf reward": torch.inf, "huge reward": 1e38}
        if self.fault == "reward root":
            zero = next_state.position - next_state.position.detach()
            root = torch.sqrt(torch.where(self.here(state), zero, 1.0))
            reward = torch.where(self.here(state), -root, reward)
        if self.fault == "overflow":
            # exp of 100 and more is no float32.
            power = torch.where(self.here(state), 100 + action[..., 0], 0.0)
            reward = torch.where(self.here(state), -torch.exp(power), reward)
        if self.fault in value:
            reward = torch.where(self.here(state), value[self.fault], reward)
        return reward

    def terminal(self, state: PointState) -> Tensor:
        return torch.zeros_like(state.age, dtype=torch.bool)


class Line(gymnasium.Env[Any, Any]):
    """The same as an ordinary environment; the seed of its first reset says which one it is."""

    def __init__(self, fault: str = "none", at: int = AT) -> None:
        self.at = at
        self.observation_space = Box(-np.inf, np.inf, (1,), np.float32)
        self.action_space = Box(-1.0, 1.0, (1,), np.float32)
        self.fault, self.number, self.age = fault, -1, 0
        self.position, self.length = 0.0, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.number = seed - stream_seed(0, "environments")
        self.position, self.length = float(self.np_random.uniform(-0.5, 0.5)), 0
        bad = self.fault == "reset" and self.number == WHICH and self.age > 8
        return np.array([np.nan if bad else self.position], np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        here = self.age == self.at and self.number == WHICH
        if here and self.fault == "raises":
            raise ArithmeticError("the solver diverged")
        if here and self.fault == "fault":
            replay = {"start": {"seed": 1}, "actions": [[0.0]] * (AT + 1)}
            raise EnvFaultError(
                "environment 2 returned NaN as its reward",
                env_index=WHICH,
                step=AT,
                seed=1,
                replay=replay,
            )
        self.age, self.length = self.age + 1, self.length + 1
        self.position = 0.9 * self.position + 0.1 * float(np.clip(action[0], -1, 1))
        reward, seen = -(self.position**2), self.position
        if here:
            reward = {
                "nan reward": np.nan,
                "inf reward": np.inf,
                "huge reward": 1e38,
                "reward beyond float32": 1e39,
                "wall": 1e6,
            }.get(self.fault, reward)
            seen = np.nan if self.fault == "observation" else seen
        truncated = self.length >= (5 if self.fault == "reset" else 50)
        return np.array([seen], np.float32), reward, False, truncated, {}
