"""A tape of environments: it gives back what was returned, and tells other actions apart."""

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from pgtoolkit.agents.reinforce import ReinforceConfig
from pgtoolkit.envs.registry.resolve import find_env
from pgtoolkit.errors import RequestError
from pgtoolkit.policies.factory import seeded_policy
from pgtoolkit.rollouts.rollout import RolloutState, collect, reset
from pgtoolkit.rollouts.tape import (
    TapedFaultError,
    TapedVectorEnv,
    TapeEndError,
    TapePlayer,
    pack_events,
    unpack_events,
)
from pgtoolkit.rollouts.window import FIELDS


def make_env(mode: AutoresetMode) -> SyncVectorEnv:
    return SyncVectorEnv([find_env("CartPole-v1").make_guarded] * 3, autoreset_mode=mode)


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_a_window_from_a_tape_is_the_window(mode: AutoresetMode) -> None:
    """In all three modes, over several ends of episodes, by way of a checkpoint's form."""
    env = make_env(mode)
    spaces = env.single_observation_space, env.single_action_space
    policy = seeded_policy(ReinforceConfig(), spaces, seed=0, device=torch.device("cpu"))
    start = reset(env, seed=1, device=torch.device("cpu"))
    noise = policy.draw_noise(60, 3, generator=torch.Generator().manual_seed(0))
    taped = TapedVectorEnv(env)
    window, _ = collect(taped, policy, start, noise)
    assert bool(window.done.any())
    player = TapePlayer(env, start.obs.numpy())
    player.load(unpack_events(pack_events(taped.events)))
    again, _ = collect(player, policy, RolloutState(*vars(start).values()), noise)
    for field in FIELDS:
        one, two = getattr(window, field.name), getattr(again, field.name)
        assert (one is None and two is None) or torch.equal(one, two), field.name
    assert player.different is None


class WithoutMask(SyncVectorEnv):
    """Gives the last observations without saying whose they are, which the ends say, too."""

    def step(self, actions: Any) -> Any:
        *outputs, info = super().step(actions)
        info.pop("_final_obs", None)
        return (*outputs, info)


def test_last_observations_need_no_mask() -> None:
    found = []
    for kind in (SyncVectorEnv, WithoutMask):
        makers = [find_env("CartPole-v1").make_guarded] * 3
        env = TapedVectorEnv(kind(makers, autoreset_mode=AutoresetMode.SAME_STEP))
        env.reset(seed=0)
        for _ in range(40):
            env.step(np.array([0, 1, 0]))
        found.append([event["final_obs"] for event in env.events if "final_obs" in event])
    assert len(found[0]) > 2 and all(map(np.array_equal, *found))


def test_other_actions_and_the_end_are_told() -> None:
    env = TapedVectorEnv(make_env(AutoresetMode.SAME_STEP))
    env.reset(seed=0)
    env.step(np.array([0, 1, 0]))
    env.events.append({"actions": np.array([0, 0, 0])})  # the step at which they raised
    player = TapePlayer(env.env, np.zeros((3, 4)))
    player.load(env.events)
    assert np.array_equal(player.reset()[0], env.events[0]["obs"])
    player.step(np.array([0, 1, 1]))
    assert player.different == 1
    with pytest.raises(TapedFaultError):
        player.step(np.array([0, 0, 0]))
    with pytest.raises(TapeEndError):
        player.step(np.array([0, 0, 0]))


def test_a_tape_of_another_form_is_refused() -> None:
    packed = pack_events([{"obs": np.zeros((2, 1), np.float32)}])
    for wrong in ({}, packed | {"obs": 3}, packed | {"count": 0}, packed | {"count": "x"}):
        with pytest.raises(RequestError):
            unpack_events(wrong)
