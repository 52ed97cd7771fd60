"""States of vector environments: saved and put back, with faults and what has been dropped."""

import json
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from pgtoolkit.envs.vectorized.stepping import Stepping, Vectorization
from pgtoolkit.envs.vectorized.vector_env import OrdinaryVectorEnv
from pgtoolkit.errors import EnvFaultError, RequestError
from pgtoolkit.training.checkpoint import load_checkpoint, save_checkpoint

MODES: tuple[Vectorization, ...] = ("sync", "async")


class Walk(gymnasium.Env[Any, Any]):
    """Adds a random number and the action at each step; fails beyond a limit."""

    observation_space = Box(-np.inf, np.inf, (1,), np.float64)
    action_space = Discrete(2)
    resume = "state"

    def __init__(self, limit: int = 10**9) -> None:
        self.limit, self.place, self.count = limit, 0.0, 0

    def reset(self, **kwargs: Any) -> Any:
        super().reset(seed=kwargs.get("seed"))
        self.place, self.count = self.np_random.uniform(), 0
        return np.array([self.place]), {}

    def step(self, action: Any) -> Any:
        self.count += 1
        if self.count > self.limit:
            raise ValueError("too far")
        self.place += self.np_random.uniform() + int(action)
        return np.array([self.place]), self.place, False, self.count % 6 == 0, {}


class Saved(Walk):
    def state_dict(self) -> dict[str, Any]:
        generator = json.dumps(self.np_random.bit_generator.state)
        return {"place": self.place, "count": self.count, "generator": generator}

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        self.place, self.count = state["place"], state["count"]
        self.np_random.bit_generator.state = json.loads(state["generator"])
        return np.array([self.place])


def steps(env: OrdinaryVectorEnv, number: int) -> list[Any]:
    found = []
    for k in range(number):
        obs, reward, _, truncated, info = env.step(np.arange(env.num_envs) % 2 + 0 * k)
        found.append((obs.tolist(), reward.tolist(), truncated.tolist(), sorted(info)))
    return found


@pytest.mark.parametrize("mode", MODES)
def test_what_follows_is_the_same(mode: Vectorization, tmp_path: Any) -> None:
    """In an episode, over a checkpoint file, from one process to another."""

    def make() -> OrdinaryVectorEnv:
        env = OrdinaryVectorEnv(Saved, 3, stepping=Stepping(vectorization=mode))
        env.reset(seed=1)
        return env

    env, again = make(), make()
    steps(env, 9)
    assert env.resume == ["state"] * 3
    save_checkpoint(tmp_path / "state.safetensors", {"envs": env.get_states()})
    wanted = steps(env, 8)
    states = load_checkpoint(tmp_path / "state.safetensors")["envs"]
    obs = again.set_states(states)
    assert obs.shape == (3, 1) and obs.dtype == np.float64
    assert steps(again, 8) == wanted
    env.close()
    again.close()


def test_the_replay_of_a_fault_after_a_resume_has_the_actions_before_it() -> None:
    def make() -> OrdinaryVectorEnv:
        env = OrdinaryVectorEnv(lambda: Saved(4), 1, name="Saved")
        env.reset(seed=3)
        return env

    env, again = make(), make()
    steps(env, 2)
    again.set_states(env.get_states())
    for one in (env, again):
        with pytest.raises(EnvFaultError, match=r"at step 5 of its episode \(seed 3\)") as caught:
            steps(one, 3)
        assert caught.value.replay["actions"] == [0] * 5


@pytest.mark.parametrize("mode", MODES)
def test_dropped_environments_stay_dropped(mode: Vectorization) -> None:
    limits = iter([10**9, 3, 10**9, 10**9, 3, 10**9])  # environment 1 of each

    def make() -> OrdinaryVectorEnv:
        number = [next(limits) for _ in range(3)]
        stepping = Stepping(vectorization="sync", on_fault="drop")
        env = OrdinaryVectorEnv(lambda: Saved(number.pop(0)), 3, stepping=stepping)
        env.reset(seed=1)
        return env

    env, again = make(), make()
    steps(env, 5)
    assert env.dropped.tolist() == [False, True, False]
    obs = again.set_states(env.get_states())
    assert again.dropped.tolist() == [False, True, False] and again.num_faults == 1
    np.testing.assert_array_equal(obs, env._observations)
    assert steps(again, 4) == steps(env, 4)


def test_restarts_go_on_with_the_next_seed() -> None:
    """Two restarts before the state is saved: the third has the seed that it would have had."""

    def make() -> OrdinaryVectorEnv:
        env = OrdinaryVectorEnv(lambda: Saved(2), 2, stepping=Stepping(on_fault="restart"))
        env.reset(seed=1)
        return env

    env, again = make(), make()
    steps(env, 7)
    assert env.num_faults == 4
    again.set_states(env.get_states())
    assert steps(again, 6) == steps(env, 6)
    assert env.num_faults == again.num_faults == 8


@pytest.mark.parametrize("mode", MODES)
def test_environments_without_a_state_begin_repeatable_episodes(mode: Vectorization) -> None:
    def make() -> OrdinaryVectorEnv:
        env = OrdinaryVectorEnv(Walk, 2, stepping=Stepping(vectorization=mode))
        env.reset(seed=1)
        return env

    env, first, second, fresh = (make() for _ in range(4))
    steps(env, 3)
    states = env.get_states()
    assert states[0]["kind"] == "new episodes"
    states = [state | {"seed": 40 + i} for i, state in enumerate(states)]
    one, other = first.set_states(states), second.set_states(states)
    np.testing.assert_array_equal(one, other)
    assert not np.array_equal(one, fresh.reset(seed=1)[0])
    for made in (env, first, second, fresh):
        made.close()


def test_states_of_another_number_of_environments_are_refused() -> None:
    env = OrdinaryVectorEnv(Walk, 2)
    env.reset(seed=0)
    with pytest.raises(RequestError, match="has 1 entries, not 2"):
        env.set_states(env.get_states()[:1])
