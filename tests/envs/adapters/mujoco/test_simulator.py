"""MuJoCo's environments as pure functions of a saved state."""

import collections
import copy
import functools
import importlib
import random
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.mujoco.ant_v5 import AntEnv
from gymnasium.envs.mujoco.inverted_pendulum_v5 import InvertedPendulumEnv
from gymnasium.envs.mujoco.reacher_v5 import ReacherEnv
from gymnasium.wrappers import ClipAction, TimeLimit

from pgtoolkit.envs.adapters.mujoco.simulator import MuJoCoSimulator
from pgtoolkit.envs.adapters.mujoco.snapshot import (
    DERIVED_FIELDS,
    Snapshot,
    depends_on_warmstart,
    import_mujoco,
    quiet_loading,
)
from pgtoolkit.errors import RequestError
from pgtoolkit.gymnasium_types import AnyEnv

NAMES = (
    "Ant",
    "HalfCheetah",
    "Hopper",
    "Humanoid",
    "HumanoidStandup",
    "InvertedDoublePendulum",
    "InvertedPendulum",
    "Pusher",
    "Reacher",
    "Swimmer",
    "Walker2d",
)
PENDULUM_STEP: Any = InvertedPendulumEnv.step
PENDULUM_RESET: Any = InvertedPendulumEnv.reset_model


def plain(name: str) -> AnyEnv:
    with quiet_loading():
        return gymnasium.make(f"{name}-v5")


@functools.cache
def simulator(name: str) -> MuJoCoSimulator:
    return MuJoCoSimulator(lambda: plain(name))


def subclassed(kind: type[Any], **members: Any) -> MuJoCoSimulator:
    """The simulator of a subclass of one of Gymnasium's environments."""
    env = type("Custom", (kind,), members)
    return MuJoCoSimulator(lambda: TimeLimit(env(), 100))


@pytest.mark.parametrize("name", NAMES)
def test_a_restored_step_is_the_environments_own_to_the_bit(name: str) -> None:
    """Tested over 50 steps; between them the simulator takes steps from another state."""
    env, pure = plain(name), simulator(name)
    observation, _ = env.reset(seed=3)
    saved, first = pure.reset(3)
    assert np.array_equal(first, observation)
    env.action_space.seed(0)
    elsewhere, _ = pure.reset(4)
    for _ in range(50):
        action = env.action_space.sample()
        expected = env.step(action)
        elsewhere = pure.step(elsewhere[None], -action[None]).saved[0]
        outcome = pure.step(saved[None], action[None])
        saved = outcome.saved[0]
        assert np.array_equal(outcome.observation[0], expected[0])
        assert outcome.reward[0] == expected[1]
        assert outcome.terminated[0] == expected[2]


def test_all_derived_fields_of_an_unknown_class_are_restored() -> None:
    """Restored into another ``MjData``, whose fields differ before."""
    pure = subclassed(AntEnv)
    assert pure.snapshot.fields == DERIVED_FIELDS
    saved, _ = pure.reset(0)
    saved = pure.step(saved[None], np.full((1, 8), 0.3)).saved[0]
    data = import_mujoco().MjData(pure.env.model)
    pure.snapshot.restore(data, saved)
    for name in DERIVED_FIELDS:
        assert np.array_equal(getattr(data, name), getattr(pure.env.data, name)), name
    assert np.array_equal(pure.snapshot.capture(data), saved[: pure.snapshot.size])


def test_rows_do_not_mix() -> None:
    """Steps of a batch equal steps of its rows one by one."""
    pure = simulator("Hopper")
    saved = np.stack([pure.reset(seed)[0] for seed in range(3)])
    actions = np.random.default_rng(0).uniform(-1, 1, (3, 3))
    together = pure.step(saved, actions)
    for k in range(3):
        alone = pure.step(saved[k : k + 1], actions[k : k + 1])
        for a, b in zip(alone, together, strict=True):
            assert np.array_equal(a[0], b[k])


@pytest.mark.parametrize("name", ["Ant", "Humanoid", "Reacher"])
def test_perturb_and_displacement_are_inverse(name: str) -> None:
    """Quaternions are stored as four numbers and moved in three directions."""
    pure = simulator(name)
    saved = np.stack([pure.reset(seed)[0] for seed in range(4)])
    tangent = np.random.default_rng(0).normal(0, 0.3, (4, pure.tangent_size))
    moved = pure.perturb(saved, tangent)
    assert np.allclose(pure.displacement(moved, saved), tangent, atol=1e-12)
    if name != "Reacher":
        assert np.allclose(np.linalg.norm(moved[:, 4:8], axis=1), 1)


def test_what_a_step_reads_of_the_step_before_is_part_of_the_tangent() -> None:
    """Ant reads its torso's x, Humanoid the x of its 13 bodies, and the others nothing."""
    derived_inputs = {name: len(simulator(name).derived_inputs) for name in NAMES}
    assert {name: count for name, count in derived_inputs.items() if count} == {
        "Ant": 1,
        "Humanoid": 13,
    }
    ant = simulator("Ant")
    torso = ant.env.model.body("torso").id
    assert ant.derived_inputs[0] == ant.snapshot.parts["xpos"].start + 3 * torso


def test_a_warm_start_that_matters_is_part_of_the_tangent() -> None:
    """The humanoids are solved by PGS, the others by Newton's method, which converges."""
    for name in NAMES:
        pure = simulator(name)
        nv, na = pure.env.model.nv, pure.env.model.na
        warm = nv if name.startswith("Humanoid") else 0
        assert pure.tangent_size == 2 * nv + na + len(pure.derived_inputs) + warm, name


def test_who_starts_its_solver_anew_has_no_warm_start() -> None:
    model = import_mujoco().MjModel.from_xml_string("<mujoco><option solver='PGS'/></mujoco>")
    assert depends_on_warmstart(model)
    model.opt.disableflags |= int(import_mujoco().mjtDisableBit.mjDSBL_WARMSTART)
    assert not depends_on_warmstart(model)


def test_the_warm_start_is_moved_as_a_velocity() -> None:
    """A tangent of 1 is an acceleration of ``1 / timestep``."""
    pure = simulator("HumanoidStandup")
    saved, nv = pure.reset(0)[0][None], pure.env.model.nv
    tangent = np.zeros((1, pure.tangent_size))
    tangent[0, -nv:] = np.arange(nv)
    moved = pure.perturb(saved, tangent) - pure.perturb(saved, 0 * tangent)
    warmstart = moved[0, pure.snapshot.warmstart]
    assert np.allclose(warmstart, np.arange(nv) / pure.env.model.opt.timestep)
    assert np.count_nonzero(moved) == nv - 1


def test_what_an_unknown_class_reads_is_found() -> None:
    pure, known = subclassed(AntEnv), simulator("Ant")
    assert pure.tangent_size == known.tangent_size
    assert pure.derived_inputs[0] - pure.snapshot.integration == 3


def test_the_solver_and_its_options_are_left_alone() -> None:
    pure, env = simulator("Hopper"), plain("Hopper").unwrapped
    saved, _ = pure.reset(0)
    pure.step(saved[None], np.zeros((1, 3)))
    model: Any = getattr(env, "model")  # noqa: B009  (Gymnasium's stub has no such attribute)
    for name in (n for n in dir(model.opt) if not n.startswith("_")):
        assert np.array_equal(getattr(pure.env.model.opt, name), getattr(model.opt, name)), name


def test_no_log_is_left_in_the_users_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """HalfCheetah has a deprecated attribute, about which MuJoCo would write a log file."""
    monkeypatch.chdir(tmp_path)
    handler = import_mujoco().get_mju_user_warning()
    MuJoCoSimulator(lambda: gymnasium.make("HalfCheetah-v5"))
    assert list(tmp_path.iterdir()) == []
    assert import_mujoco().get_mju_user_warning() is handler


def test_a_missing_mujoco_is_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def missing(name: str, package: str | None = None) -> Any:
        if name == "mujoco":
            raise ModuleNotFoundError("No module named 'mujoco'", name="mujoco")
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(RequestError, match=r"pip install \"gymnasium\[mujoco\]"):
        MuJoCoSimulator(lambda: gymnasium.make("Reacher-v5"))


def test_other_environments_are_refused() -> None:
    with pytest.raises(RequestError, match="PendulumEnv is not a gymnasium"):
        MuJoCoSimulator(lambda: gymnasium.make("Pendulum-v1"))


def test_a_wrapper_that_would_be_lost_is_refused() -> None:
    with pytest.raises(RequestError, match="ClipAction around ReacherEnv would be lost"):
        MuJoCoSimulator(lambda: ClipAction(gymnasium.make("Reacher-v5")))


def test_a_time_limit_is_owed_and_the_shortest_counts() -> None:
    with pytest.raises(RequestError, match="no time limit"):
        MuJoCoSimulator(ReacherEnv)
    assert MuJoCoSimulator(lambda: TimeLimit(plain("Reacher"), 7)).max_episode_steps == 7
    assert simulator("Reacher").max_episode_steps == 50


def counting(self: Any, action: Any) -> Any:
    """A counter that moves the goal after 50 steps."""
    self.count += 1
    observation, _, _, _, info = PENDULUM_STEP(self, action)
    goal = 0.0 if self.count <= 50 else 1.0
    return observation, -float((observation[0] - goal) ** 2), False, False, info


def noisy(self: Any, action: Any) -> Any:
    return counting(self, action + 0.1 * self.np_random.normal(size=1))


def delayed(self: Any, action: Any) -> Any:
    """Actions come 20 steps late, through a filter."""
    self.queue.append(float(action[0]))
    self.filtered = 0.9 * self.filtered + self.queue[0]
    return counting(self, np.array([self.filtered]))


def falling_slower(self: Any, action: Any) -> Any:
    """Gravity and a mass change after 60 steps, for ever."""
    if self.count > 60:
        self.model.opt.gravity[2], self.model.body_mass[1] = -3.0, 2.0
    return counting(self, action)


def randomised(self: Any) -> Any:
    """Masses are drawn at each reset."""
    self.model.body_mass[1] = self.np_random.uniform(1, 5)
    return started(self)


def started(self: Any) -> Any:
    self.count, self.filtered, self.queue = 0, 0.0, collections.deque([0.0] * 20, maxlen=20)
    return PENDULUM_RESET(self)


@pytest.mark.parametrize(
    ("step", "reset"),
    [
        (counting, started),
        (noisy, started),
        (delayed, started),
        (falling_slower, started),
        (counting, randomised),
    ],
)
def test_state_outside_the_simulation_is_each_row_s_own(step: Any, reset: Any) -> None:
    """Three rows against three plain environments, over two episodes, to the bit."""
    kind: Any = type("Custom", (InvertedPendulumEnv,), {"step": step, "reset_model": reset})
    pure = MuJoCoSimulator(lambda: TimeLimit(kind(), 80))
    envs = [kind() for _ in range(3)]
    starts = [pure.reset(seed)[0] for seed in range(3)]
    rows = np.zeros((3, pure.saved_size))
    for row, env in enumerate(envs):
        rows[row] = starts[row]
        env.reset(seed=row)
    actions = np.random.default_rng(0).uniform(-1, 1, (120, 3, 1))
    for number, action in enumerate(actions):
        if number == 80:
            starts = [pure.reset_again(rows[row], 9 + row)[0] for row in range(3)]
            rows = np.stack([np.pad(s, (0, pure.saved_size - len(s))) for s in starts])
            for row, env in enumerate(envs):
                env.reset(seed=9 + row)
        outcome = pure.step(rows, action)
        rows = outcome.saved
        for row, env in enumerate(envs):
            observation, reward, *_ = env.step(action[row])
            assert np.array_equal(outcome.observation[row], observation), number
            assert outcome.reward[row] == reward, number


def test_a_delay_and_a_filter_are_differentiated() -> None:
    kind: Any = type("Custom", (InvertedPendulumEnv,), {"step": delayed, "reset_model": started})
    pure = MuJoCoSimulator(lambda: TimeLimit(kind(), 80))
    # Two positions, two velocities, 20 delayed actions and the filter.
    assert pure.tangent_size == 25


def test_a_variable_of_the_class_is_refused() -> None:
    def step(self: Any, action: Any) -> Any:
        type(self).total = getattr(type(self), "total", 0) + 1
        return PENDULUM_STEP(self, action)

    with pytest.raises(RequestError, match=r"Custom writes Custom.total, which all"):
        subclassed(InvertedPendulumEnv, step=step)


def test_randomness_from_elsewhere_is_refused() -> None:
    def step(self: Any, action: Any) -> Any:
        observation, reward, *rest = PENDULUM_STEP(self, action)
        return observation, reward + random.random(), *rest

    with pytest.raises(RequestError, match="steps differently from the same state"):
        subclassed(InvertedPendulumEnv, step=step)


def test_an_integer_reward_is_exact() -> None:
    """InvertedPendulum-v5 returns 0 or 1 as an int."""
    assert simulator("InvertedPendulum").precision.reward == np.float64


def test_a_picture_of_a_saved_state_needs_a_render_mode() -> None:
    pure = simulator("Reacher")
    with pytest.raises(RequestError, match="render_mode"):
        pure.render(pure.reset(0)[0])


@pytest.mark.parametrize(("name", "touches"), [("Reacher", False), ("Hopper", True)])
def test_whether_bodies_can_touch(name: str, touches: bool) -> None:
    assert simulator(name).has_contacts is touches


def test_a_snapshot_and_its_copy_serve_several_data_in_turns() -> None:
    """Arrays of one ``MjData`` are kept; those of another one are not written instead."""
    mujoco, original = import_mujoco(), simulator("Reacher").env
    first, second = (mujoco.MjData(original.model) for _ in range(2))
    mujoco.mj_forward(original.model, first)
    snapshot = Snapshot(original.model, DERIVED_FIELDS)
    saved = snapshot.capture(first)
    for used in (snapshot, copy.deepcopy(snapshot)):
        for data, state in ((first, saved), (second, saved + 1), (first, saved + 2)):
            used.restore(data, state)
        assert np.array_equal(first.xpos.ravel(), (saved + 2)[snapshot.parts["xpos"]])
        assert np.array_equal(second.xpos.ravel(), (saved + 1)[snapshot.parts["xpos"]])
        assert np.array_equal(used.capture(second), saved + 1)


def test_gymnasiums_own_classes_do_not_round() -> None:
    """So steps near a contact are not flagged as stairs; of other classes it is not known."""
    assert not MuJoCoSimulator(lambda: gymnasium.make("Reacher-v5")).may_round


def test_an_environment_that_truncates_by_itself_is_refused() -> None:
    """Its episodes would go on in training, and end in evaluations."""

    def step(self: Any, action: Any) -> Any:
        self.steps = getattr(self, "steps", 0) + 1
        *outputs, _, info = PENDULUM_STEP(self, action)
        return (*outputs, self.steps >= 3, info)

    with pytest.raises(RequestError, match=r"truncates episodes by itself"):
        made = subclassed(InvertedPendulumEnv, step=step)
        saved, _ = made.reset(0)
        for _ in range(5):
            saved = made.step(saved[None], np.zeros((1, 1), np.float32)).saved[0]
