"""A learned model as an environment of its own."""

import gymnasium
import pytest
import torch
from torch import Tensor

from pgtoolkit.agents.shac import Shac, ShacConfig
from pgtoolkit.envs.adapters.learned.env import LearnedModel
from pgtoolkit.envs.adapters.learned.imagined import Imagined
from pgtoolkit.envs.adapters.learned.model import ModelConfig
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.errors import RequestError

CONFIG = ModelConfig(hidden=(16,), initial_steps=100, initial_fit_steps=10)


@pytest.fixture(scope="module")
def learned() -> LearnedModel:
    env = LearnedModel(lambda: gymnasium.make("Pendulum-v1"), CONFIG)
    env.prepare()
    return env


def test_each_network_is_as_likely_and_the_noise_says_which(learned: LearnedModel) -> None:
    """The terciles of a standard normal are at -0.4307 and 0.4307; extreme noise stays in range."""
    env = learned.imagined(max_episode_steps=10)
    noise = torch.tensor([[-9.0], [-0.44], [-0.42], [0.42], [0.44], [9.0]])
    state = env.initial(1, torch.Generator().manual_seed(0))
    state = type(state)(*(leaf.repeat(6, *[1] * (leaf.dim() - 1)) for leaf in state))
    action = torch.full((6, 1), 0.3)
    after = env.transition(state, action, noise)
    every = learned.learner.model(state.observation[:1], action[:1])
    members = torch.tensor([0, 0, 1, 1, 2, 2])
    torch.testing.assert_close(after.observation, every.next_obs[members, 0])
    torch.testing.assert_close(after.reward, every.reward[members, 0])
    assert torch.equal(env.reward(state, action, after), after.reward)


def test_it_starts_from_what_was_observed(learned: LearnedModel) -> None:
    observed = learned.learner.training.newest(1000).obs
    env = learned.imagined(max_episode_steps=10)
    first, again = (env.initial(50, torch.Generator().manual_seed(3)).observation for _ in range(2))
    assert torch.equal(first, again) and len({tuple(row) for row in first.tolist()}) > 10
    assert all(bool((observed == row).all(-1).any()) for row in first)
    given = learned.imagined(max_episode_steps=10, starts=torch.ones(1, 3))
    assert torch.equal(given.initial(4, torch.Generator()).observation, torch.ones(4, 3))


def test_the_derivative_is_that_of_the_dynamics(learned: LearnedModel) -> None:
    """Compared with central differences in float64, over three steps by different networks."""
    env = learned.imagined(max_episode_steps=10)
    learned.learner.model.double()
    start = env.initial(1, torch.Generator().manual_seed(0))
    start = type(start)(*(leaf.double() for leaf in start))

    def total(actions: Tensor) -> Tensor:
        state, rewards = start, []
        for action, noise in zip(actions, (-1.0, 0.0, 1.0), strict=True):
            state = env.transition(state, action[None], torch.full((1, 1), noise))
            rewards.append(state.reward)
        return torch.stack(rewards).sum() + state.observation.sum()

    actions = torch.tensor([[0.5], [-1.0], [0.2]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(total, (actions,))
    learned.learner.model.float()


def test_a_given_function_says_where_episodes_end(learned: LearnedModel) -> None:
    env = learned.imagined(max_episode_steps=10, terminal=lambda obs: obs[:, 0] > 0)
    state = env.initial(30, torch.Generator().manual_seed(0))
    assert torch.equal(env.terminal(state), state.observation[:, 0] > 0)
    assert not learned.imagined(max_episode_steps=10).terminal(state).any()


def test_shac_trains_in_imagination(learned: LearnedModel) -> None:
    config = ShacConfig(num_envs=4, n_steps=3, hidden=(8,), diagnostics_interval=1)
    vector = DifferentiableVectorEnv(learned.imagined(max_episode_steps=5), 4)
    agent = Shac(config, vector, total_steps=100)
    steps = learned.learner.num_steps
    for _ in range(2):
        agent.update(agent.collect())
    assert learned.learner.num_steps == steps


def test_it_cannot_start_from_nowhere(learned: LearnedModel) -> None:
    spaces = learned.observation_space, learned.action_space
    model = learned.learner.model
    with pytest.raises(RequestError, match="from nowhere"):
        Imagined(model, *spaces, starts=torch.zeros(0, 3), max_episode_steps=5)
    with pytest.raises(ValueError, match="starts must have shape"):
        Imagined(model, *spaces, starts=torch.zeros(2, 4), max_episode_steps=5)
