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
from pgtoolkit.agents.sac import SacConfig
from pgtoolkit.agents.shac import ShacConfig
from pgtoolkit.errors import RequestError
from pgtoolkit.policies.factory import make_policy
from pgtoolkit.scripts.cli.experiment import absolute_path, load_policy, warn_of_sizes
from pgtoolkit.training.checkpoint import load_checkpoint, save_checkpoint

OBS = Box(-np.inf, np.inf, (2,), np.float32)


def environment(low: float, high: float) -> Any:
    return SimpleNamespace(single_observation_space=OBS, single_action_space=Box(low, high, (1,)))


@pytest.mark.parametrize("config", [PpoConfig(), ReinforceConfig()], ids=["clipped", "squashed"])
def test_a_policy_for_other_bounds_is_refused(config: Any, tmp_path: Path) -> None:
    """The parameters have the same shapes, but the actions would be others."""
    policy = make_policy(config, OBS, Box(10, 20, (1,)), torch.Generator().manual_seed(3))
    path, settings = (
        tmp_path / "policy.safetensors",
        SimpleNamespace(agent=config, run=SimpleNamespace(seed=0)),
    )
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
            (load_checkpoint(path), path),
            SimpleNamespace(agent=config, run=SimpleNamespace(seed=0)),
            environment(10, 20),
        )


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


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: {}, "policy is missing"),
        (lambda state: {"policy": None}, "policy is None, not a dictionary"),
        (lambda state: {"policy": state, "num_steps": -1}, "num_steps is -1"),
        (lambda state: {"policy": state, "eval_return": "x"}, "eval_return is 'x'"),
        (
            lambda state: {"policy": {k: v.double() for k, v in state.items()}},
            "is torch.float64, not torch.float32",
        ),
        (
            lambda state: {"policy": {k: v * torch.nan for k, v in state.items()}},
            "has entries that are not finite",
        ),
        (lambda state: {"policy": dict.fromkeys(state, 1.0)}, "is 1.0, not a tensor"),
        (lambda state: {"policy": state | {"more": torch.zeros(1)}}, "policy/more is not known"),
    ],
)
def test_a_damaged_policy_is_refused_by_name(change: Any, words: str, tmp_path: Path) -> None:
    config, path = ShacConfig(), tmp_path / "policy.safetensors"
    policy = make_policy(config, OBS, Box(-1, 1, (1,)), torch.Generator().manual_seed(3))
    save_checkpoint(path, change(policy.state_dict()))
    with pytest.raises(RequestError) as caught:
        load_policy(
            (load_checkpoint(path), path),
            SimpleNamespace(agent=config, run=SimpleNamespace(seed=0)),
            environment(-1, 1),
        )
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"learning_starts": 1000}, "learns from step 1,000 on"),
        ({"buffer_size": 100, "batch_size": 256}, "a minibatch has 256 transitions"),
        ({"learning_starts": 999, "buffer_size": 256, "batch_size": 256}, ""),
    ],
)
def test_sizes_that_do_not_go_together_are_warned_of(
    settings: dict[str, Any], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    warn_of_sizes(SacConfig(**settings), 1000)
    assert len(caplog.messages) == (words != "")
    assert words in caplog.text


def test_a_minibatch_that_is_longer_than_a_window_is_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is the whole window then, and not what was asked for."""
    warn_of_sizes(PpoConfig(num_envs=4, n_steps=16, batch_size=64), 1000)
    assert not caplog.messages
    warn_of_sizes(PpoConfig(num_envs=4, n_steps=16, batch_size=65), 1000)
    assert "a minibatch is to have 65 steps" in caplog.text and "has 64" in caplog.text
