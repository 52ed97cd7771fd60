"""A restored environment goes on as the saved one did, bit for bit, or says that it cannot."""

import collections
import heapq
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from pgtoolkit.envs.ordinary.episode_state import (
    MAX_ACTIONS,
    NEW_EPISODES,
    ResumableEnv,
    ResumeChoice,
)
from pgtoolkit.envs.ordinary.resume_check import choose_resume
from pgtoolkit.envs.ordinary.vector_states import start_sentence
from pgtoolkit.envs.registry.resolve import find_env
from pgtoolkit.errors import RequestError
from pgtoolkit.gymnasium_types import AnyEnv
from pgtoolkit.training.checkpoint import load_checkpoint, save_checkpoint

CLASSIC = ("CartPole-v1", "Pendulum-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0")
MUJOCO = (
    "InvertedPendulum-v5",
    "InvertedDoublePendulum-v5",
    "HalfCheetah-v5",
    "Hopper-v5",
    "Walker2d-v5",
    "Swimmer-v5",
    "Reacher-v5",
    "Pusher-v5",
    "Ant-v5",
    "Humanoid-v5",
    "HumanoidStandup-v5",
)
WRAPPERS: dict[str, dict[str, Any]] = {
    "FrameStackObservation": {"stack_size": 3},
    "NormalizeObservation": {},
    "NormalizeReward": {},
    "ClipReward": {"min_reward": -3.0, "max_reward": 0.0},
    "StickyAction": {"repeat_action_probability": 0.3},
    "DelayObservation": {"delay": 2},
    "TimeAwareObservation": {},
    "RecordEpisodeStatistics": {},
    "TimeLimit": {"max_episode_steps": 37},
}


def played(env: AnyEnv, actions: list[Any]) -> list[bytes]:
    """All outputs of the actions, with a reset at each end."""
    found = []
    for action in actions:
        obs, reward, terminated, truncated, _ = env.step(action)
        found.append(obs.tobytes() + np.asarray([reward, terminated, truncated]).tobytes())
        if terminated or truncated:
            found.append(env.reset()[0].tobytes())
    return found


def actions_of(env: AnyEnv, count: int) -> list[Any]:
    env.action_space.seed(5)
    return [env.action_space.sample() for _ in range(count)]


def through_a_file(state: dict[str, Any], path: Path) -> dict[str, Any]:
    save_checkpoint(path / "state", state)
    return load_checkpoint(path / "state")


def require_exact(make: Callable[[], AnyEnv], kind: str, steps: int, path: Path) -> None:
    """Saves after some steps and after some episodes; goes on for ``steps`` in both."""
    choice = choose_resume(make)
    assert choice.kind == kind, choice.reason
    env, other = (ResumableEnv(make, choice) for _ in range(2))
    env.reset(seed=3)
    other.reset(seed=4)
    actions = actions_of(env, steps)
    played(other, actions[:9])
    for before in (1, 17):
        played(env, actions[:before])
        obs = other.load_state_dict(through_a_file(env.state_dict(), path))
        assert len(env.actions) == len(other.actions)
        assert env.start == other.start
        assert np.array_equal(obs, env._obs) and obs.dtype == env._obs.dtype
        assert played(env, actions) == played(other, actions)
        env.reset()


@pytest.mark.parametrize("env_id", CLASSIC)
def test_classic_control(env_id: str, tmp_path: Path) -> None:
    """600 steps contain an end of every one of them."""
    require_exact(find_env(env_id).make_guarded, "state", 600, tmp_path)


@pytest.mark.parametrize("env_id", MUJOCO)
def test_mujoco(env_id: str, tmp_path: Path) -> None:
    """A time limit of 60 steps is an end of every one of them."""
    pytest.importorskip("mujoco")
    source = find_env(env_id, gym_wrappers={"TimeLimit": {"max_episode_steps": 60}})
    require_exact(source.make_guarded, "state", 130, tmp_path)


@pytest.mark.parametrize("env_id", ["LunarLander-v3", "LunarLanderContinuous-v3"])
def test_box2d_is_replayed(env_id: str, tmp_path: Path) -> None:
    pytest.importorskip("Box2D")
    require_exact(find_env(env_id).make_guarded, "replay", 300, tmp_path)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrappers(wrapper: str, tmp_path: Path) -> None:
    source = find_env("Pendulum-v1", gym_wrappers={wrapper: WRAPPERS[wrapper]})
    require_exact(source.make_guarded, "state", 250, tmp_path)


@pytest.mark.parametrize("env_id", ["FrozenLake-v1", "Blackjack-v1", "pgtoolkit/Pendulum-v0"])
def test_other_observations(env_id: str, tmp_path: Path) -> None:
    require_exact(find_env(env_id).make_guarded, "state", 250, tmp_path)


class Base(gymnasium.Env[Any, Any]):
    """A point that is pushed; its classes below keep a part of their state in odd places."""

    observation_space = Box(-np.inf, np.inf, (2,), np.float64)
    action_space = Box(-1.0, 1.0, (1,), np.float32)
    limit = 60

    def __init__(self) -> None:
        self.age = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.x, self.age = float(self.np_random.normal()), 0
        self.begin()
        return np.array([self.x, 0.0]), {}

    def begin(self) -> None:
        """Resets what the class keeps."""

    def extra(self) -> float:
        """What the class keeps, in the observation."""
        return 0.0

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.x += float(action[0])
        self.age += 1
        return np.array([self.x, self.extra()]), -abs(self.x), False, self.age >= self.limit, {}


class InDeque(Base):
    def begin(self) -> None:
        self.queue = collections.deque([0.0] * 4, maxlen=4)

    def extra(self) -> float:
        self.queue.append(self.x)
        return self.queue[0]


class InHeap(Base):
    def begin(self) -> None:
        self.heap: list[tuple[float, int]] = []

    def extra(self) -> float:
        heapq.heappush(self.heap, (self.x, self.age))
        return self.heap[0][0] + len(self.heap)


class InClosure(Base):
    def __init__(self) -> None:
        super().__init__()
        total = 0.0

        def add(x: float) -> float:
            nonlocal total
            total += x
            return total

        self.add = add

    def extra(self) -> float:
        return self.add(self.x)


class InObject(Base):
    def begin(self) -> None:
        self.helper = Helper()

    def extra(self) -> float:
        self.helper.values["sum"] = self.helper.values.get("sum", 0.0) + self.x
        return self.helper.values["sum"]


class Helper:
    def __init__(self) -> None:
        self.values: dict[str, float] = {}


class LateAttribute(Base):
    """An attribute that first comes to be late in an episode, and stays."""

    def extra(self) -> float:
        if self.age == 50:
            self.late = self.x
        return getattr(self, "late", 0.0)


class InTorchGenerator(Base):
    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(7)

    def extra(self) -> float:
        return float(torch.rand((), generator=self.generator))


class InPythonRandom(Base):
    def begin(self) -> None:
        self.random = random.Random(int(self.np_random.integers(1000)))

    def extra(self) -> float:
        return self.random.random()


class InMersenneTwister(Base):
    def __init__(self) -> None:
        super().__init__()
        self.random = np.random.RandomState(3)

    def extra(self) -> float:
        return self.random.normal()


class WithGetState(Base):
    """Its state is in a generator function, which ``get_state`` and ``set_state`` can reach."""

    def begin(self) -> None:
        self.set_state((self.x, self.age, 0))

    def get_state(self) -> tuple[float, int, int]:
        return self.x, self.age, self.count

    def set_state(self, state: tuple[float, int, int]) -> None:
        self.x, self.age, self.count = state
        self.counter = (float(k) for k in range(self.count, 10**9))

    def extra(self) -> float:
        self.count += 1
        return next(self.counter)


@pytest.mark.parametrize(
    "kind",
    [
        InDeque,
        InHeap,
        InClosure,
        InObject,
        LateAttribute,
        InTorchGenerator,
        InPythonRandom,
        InMersenneTwister,
        WithGetState,
    ],
)
def test_state_in_odd_places_is_found(kind: type[Base], tmp_path: Path) -> None:
    require_exact(kind, "state", 150, tmp_path)


class InGeneratorFunction(Base):
    """Made at each reset, so that the episode can be taken again."""

    def begin(self) -> None:
        self.counter = iter_sums(float(self.np_random.normal()))

    def extra(self) -> float:
        return next(self.counter)


def iter_sums(step: float) -> Iterator[float]:
    total = 0.0
    while True:
        total += step
        yield total


def test_a_generator_function_of_each_episode_is_replayed(tmp_path: Path) -> None:
    require_exact(find_env(InGeneratorFunction()).make_guarded, "replay", 150, tmp_path)


def test_an_episode_that_is_too_long_to_be_replayed_is_not() -> None:
    choice = choose_resume(find_env(InGeneratorFunction()).make_guarded)
    env = ResumableEnv(find_env(InGeneratorFunction()).make_guarded, choice.for_envs(10**9))
    env.reset(seed=0)
    played(env, actions_of(env, 3))
    state = env.state_dict()
    assert state["kind"] == "new episodes" and "3 steps is too long" in state["reason"]


class InClass(Base):
    count = 0

    def extra(self) -> float:
        InClass.count += 1
        return float(InClass.count)


MODULE_COUNT = [0]


class InModule(Base):
    def extra(self) -> float:
        MODULE_COUNT[0] += 1
        return float(MODULE_COUNT[0] > 10**6)


class FromGlobalGenerator(Base):
    def extra(self) -> float:
        return float(np.random.normal())  # the fault that is to be found


class FromClock(Base):
    def extra(self) -> float:
        return time.perf_counter()


class InLastingGenerator(Base):
    def __init__(self) -> None:
        super().__init__()
        self.counter = iter_sums(1.0)

    def extra(self) -> float:
        return next(self.counter)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (InClass, "another observation"),
        (InModule, "MODULE_COUNT, which all its environments share"),
        (FromGlobalGenerator, "another observation"),
        (FromClock, "another observation"),
    ],
)
def test_what_cannot_be_saved_is_said(kind: type[Base], reason: str) -> None:
    """MODULE_COUNT changes no output within the try; that it changes at all is seen."""
    choice = choose_resume(find_env(kind()).make_guarded)
    assert choice.kind == "new episodes" and reason in choice.reason


def test_a_generator_function_that_outlives_episodes_is_said() -> None:
    choice = choose_resume(InLastingGenerator)
    assert choice.kind == "new episodes"


def test_shared_variables_that_change_late_are_noticed_when_the_state_is_saved() -> None:
    choice = choose_resume(find_env(LateShared()).make_guarded)
    assert choice.kind == "state", choice.reason
    env = ResumableEnv(find_env(LateShared()).make_guarded, choice)
    env.reset(seed=0)
    assert env.state_dict()["kind"] == "state"
    env.env.unwrapped.is_late = True  # type: ignore[attr-defined]
    played(env, actions_of(env, 2))
    saved = env.state_dict()
    assert saved["kind"] == "new episodes" and "LateShared.sum" in saved["reason"]


class LateShared(Base):
    sum = 0.0

    def extra(self) -> float:
        if getattr(self, "is_late", False):
            LateShared.sum += self.x
        return LateShared.sum


def test_the_check_leaves_the_global_generators_as_they_are() -> None:
    before = global_generators()
    choose_resume(find_env(FromGlobalGenerator()).make_guarded)
    assert global_generators() == before


def global_generators() -> tuple[str, Any, list[int]]:
    numpy = np.random.get_state()  # the state of the module's generator is meant
    return repr(numpy), random.getstate(), torch.get_rng_state().tolist()


class Raises(Base):
    def extra(self) -> float:
        raise ZeroDivisionError("in the step")


def test_an_environment_that_raises_is_left_to_the_run() -> None:
    choice = choose_resume(find_env(Raises()).make_guarded)
    assert choice.kind == "new episodes" and "ZeroDivisionError: in the step" in choice.reason


def test_an_environment_that_goes_on_differently_is_told_the_likely_cause() -> None:
    choice = choose_resume(find_env(FromGlobalGenerator()).make_guarded)
    assert choice.reason.endswith(
        "NumPy's global random numbers (take self.np_random) or the clock"
    )


@pytest.mark.parametrize(
    ("choice", "end"),
    [
        (ResumeChoice("state"), "continues it exactly"),
        (ResumeChoice("replay", "no state"), "takes the episodes under way again (no state)"),
        (ResumeChoice("new episodes", "it cannot"), "starts new episodes: it cannot"),
        (None, "starts new episodes: SimpleNamespace has no get_states()"),
    ],
)
def test_a_first_run_says_what_a_resume_would_do(choice: ResumeChoice | None, end: str) -> None:
    """As something that may happen: nothing has been resumed."""
    env: Any = SimpleNamespace(resume_choice=choice)
    text = start_sentence(env, "`pgtoolkit resume`")
    assert text == f"if this run is stopped, `pgtoolkit resume` {end}"


def test_start_and_actions_repeat_an_episode() -> None:
    """With the state of its generator an episode can be taken again from outside."""
    make = find_env("CartPole-v1").make_guarded
    env = ResumableEnv(make, NEW_EPISODES)
    assert isinstance(env.action_space, Discrete)
    env.reset(seed=8)
    env.reset()
    obs = [env.step(action)[0] for action in (0, 1, 0)]
    other = make()
    other.reset(seed=0)
    assert env.start["seed"] is None
    other.unwrapped.np_random.bit_generator.state = env.start["generator"]
    other.reset()
    again = [other.step(action)[0] for action in env.actions]
    assert np.array_equal(obs, again)


def test_new_episodes_start_from_the_seed_of_the_state() -> None:
    make = find_env("CartPole-v1").make_guarded
    env = ResumableEnv(make, NEW_EPISODES)
    env.reset(seed=1)
    saved = env.state_dict()
    assert saved == {"kind": "new episodes", "reason": NEW_EPISODES.reason}
    assert np.array_equal(env.load_state_dict(saved | {"seed": 6}), make().reset(seed=6)[0])


def damaged(name: str, saved: dict[str, Any]) -> dict[str, Any]:
    python = saved["python"]
    return {
        "no kind": {},
        "another kind": saved | {"kind": "pickle"},
        "another layout": saved | {"python": python | {"layout": "0"}},
        "codes": saved | {"python": python | {"codes": python["codes"].flip(0)}},
        "short values": saved | {"python": python | {"values": python["values"][:3]}},
        "places": saved | {"python": python | {"held": python["held"] + 10**6}},
        "observation": saved | {"obs": saved["obs"] | {"shape": [7]}},
        "object": saved | {"obs": saved["obs"] | {"dtype": "O"}},
        "actions": saved | {"actions": 3},
    }[name]


@pytest.mark.parametrize(
    "name",
    [
        "no kind",
        "another kind",
        "another layout",
        "codes",
        "short values",
        "places",
        "observation",
        "object",
        "actions",
    ],
)
def test_damaged_states_are_refused(name: str) -> None:
    env = ResumableEnv(find_env("Pendulum-v1").make_guarded, ResumeChoice("state"))
    env.reset(seed=0)
    played(env, actions_of(env, 3))
    with pytest.raises(RequestError):
        env.load_state_dict(damaged(name, env.state_dict()))


def test_no_more_actions_are_kept_than_can_be_replayed() -> None:
    env = ResumableEnv(find_env("Pendulum-v1").make_guarded, NEW_EPISODES)
    env.reset(seed=0)
    action = np.zeros(1, np.float32)
    for _ in range(MAX_ACTIONS + 5):
        env.step(action)
    assert len(env.actions) == MAX_ACTIONS


class Walk(gymnasium.Env[np.ndarray, np.ndarray]):
    """Its reward has a scale; the time at which it was made is never the same."""

    observation_space, action_space = Box(-9, 9, (1,)), Box(-1, 1, (1,))

    def __init__(self, scale: float = 1.0, names: tuple[str, ...] = ("a", "b")) -> None:
        self.scale, self.names, self.made_at = scale, set(names), time.monotonic()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.place, self.steps = self.np_random.normal(size=1).astype(np.float32), 0
        return self.place.copy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.place, self.steps = self.place + action, self.steps + 1
        return self.place.copy(), self.scale * float(self.place[0]), False, self.steps >= 20, {}


def test_an_environment_that_is_made_otherwise_does_not_get_its_former_constants_back() -> None:
    """Gravity in a run that goes on would be the one of before, and that of evaluations the new."""
    choice = ResumeChoice("state")
    saved = ResumableEnv(Walk, choice)
    saved.reset(seed=0)
    played(saved, actions_of(saved, 3))
    state = saved.state_dict()
    assert np.array_equal(ResumableEnv(Walk, choice).load_state_dict(state), saved._obs)
    for other in (lambda: Walk(scale=5.0), lambda: Walk(names=("a", "c"))):
        changed = ResumableEnv(other, choice)
        with pytest.raises(RequestError, match="Walk is made otherwise than when the run was"):
            changed.load_state_dict(state)
    with pytest.raises(RequestError, match=r"saved: scale$"):
        ResumableEnv(lambda: Walk(scale=5.0), choice).load_state_dict(state)
    # A state of before such hashes were kept is restored as it was.
    del state["as_made"]
    assert ResumableEnv(lambda: Walk(scale=5.0), choice).load_state_dict(state) is not None
