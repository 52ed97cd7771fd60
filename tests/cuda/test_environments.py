"""Differentiable environments on the device: values and gradients equal the processor's."""

from collections.abc import Callable
from typing import Any

import gymnasium
import pytest
import torch
from torch import Tensor

from pgtoolkit.envs.adapters.gymnasium.simulator import GymnasiumSimulator
from pgtoolkit.envs.adapters.learned.env import LearnedModel
from pgtoolkit.envs.adapters.learned.model import ModelConfig
from pgtoolkit.envs.adapters.simulation.finite_difference import FiniteDifference
from pgtoolkit.envs.analytic.chaos import Chaos
from pgtoolkit.envs.analytic.lqg.env import LQG
from pgtoolkit.envs.analytic.step import Step
from pgtoolkit.envs.analytic.wall import Wall
from pgtoolkit.envs.collector import Collector
from pgtoolkit.envs.control.acrobot import Acrobot, AcrobotSwingUp
from pgtoolkit.envs.control.cart_pole import CartPole, CartPoleSwingUp
from pgtoolkit.envs.control.double_pendulum import DoublePendulum
from pgtoolkit.envs.control.hopper import Hopper2D
from pgtoolkit.envs.control.mountain_car import MountainCarContinuous
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.control.planar_quadrotor import PlanarQuadrotor
from pgtoolkit.envs.control.point_mass import PointMass
from pgtoolkit.envs.control.pusher import PusherFriction
from pgtoolkit.envs.control.quadrotor import Quadrotor
from pgtoolkit.envs.control.reacher import ReacherTwoLink
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.registry.resolve import find_env
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.envs.vectorized.make import make_vector_env
from pgtoolkit.envs.wrappers.action_repeat import ActionRepeat
from pgtoolkit.envs.wrappers.gradient_gate import GradientGate
from pgtoolkit.envs.wrappers.observation_detach import ObservationDetach
from pgtoolkit.envs.wrappers.smoothing_bundle import SmoothingBundle
from pgtoolkit.envs.wrappers.surrogate_cost import SurrogateCost
from pgtoolkit.policies.gaussian import GaussianPolicy
from pgtoolkit.policies.policy import Policy
from pgtoolkit.rollouts.checkpointed import choose_unroll
from pgtoolkit.rollouts.rollout import collect, reset
from pgtoolkit.seeding import stream
from tests.cuda.same_draws import same_draws

pytestmark = pytest.mark.cuda

CPU = torch.device("cpu")
NUM_ENVS, NUM_STEPS = 4, 12
CONTINUOUS: dict[str, Callable[[], DifferentiableEnv[Any]]] = {
    "Pendulum": Pendulum,
    "CartPoleSwingUp": CartPoleSwingUp,
    "AcrobotSwingUp": AcrobotSwingUp,
    "DoublePendulum": DoublePendulum,
    "MountainCarContinuous": MountainCarContinuous,
    "PointMass": PointMass,
    "ReacherTwoLink": ReacherTwoLink,
    "PusherFriction": PusherFriction,
    "Hopper2D": Hopper2D,
    "PlanarQuadrotor": PlanarQuadrotor,
    "Quadrotor": Quadrotor,
    "LQG": LQG,
    "Chaos": Chaos,
    "Step": Step,
    "Wall": Wall,
    "ActionRepeat": lambda: ActionRepeat(Pendulum(), 3),
    "GradientGate": lambda: GradientGate(Pendulum(), clip_norm=0.5, drop_nonfinite=True),
    "ObservationDetach": lambda: ObservationDetach(Pendulum()),
    "SmoothingBundle": lambda: SmoothingBundle(
        Pendulum(), branches=3, action_std=0.1, state_std=0.1
    ),
    "SurrogateCost": lambda: SurrogateCost(Pendulum(), lambda s, a, t: a.square().sum(-1)),
}
DISCRETE: dict[str, Callable[[], DifferentiableEnv[Any]]] = {
    "CartPole": CartPole,
    "Acrobot": Acrobot,
}


def stepped(make: Callable[[], DifferentiableEnv[Any]], place: torch.device) -> list[Tensor]:
    """Observations, rewards and ends of random actions, and the gradient by the actions."""
    env = DifferentiableVectorEnv(make(), NUM_ENVS, device=place, dtype=torch.float64)
    env.reset(seed=0)
    obs = env.detach()
    shape = (NUM_STEPS, NUM_ENVS, *(env.single_action_space.shape or ()))
    action = torch.rand(shape, generator=stream(0, "actions", place), device=place) - 0.5
    action = action.double().requires_grad_()
    rows: list[Tensor] = [obs]
    total = torch.zeros(NUM_ENVS, dtype=torch.float64, device=place)
    for given in action.unbind(0):
        obs, reward, terminated, truncated, info = env.step(given)
        rows += [obs, reward, terminated, truncated]
        rows += [info["final_obs"]] if "final_obs" in info else []
        total = total + reward
    gradient = None
    if total.requires_grad:
        (gradient,) = torch.autograd.grad(total.sum() + obs.sum(), action, allow_unused=True)
    assert all(x.device.type == place.type for x in rows)
    rows += [torch.zeros_like(action) if gradient is None else gradient]
    return [row.detach().cpu().double() for row in (*rows, *env.env.metrics().values())]


@pytest.mark.parametrize("name", CONTINUOUS | DISCRETE)
def test_values_and_gradients(name: str, device: torch.device) -> None:
    with same_draws():
        here, there = (stepped((CONTINUOUS | DISCRETE)[name], place) for place in (CPU, device))
    for one, other in zip(here, there, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-6, atol=1e-8)


def test_state_is_saved_and_restored(device: torch.device) -> None:
    """The steps after a restored state have the same bits, process noise and resets included."""
    env = DifferentiableVectorEnv(LQG(), NUM_ENVS, device=device)
    env.reset(seed=0)
    state = env.get_state()
    action = torch.zeros(NUM_ENVS, 1, device=device)
    runs = []
    for _ in range(2):
        env.set_state(state)
        runs.append([env.step(action)[0] for _ in range(env.env.max_episode_steps + 2)])
    assert all(torch.equal(one, other) for one, other in zip(*runs, strict=True))


@pytest.mark.parametrize("every", [0, 4])
def test_gradient_checkpoints(every: int, device: torch.device) -> None:
    """Recomputed steps give the gradient of stored ones."""
    found = []
    for place in (CPU, device):
        with same_draws():
            env = DifferentiableVectorEnv(LQG(), NUM_ENVS, device=place)
            policy = small_policy(env).to(place)
            start = reset(env, seed=0, device=place)
            noise = policy.draw_noise(NUM_STEPS, NUM_ENVS, generator=stream(0, "noise", place))
            window, _ = choose_unroll(every)(env, policy, start, noise)
            gradient = torch.autograd.grad(window.reward.sum(), list(policy.parameters()))
        found.append([x.cpu() for x in gradient])
    for here, there in zip(*found, strict=True):
        torch.testing.assert_close(there, here, rtol=1e-4, atol=1e-5)


def small_policy(env: Any) -> Policy:
    policy = GaussianPolicy(env.single_observation_space, env.single_action_space, (8,))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return policy


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_policy_acts_in_environments_on_the_processor(mode: Any, device: torch.device) -> None:
    """Windows of NumPy environments are on the device of the noise and the policy."""
    if mode == "async" and device.type != "cpu":
        pytest.skip("a process that has used a card cannot be forked")
    env = make_vector_env(find_env("Pendulum-v1"), 3, differentiate="none")
    policy = small_policy(env).to(device)
    start = reset(env, seed=0, device=device)
    noise = policy.draw_noise(7, 3, generator=stream(0, "noise", device))
    window, after = collect(env, policy, start, noise)
    assert window.obs.device.type == after.obs.device.type == device.type
    assert window.reward.device.type == window.log_prob.device.type == device.type
    env.close()


def adapted(name: str, place: torch.device) -> list[Tensor]:
    """The reward and its gradient by the policy, through an adapter."""
    if name == "mujoco":
        from pgtoolkit.envs.adapters.mujoco.adapter import MuJoCo

        env: DifferentiableEnv[Any] = MuJoCo(lambda: gymnasium.make("InvertedPendulum-v5"))
    elif name == "learned model":
        config = ModelConfig(
            ensemble_size=2, hidden=(8,), initial_steps=200, initial_fit_steps=10, fit_steps=2
        )
        env = LearnedModel(lambda: gymnasium.make("Pendulum-v1"), config, seed=0)
    else:
        env = FiniteDifference(GymnasiumSimulator(lambda: gymnasium.make("Pendulum-v1")))
    vector = DifferentiableVectorEnv(env, NUM_ENVS, device=place)
    policy = small_policy(vector).to(place)
    start = reset(vector, seed=0, device=place)
    noise = policy.draw_noise(6, NUM_ENVS, generator=stream(0, "noise", place))
    window, _ = choose_unroll(0)(vector, policy, start, noise)
    gradient = torch.autograd.grad(window.reward.sum(), list(policy.parameters()))
    vector.set_state(vector.get_state())
    env.load_state_dict(env.state_dict())
    assert window.reward.device.type == place.type
    return [window.obs.detach().cpu(), window.reward.detach().cpu(), *(g.cpu() for g in gradient)]


@pytest.mark.parametrize("name", ["finite difference", "mujoco", "learned model"])
def test_adapters(name: str, device: torch.device) -> None:
    """The simulator stays on the processor; states, actions and gradients go there and back."""
    if name == "mujoco":
        pytest.importorskip("mujoco")
    with same_draws():
        here, there = (adapted(name, place) for place in (CPU, device))
    for one, other in zip(here, there, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-4)


def test_a_collector_goes_on_after_a_resume(device: torch.device) -> None:
    """A collector's state, loaded from the processor as a checkpoint is, into one on the device."""
    from pgtoolkit.agents.shac import ShacConfig

    config = ShacConfig(num_envs=NUM_ENVS, n_steps=6, hidden=(8,), normalize_rewards=True)

    def collector(seed: int) -> Collector:
        env = DifferentiableVectorEnv(Pendulum(), NUM_ENVS, device=device)
        return Collector(env, config, seed=seed, total_steps=1000, gradient=True)

    first, second = collector(0), collector(1)
    policy = small_policy(first.env).to(device)
    first.collect(policy)
    second.load_state_dict(moved(first.state_dict()))
    assert torch.equal(first.collect(policy).obs, second.collect(policy).obs)


def moved(state: Any) -> Any:
    """A nested state with every tensor on the processor."""
    if isinstance(state, dict):
        return {key: moved(value) for key, value in state.items()}
    if isinstance(state, tuple | list):
        return [moved(value) for value in state]
    return state.cpu() if isinstance(state, Tensor) else state
