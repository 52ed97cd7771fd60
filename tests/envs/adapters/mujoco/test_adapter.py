"""MuJoCo's environments as differentiable environments, through autograd."""

import copy
import gc
import resource
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.envs.mujoco.mujoco_env import MujocoEnv
from gymnasium.spaces import Box
from gymnasium.wrappers import TimeLimit
from torch import Tensor

from pgtoolkit.envs.adapters.mujoco.adapter import MuJoCo
from pgtoolkit.envs.adapters.mujoco.snapshot import quiet_loading
from pgtoolkit.envs.adapters.simulation.finite_difference import FiniteDifference, SimulatedState
from pgtoolkit.envs.adapters.simulation.simulator import Array
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.errors import RequestError

STEP, SUBSTEPS = 0.01, 3
INERTIA, MASS = (0.02, 0.03, 0.045), 1.5
BODY = f"""
<mujoco>
  <option timestep="{STEP}" integrator="Euler" gravity="0 0 -9.81"/>
  <worldbody>
    <body name="body">
      <freejoint name="root"/>
      <inertial pos="0 0 0" mass="{MASS}" diaginertia="{" ".join(map(str, INERTIA))}"/>
      <geom type="sphere" size="0.1" contype="0" conaffinity="0"/>
    </body>
  </worldbody>
  <actuator>
    <motor joint="root" gear="0 0 0 1 0 0" ctrllimited="true" ctrlrange="-1 1"/>
    <motor joint="root" gear="0 0 0 0 1 0" ctrllimited="true" ctrlrange="-1 1"/>
    <motor joint="root" gear="0 0 0 0 0 1" ctrllimited="true" ctrlrange="-1 1"/>
    <motor joint="root" gear="0 0 1 0 0 0" ctrllimited="true" ctrlrange="-1 1"/>
  </actuator>
</mujoco>
"""


def plain(name: str) -> gymnasium.Env[Any, Any]:
    with quiet_loading():
        return gymnasium.make(f"{name}-v5")


def start(env: FiniteDifference, seed: int) -> SimulatedState:
    """The start of one environment, in float64."""
    saved, observation = env.simulator.reset(seed)
    return SimulatedState(
        torch.zeros(1, env.simulator.tangent_size, dtype=torch.float64),
        torch.from_numpy(saved[None]).view(torch.int64),
        torch.from_numpy(observation[None]),
        torch.zeros(1, dtype=torch.float64),
        torch.zeros(1, dtype=torch.bool),
    )


def total_reward(env: FiniteDifference, state: SimulatedState, actions: Tensor) -> Tensor:
    total = torch.zeros(1, dtype=actions.dtype)
    for action in actions:
        after = env.transition(state, action[None], None)
        total = total + env.reward(state, action[None], after)
        state = after
    return total.sum()


def differenced_return(env: gymnasium.Env[Any, Any], seed: int, actions: Array) -> Array:
    """Central differences of the return of the plain environment."""

    def total(changed: Array) -> float:
        env.reset(seed=seed)
        return sum(float(env.step(action)[1]) for action in changed)

    gradient = np.zeros_like(actions)
    for index in np.ndindex(*actions.shape):
        move = np.zeros_like(actions)
        move[index] = 1e-6
        gradient[index] = (total(actions + move) - total(actions - move)) / 2e-6
    return gradient


class FreeBody(MujocoEnv):
    """A rigid body in free fall, rotated by torques; best is its first axis pointing upwards."""

    def __init__(self, path: str) -> None:
        super().__init__(path, SUBSTEPS, Box(-np.inf, np.inf, (13,), np.float64))

    def step(self, action: Any) -> Any:
        self.do_simulation(action, self.frame_skip)
        qpos, qvel = self.data.qpos, self.data.qvel
        w, x, y, z = qpos[3:]
        reward = 2 * (x * z - w * y) - 0.1 * qpos[2] - 0.01 * qvel[3:] @ qvel[3:]
        return np.concatenate([qpos, qvel]), reward, False, False, {}

    def reset_model(self) -> Any:
        self.set_state(*free_start())  # type: ignore[no-untyped-call]
        return np.concatenate([self.data.qpos, self.data.qvel])


def free_start() -> tuple[Array, Array]:
    """Positions and velocities of a tumbling body, whose three rotations are coupled."""
    attitude = np.array([0.8, 0.1, -0.4, 0.3])
    qpos = np.concatenate([[0.1, -0.2, 1.0], attitude / np.linalg.norm(attitude)])
    return qpos, np.array([0.3, 0.2, -0.1, 2.0, -1.5, 1.0])


def free_return(actions: Tensor) -> Tensor:
    """The return of the same body by the Newton-Euler equations in torch, without MuJoCo."""
    qpos, qvel = (torch.from_numpy(x) for x in free_start())
    height, speed, attitude, turn = qpos[2], qvel[2], qpos[3:], qvel[3:]
    inertia = torch.tensor(INERTIA, dtype=torch.float64)
    total = torch.zeros((), dtype=torch.float64)
    for action in actions:
        control = action.clamp(-1, 1)
        for _ in range(SUBSTEPS):
            torque = control[:3] - torch.linalg.cross(turn, inertia * turn)
            turn = turn + STEP * torque / inertia
            # A free joint's motor pulls along the world's axes, but turns about the body's.
            speed = speed + STEP * (control[3] / MASS - 9.81)
            height, attitude = height + STEP * speed, turned(attitude, STEP * turn)
        w, x, y, z = attitude
        total = total + 2 * (x * z - w * y) - 0.1 * height - 0.01 * turn @ turn
    return total


def turned(attitude: Tensor, angle: Tensor) -> Tensor:
    """The attitude ``q * exp(angle / 2)`` after a rotation in the body's frame."""
    size = angle.norm()
    scalar, vector = torch.cos(size / 2), torch.sin(size / 2) * angle / size
    w, v = attitude[0], attitude[1:]
    first = w * scalar - v @ vector
    rest = w * vector + scalar * v + torch.linalg.cross(v, vector)
    return torch.cat([first[None], rest])


@pytest.fixture
def free_body(tmp_path: Path) -> FiniteDifference:
    path = tmp_path / "body.xml"
    path.write_text(BODY)
    return MuJoCo(lambda: TimeLimit(FreeBody(str(path)), 100))


def test_a_free_body_against_newton_and_euler(free_body: FiniteDifference) -> None:
    """Derivatives through a quaternion, compared with an independent implementation."""
    assert free_body.simulator.tangent_size == 12
    values = np.random.default_rng(0).uniform(-0.9, 0.9, (8, 4))
    actions = torch.tensor(values, requires_grad=True)
    found = total_reward(free_body, start(free_body, 0), actions)
    expected = free_return(actions)
    assert torch.allclose(found, expected, rtol=0, atol=1e-9)
    (gradient,) = torch.autograd.grad(found, actions)
    (exact,) = torch.autograd.grad(expected, actions)
    assert (exact.abs().max(0).values > 1e-3).all()
    assert torch.allclose(gradient, exact, rtol=0, atol=1e-7 * float(exact.abs().max()))


def test_a_free_body_beyond_its_bounds(free_body: FiniteDifference) -> None:
    """MuJoCo clamps the action, so its derivative is 0."""
    actions = torch.full((2, 4), 1.5, dtype=torch.float64, requires_grad=True)
    total_reward(free_body, start(free_body, 0), actions).backward()  # type: ignore[no-untyped-call]
    assert actions.grad is not None
    assert torch.equal(actions.grad, torch.zeros_like(actions))


@pytest.mark.parametrize("name", ["Reacher", "Hopper", "HalfCheetah", "InvertedPendulum"])
def test_gradient_of_an_eight_step_return(name: str) -> None:
    """Autograd's gradient equals differences of the plain environment, to 1e-5."""
    env = MuJoCo(lambda: plain(name))
    high = env.action_space.high.astype(np.float64)
    values = np.random.default_rng(1).uniform(-0.9, 0.9, (8, len(high))) * high
    actions = torch.tensor(values, requires_grad=True)
    (found,) = torch.autograd.grad(total_reward(env, start(env, 1), actions), actions)
    expected = differenced_return(plain(name), 1, values)
    assert np.abs(found.numpy() - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("name", ["Ant", "HalfCheetah", "Reacher"])
def test_the_forward_trajectory_is_the_environments_own(name: str) -> None:
    """Equal to the bit, although gradients are computed between the steps."""
    env, untouched = MuJoCo(lambda: plain(name)), plain(name)
    untouched.reset(seed=2)
    state = start(env, 2)
    rng = np.random.default_rng(0)
    for _ in range(10):
        action = rng.uniform(-1, 1, env.action_space.shape[0])
        tensor = torch.tensor(action[None], requires_grad=True)
        state = env.transition(SimulatedState(*(x.detach() for x in state)), tensor, None)
        (state.reward.sum() + state.observation.sum()).backward()  # type: ignore[no-untyped-call]
        observation, reward, terminated, _, _ = untouched.step(action)
        assert np.array_equal(state.observation.detach()[0].numpy(), observation)
        assert state.reward.item() == reward
        assert bool(state.terminated) is bool(terminated)


def test_in_the_vector_environment_in_single_precision() -> None:
    """Saved states stay exact, gradients reach the first action, and flagged steps are counted."""
    env = MuJoCo(lambda: plain("Reacher"))
    vector = DifferentiableVectorEnv(env, 3)
    observation, _ = vector.reset(seed=0)
    assert observation.dtype == torch.float32
    first = torch.zeros(3, 2, requires_grad=True)
    vector.step(first)
    _, reward, *_ = vector.step(torch.zeros(3, 2))
    (gradient,) = torch.autograd.grad(reward.sum(), first)
    assert (gradient.abs().sum(1) > 1e-4).all()
    assert env.metrics()["environment/flagged_steps"] == 0
    for _ in range(48):
        truncated = vector.step(torch.zeros(3, 2))[3]
    assert truncated.all()


@pytest.mark.parametrize(
    ("name", "method", "contacts"),
    [
        ("Reacher", "finite differences of batches of simulations", "none"),
        ("Hopper", "finite differences of batches of simulations", "stiff"),
        ("HalfCheetah", "mjd_transitionFD", "stiff"),
    ],
)
def test_what_is_said_of_the_derivatives(name: str, method: str, contacts: str) -> None:
    said = MuJoCo(lambda: plain(name)).gradient
    assert (said.action, said.method, said.contacts) == ("approximate", method, contacts)


def test_other_classes_take_their_own_steps(free_body: FiniteDifference) -> None:
    assert free_body.gradient.method == "finite differences of its steps"


def test_threads_are_at_least_one() -> None:
    with pytest.raises(RequestError, match="threads"):
        MuJoCo(lambda: plain("Reacher"), threads=0)


def test_a_copy_is_independent() -> None:
    """Environments that are given as objects are copied with ``copy.deepcopy``."""
    env = MuJoCo(lambda: plain("Reacher"))
    copied = copy.deepcopy(env)
    saved, action = env.simulator.reset(0)[0][None], np.ones((1, 2))
    expected = env.simulator.step(saved, action)
    copied.simulator.step(copied.simulator.reset(1)[0][None], -action)
    assert np.array_equal(copied.simulator.step(saved, action).saved, expected.saved)
    for found, same in zip(
        copied.linearize(saved, action), env.linearize(saved, action), strict=True
    ):
        assert np.array_equal(found, same)


def test_memory_is_flat_over_windows() -> None:
    """Resident memory is measured too, because MuJoCo allocates outside of Python."""
    venv = DifferentiableVectorEnv(MuJoCo(lambda: gymnasium.make("InvertedPendulum-v5")), 1)
    venv.reset(seed=0)

    def windows(count: int) -> tuple[int, int]:
        for _ in range(count):
            venv.detach()
            action = torch.zeros(1, 1, requires_grad=True)
            torch.autograd.grad(venv.step(action)[0].sum(), action)
        gc.collect()
        return len(gc.get_objects()), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    (objects, kilobytes), (objects_after, kilobytes_after) = windows(100), windows(1000)
    # A window that stayed would be two objects of the graph, and a saved state of 1 kB and more.
    assert objects_after - objects < 1000
    assert kilobytes_after - kilobytes < 4000
