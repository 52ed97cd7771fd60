"""Error messages where an optional package is not installed."""

import sys
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box

from pgtoolkit.envs.adapters.jax.env import JaxEnvironment
from pgtoolkit.envs.adapters.warp import WarpKernel
from pgtoolkit.errors import RequestError


class Nothing(JaxEnvironment):
    observation_space = Box(-1.0, 1.0, (1,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)
    max_episode_steps = 1

    def reset(self, key: Any) -> Any:
        return key

    def step(self, state: Any, action: Any) -> Any:
        return state


def test_without_jax(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jax", None)
    with pytest.raises(RequestError, match=r"needs jax.*pip install \"jax"):
        Nothing()


def test_without_warp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "warp", None)
    with pytest.raises(RequestError, match=r"needs warp.*pip install \"warp-lang"):
        WarpKernel(lambda: None, outputs=[(1,)])
