"""PPO as a plain script, with the action and the loss compiled by ``torch.compile``.

It follows the well-known single-file implementations: modules, ``torch.distributions``, tensors of
a whole window, shuffled minibatches. The two functions that are called most often are compiled.
"""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, Normal

from pgtoolkit.scripts.benchmarks.timing import Run

GAMMA, LAMBDA, CLIP = 0.99, 0.95, 0.2


class Agent(nn.Module):
    """A policy and a value function, each with two tanh layers of 64 units."""

    def __init__(self, env: gymnasium.vector.VectorEnv[Any, Any, Any]) -> None:
        super().__init__()
        inputs = int(np.prod(env.single_observation_space.shape or (1,)))
        space = env.single_action_space
        self.continuous = isinstance(space, Box)
        outputs = int(np.prod(space.shape)) if isinstance(space, Box) else int(space.n)  # type: ignore[attr-defined]
        self.actor, self.critic = _mlp(inputs, outputs), _mlp(inputs, 1)
        self.log_std = nn.Parameter(torch.zeros(outputs))

    def distribution(self, obs: Tensor) -> Any:
        """The distribution of actions."""
        output = self.actor(obs)
        if self.continuous:
            return Independent(Normal(output, self.log_std.exp().expand_as(output)), 1)
        return Categorical(logits=output)


def _mlp(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, outputs)
    )


def ppo_run(env_id: str, num_envs: int, n_steps: int, n_epochs: int, batch_size: int) -> Run:
    """Collects one window and updates.

    Args:
        env_id: Gymnasium's id of the environment.
        num_envs: number of environments, in a ``SyncVectorEnv``.
        n_steps: steps of each environment in a window.
        n_epochs: passes over the window.
        batch_size: samples of a minibatch.
    """
    env = gymnasium.make_vec(env_id, num_envs, vectorization_mode="sync")
    agent = Agent(env)
    optimizer = torch.optim.Adam(agent.parameters(), 3e-4, eps=1e-5)
    act, loss = torch.compile(_act_with(agent)), torch.compile(_loss_with(agent))
    obs = [torch.as_tensor(env.reset(seed=0)[0])]

    def run(index: int) -> None:
        window, obs[0] = _collect(env, act, obs[0], n_steps)
        with torch.no_grad():
            next_value = agent.critic(obs[0]).squeeze(-1)
        data = [x.flatten(0, 1) for x in _advantages(window, next_value)]
        for _ in range(n_epochs):
            for rows in torch.split(torch.randperm(len(data[0])), batch_size):
                optimizer.zero_grad()
                torch.autograd.backward(loss(*[x[rows] for x in data]))
                nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
                optimizer.step()

    return run


def _act_with(agent: Agent) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """A function from observations to sampled action, log probability and value."""

    @torch.no_grad()
    def act(obs: Tensor) -> tuple[Tensor, ...]:
        distribution = agent.distribution(obs)
        action = distribution.sample()
        return action, distribution.log_prob(action), agent.critic(obs).squeeze(-1)

    return act


def _loss_with(agent: Agent) -> Callable[..., Tensor]:
    """PPO's clipped loss plus the value loss, as a function of a minibatch."""

    def loss(obs: Tensor, action: Tensor, old: Tensor, advantage: Tensor, target: Tensor) -> Tensor:
        distribution = agent.distribution(obs)
        ratio = (distribution.log_prob(action) - old).exp()
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        clipped = ratio.clamp(1 - CLIP, 1 + CLIP) * advantage
        value_loss = 0.5 * (agent.critic(obs).squeeze(-1) - target).square().mean()
        found: Tensor = value_loss - torch.min(ratio * advantage, clipped).mean()
        return found

    return loss


def _collect(env: Any, act: Any, obs: Tensor, n_steps: int) -> tuple[list[Tensor], Tensor]:
    """A window of stacked tensors ``[T, N, ...]``, and the observation after it."""
    rows = []
    for _ in range(n_steps):
        action, log_prob, value = act(obs)
        given = action.numpy()
        if isinstance(env.single_action_space, Box):
            given = given.clip(env.single_action_space.low, env.single_action_space.high)
        after, reward, terminated, truncated, _ = env.step(given)
        done = torch.as_tensor(terminated | truncated).float()
        rows.append((obs, action, log_prob, value, torch.as_tensor(reward).float(), done))
        obs = torch.as_tensor(after).float()
    return [torch.stack(column) for column in zip(*rows, strict=True)], obs


def _advantages(window: list[Tensor], next_value: Tensor) -> list[Tensor]:
    """Observations, actions, log probabilities, advantages by GAE, and value targets."""
    obs, action, log_prob, value, reward, done = window
    advantage, following = torch.zeros_like(reward), torch.zeros_like(next_value)
    for t in range(len(reward) - 1, -1, -1):
        delta = reward[t] + GAMMA * next_value * (1 - done[t]) - value[t]
        following = delta + GAMMA * LAMBDA * (1 - done[t]) * following
        advantage[t], next_value = following, value[t]
    return [obs, action, log_prob, advantage, advantage + value]
