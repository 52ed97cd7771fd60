"""A saved policy is loaded for the spaces that it was trained for, and for no others."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from pgtoolkit.agents.ppo import PpoConfig
from pgtoolkit.agents.reinforce import ReinforceConfig
from pgtoolkit.errors import RequestError
from pgtoolkit.policies.factory import make_policy
from pgtoolkit.scripts.cli.experiment import absolute_path, load_policy
from pgtoolkit.training.checkpoint import load_checkpoint, save_checkpoint

OBS = Box(-np.inf, np.inf, (2,), np.float32)


def environment(low: float, high: float) -> Any:
    return SimpleNamespace(single_observation_space=OBS, single_action_space=Box(low, high, (1,)))


@pytest.mark.parametrize("config", [PpoConfig(), ReinforceConfig()], ids=["clipped", "squashed"])
def test_a_policy_for_other_bounds_is_refused(config: Any, tmp_path: Path) -> None:
    """The parameters have the same shapes, but the actions would be others."""
    policy = make_policy(config, OBS, Box(10, 20, (1,)), torch.Generator().manual_seed(3))
    path, settings = tmp_path / "policy.safetensors", SimpleNamespace(agent=config)
    save_checkpoint(path, {"policy": policy.state_dict()})
    found = load_policy((load_checkpoint(path), path), settings, environment(10, 20))
    assert torch.equal(found(torch.ones(1, 2)).mode, policy(torch.ones(1, 2)).mode)
    with pytest.raises(RequestError, match="trained for other spaces"):
        load_policy((load_checkpoint(path), path), settings, environment(10, 21))


def test_a_policy_without_the_map_of_its_box_is_refused(tmp_path: Path) -> None:
    """An earlier version did not scale actions; loaded here they would be scaled."""
    config = PpoConfig()
    state = make_policy(config, OBS, Box(10, 20, (1,)), torch.Generator()).state_dict()
    path = tmp_path / "policy.safetensors"
    save_checkpoint(path, {"policy": {k: v for k, v in state.items() if "scale" not in k}})
    with pytest.raises(RequestError, match="earlier version"):
        load_policy(
            (load_checkpoint(path), path), SimpleNamespace(agent=config), environment(10, 20)
        )


def test_a_file_without_a_policy_is_refused(tmp_path: Path) -> None:
    """Such as a resume file in a policy's place."""
    settings = SimpleNamespace(agent=PpoConfig())
    for state in ({}, {"policy": None}):
        with pytest.raises(RequestError, match="holds no policy"):
            load_policy((state, tmp_path / "best"), settings, environment(10, 20))


@pytest.mark.parametrize("file", ["nul\0l.py", "~nosuchuser/x.py", "loop.py/x.py"])
def test_a_path_that_is_none_is_refused_in_a_line(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A null character, the home of nobody, and a link to itself."""
    monkeypatch.chdir(tmp_path)
    Path("loop.py").symlink_to("loop.py")
    with pytest.raises(RequestError, match="not a path to a file") as caught:
        absolute_path(f"{file}:Class")
    assert "\n" not in str(caught.value)
