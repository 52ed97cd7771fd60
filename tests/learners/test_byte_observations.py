"""Observations of bytes that are no images: stored as bytes, and learned from as the numbers."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Space

from pgtoolkit.agents.sac import Sac, SacConfig
from pgtoolkit.agents.svg import Svg, SvgConfig
from pgtoolkit.agents.td3 import Td3, Td3Config


def byte_box(*shape: int) -> Box:
    return Box(0, 255, shape, np.uint8)


SPACES: dict[str, Space[Any]] = {
    "row": byte_box(5),
    "dict": Dict({"a": byte_box(2), "b": byte_box(3)}),
    "small": byte_box(8, 8, 3),
    "image": byte_box(16, 16, 3),
}


class Bytes(gymnasium.Env[Any, Any]):
    """Observations are random; the reward is the action."""

    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, space: Space[Any]) -> None:
        self.observation_space = space

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        return self.observation_space.sample(), float(action[0]), False, self.steps >= 7, {}


def agent_of(name: str, space: Space[Any], *, normalize: bool) -> Any:
    common: dict[str, Any] = {
        "num_envs": 2,
        "n_steps": 4,
        "learning_starts": 3,
        "batch_size": 4,
        "normalize_observations": normalize,
    }
    if name == "svg":
        return Svg(SvgConfig(horizon="0", **common), lambda: Bytes(space))
    if name == "sac":
        return Sac(SacConfig(compile="never", **common), lambda: Bytes(space))
    return Td3(Td3Config(compile="never", **common), lambda: Bytes(space))


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("name", ["sac", "td3", "svg"])
def test_features_of_replayed_bytes_are_those_of_the_numbers(
    name: str, space: str, normalize: bool
) -> None:
    agent = agent_of(name, SPACES[space], normalize=normalize)
    for _ in range(4):
        agent.update(agent.collect())
    drawn = agent.replay.draw((6,), torch.Generator().manual_seed(0))
    assert drawn.obs.dtype == torch.uint8
    features = agent.policy.normalizer(drawn.obs)
    assert torch.equal(features, agent.policy.normalizer(drawn.obs.float()))
    assert features.unique().numel() > 6  # no moments that were rounded to bytes


def test_the_memory_that_svg_states_is_that_which_it_takes() -> None:
    """A byte a pixel in the replay buffer; and with a model, its two buffers as well."""
    agent = agent_of("svg", SPACES["image"], normalize=False)
    agent.update(agent.collect())
    taken = sum(x[:1].nbytes for x in agent.replay._storage.values())
    assert f"of {taken:,} bytes" in agent.replay_sentence
    space = Box(-1.0, 1.0, (17,), np.float32)
    config = SvgConfig(num_envs=2, n_steps=4, horizon="1", buffer_size=1000)
    model_based = Svg(config, lambda: Bytes(space))
    model_based.update(model_based.collect())
    assert model_based.model is not None
    learner = model_based.model.learner
    buffers = (model_based.replay, learner.training, learner.held_out)
    total = sum(x.nbytes for buffer in buffers for x in buffer._storage.values())
    said = 1000 * int(model_based.replay_sentence.split(" of ")[-1].split()[0].replace(",", ""))
    assert total <= said <= 1.05 * total
