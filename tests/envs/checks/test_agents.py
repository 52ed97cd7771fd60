"""Which agents an environment's spaces fit, as their policies say themselves."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from pgtoolkit.config import PolicySettings
from pgtoolkit.envs.checks.agents import AgentNeeds, check_agents
from pgtoolkit.envs.checks.check_env import check_env
from pgtoolkit.envs.control.point_mass import PointMass
from pgtoolkit.errors import RequestError
from pgtoolkit.policies.factory import choose_head

AGENTS = {
    "squashed": AgentNeeds(PolicySettings(distribution="gaussian")),
    "clipped": AgentNeeds(PolicySettings(distribution="clipped_gaussian")),
    "pathwise": AgentNeeds(PolicySettings(), needs_gradient=True),
}

REFUSED: list[spaces.Space[Any]] = [
    spaces.Dict({"move": spaces.Box(-1, 1, (1,)), "mode": spaces.Discrete(2)}),
    spaces.Tuple((spaces.Box(-1, 1, (1,)), spaces.Discrete(2))),
    spaces.Text(5),
    spaces.Sequence(spaces.Discrete(2)),
    spaces.Graph(spaces.Box(-1, 1, (1,)), None),
    spaces.OneOf((spaces.Discrete(2), spaces.Discrete(3))),
    spaces.Box(-1, 1, (2, 2)),
    spaces.Box(-1, 1, ()),
    spaces.Box(0, 3, (1,), np.int64),
    spaces.MultiBinary(np.array([2, 2])),
    spaces.MultiDiscrete(np.array([[2, 3], [4, 5]])),
]


class Acts(gymnasium.Env[Any, Any]):
    """Sees one number that it never changes, and takes any action."""

    def __init__(self, action_space: spaces.Space[Any], limit: int | None = 20) -> None:
        self.observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.action_space = action_space
        if limit is not None:
            self.max_episode_steps, self.steps = limit, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        return np.zeros(1, np.float32), 0.0, False, True, {}


@pytest.mark.parametrize("space", REFUSED, ids=lambda space: type(space).__name__)
def test_actions_that_every_agent_refuses_are_a_fault(space: spaces.Space[Any]) -> None:
    """It names the space and the wrapper that helps, and no agent."""
    finding = check_agents(Acts(space), None, AGENTS)
    assert finding.status == "fault" and " ".join(str(space).split()) in finding.finding
    assert "TransformAction" in finding.advice
    assert not any(name in finding.finding + finding.advice for name in AGENTS)


@pytest.mark.parametrize("start", [-1, 0, 1])
def test_the_finding_agrees_with_the_policies(start: int) -> None:
    """Discrete actions fit exactly if a head can be made for them."""
    space = spaces.Discrete(3, start=start)
    try:
        choose_head(PolicySettings(), space)
        expected = "pass"
    except ValueError:
        expected = "fault"
    assert check_agents(Acts(space), None, AGENTS).status == expected


def test_agents_that_need_a_gradient_need_floating_actions_or_dynamics() -> None:
    """By an adapter with a Box, not at all with Discrete, and at once where there is a gradient."""
    box = spaces.Box(-1.0, 1.0, (1,), np.float32)
    env = gymnasium.wrappers.TimeLimit(Acts(box), 20)
    found = check_agents(env, None, AGENTS).finding
    assert "fit squashed, clipped; pathwise by an adapter" in found
    found = check_agents(Acts(spaces.Discrete(2)), None, AGENTS).finding
    assert "fit squashed, clipped; not pathwise: the action_space" in found
    found = check_agents(Acts(box), None, AGENTS).finding
    assert "not pathwise" in found and "time limit" in found
    found = check_agents(Acts(box), PointMass(), AGENTS).finding
    assert found == "the spaces fit squashed, clipped, pathwise"


def test_check_env_reports_refused_actions() -> None:
    """Parts that cannot be put into one row are named, before any check."""
    with pytest.raises(
        RequestError, match=r"have the parts 'mode' .*, and policies choose one row"
    ):
        check_env(Acts(REFUSED[0]), seconds=0.3)


def test_check_env_sees_the_actions_that_policies_choose() -> None:
    """Arrays of several axes and integer boxes are translated to one row, which agents take."""
    for space in (spaces.Box(-1, 1, (2, 2)), spaces.Box(0, 3, (1,), np.int64)):
        found = check_env(Acts(space), seconds=0.3)
        (agents,) = [f for f in found if f.check == "agents"]
        assert agents.status == "pass"
