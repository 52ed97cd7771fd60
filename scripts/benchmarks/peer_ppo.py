"""PPO as one plain script would have it: its action and its loss compiled by ``torch.compile``.

The shape of the well-known single-file implementations: modules, ``torch.distributions``, tensors
of a whole window, shuffled minibatches, and the two functions that are called most often compiled.
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
    """A policy and a value function, 64x64 tanh each."""

    def __init__(self, env: gymnasium.vector.VectorEnv[Any, Any, Any]) -> None:
        super().__init__()
        inputs = int(np.prod(env.single_observation_space.shape or (1,)))
        space = env.single_action_space
        self.continuous = isinstance(space, Box)
        outputs = int(np.prod(space.shape)) if isinstance(space, Box) else int(space.n)  # type: ignore[attr-defined]
        self.actor, self.critic = _mlp(inputs, outputs), _mlp(inputs, 1)
        self.log_std = nn.Parameter(torch.zeros(outputs))

    def law(self, obs: Tensor) -> Any:
        output = self.actor(obs)
        if self.continuous:
            return Independent(Normal(output, self.log_std.exp().expand_as(output)), 1)
        return Categorical(logits=output)


def _mlp(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, outputs)
    )


def ppo_run(env_id: str, num_envs: int, num_steps: int, n_epochs: int, batch_size: int) -> Run:
    """One window and its update.

    Args:
        env_id: of Gymnasium.
        num_envs: in a ``SyncVectorEnv``.
        num_steps: of a window.
        n_epochs: of an update.
        batch_size: of a minibatch.
    """
    env = gymnasium.make_vec(env_id, num_envs, vectorization_mode="sync")
    agent = Agent(env)
    optimizer = torch.optim.Adam(agent.parameters(), 3e-4, eps=1e-5)
    act, loss = torch.compile(_act_with(agent)), torch.compile(_loss_with(agent))
    obs = [torch.as_tensor(env.reset(seed=0)[0])]

    def run(index: int) -> None:
        window, obs[0] = _collect(env, act, obs[0], num_steps)
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
    @torch.no_grad()
    def act(obs: Tensor) -> tuple[Tensor, ...]:
        law = agent.law(obs)
        action = law.sample()
        return action, law.log_prob(action), agent.critic(obs).squeeze(-1)

    return act


def _loss_with(agent: Agent) -> Callable[..., Tensor]:
    def loss(obs: Tensor, action: Tensor, old: Tensor, advantage: Tensor, target: Tensor) -> Tensor:
        law = agent.law(obs)
        ratio = (law.log_prob(action) - old).exp()
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        clipped = ratio.clamp(1 - CLIP, 1 + CLIP) * advantage
        value_loss = 0.5 * (agent.critic(obs).squeeze(-1) - target).square().mean()
        found: Tensor = value_loss - torch.min(ratio * advantage, clipped).mean()
        return found

    return loss


def _collect(env: Any, act: Any, obs: Tensor, num_steps: int) -> tuple[list[Tensor], Tensor]:
    rows = []
    for _ in range(num_steps):
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
    obs, action, log_prob, value, reward, done = window
    advantage, following = torch.zeros_like(reward), torch.zeros_like(next_value)
    for t in range(len(reward) - 1, -1, -1):
        delta = reward[t] + GAMMA * next_value * (1 - done[t]) - value[t]
        following = delta + GAMMA * LAMBDA * (1 - done[t]) * following
        advantage[t], next_value = following, value[t]
    return [obs, action, log_prob, advantage, advantage + value]
