"""Differentiable environments, their Gymnasium views, and the ways to name an environment.

Importing this package registers its environments with Gymnasium, and imports nothing that is slow:
the names below arrive on first use. ``resolve`` and ``check_env`` are not among them, because the
modules of these names would take their place: import them from there.
"""

import importlib
from typing import TYPE_CHECKING, Any

import gymnasium

if TYPE_CHECKING:
    from pgtoolkit.envs.acrobot import Acrobot as Acrobot
    from pgtoolkit.envs.acrobot_swing_up import AcrobotSwingUp as AcrobotSwingUp
    from pgtoolkit.envs.action_repeat import ActionRepeat as ActionRepeat
    from pgtoolkit.envs.cart_pole import CartPole as CartPole
    from pgtoolkit.envs.cart_pole_swing_up import CartPoleSwingUp as CartPoleSwingUp
    from pgtoolkit.envs.central_differences import CentralDifferences as CentralDifferences
    from pgtoolkit.envs.central_differences import Steps as Steps
    from pgtoolkit.envs.chaos import Chaos as Chaos
    from pgtoolkit.envs.differentiable import DifferentiableEnv as DifferentiableEnv
    from pgtoolkit.envs.differentiable import GradientInfo as GradientInfo
    from pgtoolkit.envs.double_pendulum import DoublePendulum as DoublePendulum
    from pgtoolkit.envs.exact import ExactGradient as ExactGradient
    from pgtoolkit.envs.exact import ExactMoments as ExactMoments
    from pgtoolkit.envs.finding import Finding as Finding
    from pgtoolkit.envs.finite_difference import FiniteDifference as FiniteDifference
    from pgtoolkit.envs.finite_difference import SimulatedState as SimulatedState
    from pgtoolkit.envs.gradient_gate import GradientGate as GradientGate
    from pgtoolkit.envs.gymnasium_simulator import GymnasiumSimulator as GymnasiumSimulator
    from pgtoolkit.envs.hopper_2d import Hopper2D as Hopper2D
    from pgtoolkit.envs.imagined import Imagined as Imagined
    from pgtoolkit.envs.jax_environment import JaxEnvironment as JaxEnvironment
    from pgtoolkit.envs.jax_environment import JaxState as JaxState
    from pgtoolkit.envs.learned_model import LearnedModel as LearnedModel
    from pgtoolkit.envs.lqg import LQG as LQG
    from pgtoolkit.envs.lqg import LQGState as LQGState
    from pgtoolkit.envs.lqg_estimates import LQGEstimator as LQGEstimator
    from pgtoolkit.envs.lqg_moments import GradientMoments as GradientMoments
    from pgtoolkit.envs.lqg_theory import LQGGradient as LQGGradient
    from pgtoolkit.envs.mountain_car import MountainCarContinuous as MountainCarContinuous
    from pgtoolkit.envs.mujoco_adapter import MuJoCo as MuJoCo
    from pgtoolkit.envs.numpy_env import NumpyEnv as NumpyEnv
    from pgtoolkit.envs.observation_detach import ObservationDetach as ObservationDetach
    from pgtoolkit.envs.pendulum import Pendulum as Pendulum
    from pgtoolkit.envs.planar_quadrotor import PlanarQuadrotor as PlanarQuadrotor
    from pgtoolkit.envs.point_mass import PointMass as PointMass
    from pgtoolkit.envs.pusher_friction import PusherFriction as PusherFriction
    from pgtoolkit.envs.quadrotor import Quadrotor as Quadrotor
    from pgtoolkit.envs.reacher_two_link import ReacherTwoLink as ReacherTwoLink
    from pgtoolkit.envs.resolve import EnvSource as EnvSource
    from pgtoolkit.envs.resolve import make_vector_env as make_vector_env
    from pgtoolkit.envs.simulator import Linearization as Linearization
    from pgtoolkit.envs.simulator import Outcome as Outcome
    from pgtoolkit.envs.simulator import Precision as Precision
    from pgtoolkit.envs.simulator import Simulator as Simulator
    from pgtoolkit.envs.smoothing_bundle import SmoothingBundle as SmoothingBundle
    from pgtoolkit.envs.states import State as State
    from pgtoolkit.envs.states import map_state as map_state
    from pgtoolkit.envs.states import where_state as where_state
    from pgtoolkit.envs.step import Step as Step
    from pgtoolkit.envs.surrogate_cost import SurrogateCost as SurrogateCost
    from pgtoolkit.envs.vector import DifferentiableVectorEnv as DifferentiableVectorEnv
    from pgtoolkit.envs.vector import VectorState as VectorState
    from pgtoolkit.envs.wall import Wall as Wall
    from pgtoolkit.envs.warp_kernel import WarpKernel as WarpKernel
    from pgtoolkit.envs.wrapper import DifferentiableWrapper as DifferentiableWrapper

_HOME = {
    "Acrobot": "acrobot",
    "AcrobotSwingUp": "acrobot_swing_up",
    "ActionRepeat": "action_repeat",
    "CartPole": "cart_pole",
    "CartPoleSwingUp": "cart_pole_swing_up",
    "CentralDifferences": "central_differences",
    "Steps": "central_differences",
    "Chaos": "chaos",
    "DifferentiableEnv": "differentiable",
    "GradientInfo": "differentiable",
    "DoublePendulum": "double_pendulum",
    "ExactGradient": "exact",
    "ExactMoments": "exact",
    "Finding": "finding",
    "FiniteDifference": "finite_difference",
    "SimulatedState": "finite_difference",
    "GradientGate": "gradient_gate",
    "GymnasiumSimulator": "gymnasium_simulator",
    "Hopper2D": "hopper_2d",
    "Imagined": "imagined",
    "JaxEnvironment": "jax_environment",
    "JaxState": "jax_environment",
    "LearnedModel": "learned_model",
    "LQG": "lqg",
    "LQGState": "lqg",
    "LQGEstimator": "lqg_estimates",
    "GradientMoments": "lqg_moments",
    "LQGGradient": "lqg_theory",
    "MountainCarContinuous": "mountain_car",
    "MuJoCo": "mujoco_adapter",
    "NumpyEnv": "numpy_env",
    "ObservationDetach": "observation_detach",
    "Pendulum": "pendulum",
    "PlanarQuadrotor": "planar_quadrotor",
    "PointMass": "point_mass",
    "PusherFriction": "pusher_friction",
    "Quadrotor": "quadrotor",
    "ReacherTwoLink": "reacher_two_link",
    "EnvSource": "resolve",
    "make_vector_env": "resolve",
    "Simulator": "simulator",
    "Outcome": "simulator",
    "Precision": "simulator",
    "Linearization": "simulator",
    "SmoothingBundle": "smoothing_bundle",
    "State": "states",
    "map_state": "states",
    "where_state": "states",
    "Step": "step",
    "SurrogateCost": "surrogate_cost",
    "DifferentiableVectorEnv": "vector",
    "VectorState": "vector",
    "Wall": "wall",
    "WarpKernel": "warp_kernel",
    "DifferentiableWrapper": "wrapper",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})


for _id, _target in (
    ("pgtoolkit/Acrobot-v0", "pgtoolkit.envs.acrobot:Acrobot"),
    ("pgtoolkit/AcrobotSwingUp-v0", "pgtoolkit.envs.acrobot_swing_up:AcrobotSwingUp"),
    ("pgtoolkit/CartPole-v0", "pgtoolkit.envs.cart_pole:CartPole"),
    ("pgtoolkit/CartPoleSwingUp-v0", "pgtoolkit.envs.cart_pole_swing_up:CartPoleSwingUp"),
    ("pgtoolkit/Chaos-v0", "pgtoolkit.envs.chaos:Chaos"),
    ("pgtoolkit/DoublePendulum-v0", "pgtoolkit.envs.double_pendulum:DoublePendulum"),
    ("pgtoolkit/Hopper2D-v0", "pgtoolkit.envs.hopper_2d:Hopper2D"),
    ("pgtoolkit/LQG-v0", "pgtoolkit.envs.lqg:LQG"),
    ("pgtoolkit/MountainCarContinuous-v0", "pgtoolkit.envs.mountain_car:MountainCarContinuous"),
    ("pgtoolkit/Pendulum-v0", "pgtoolkit.envs.pendulum:Pendulum"),
    ("pgtoolkit/PlanarQuadrotor-v0", "pgtoolkit.envs.planar_quadrotor:PlanarQuadrotor"),
    ("pgtoolkit/PointMass-v0", "pgtoolkit.envs.point_mass:PointMass"),
    ("pgtoolkit/PusherFriction-v0", "pgtoolkit.envs.pusher_friction:PusherFriction"),
    ("pgtoolkit/Quadrotor-v0", "pgtoolkit.envs.quadrotor:Quadrotor"),
    ("pgtoolkit/ReacherTwoLink-v0", "pgtoolkit.envs.reacher_two_link:ReacherTwoLink"),
    ("pgtoolkit/Step-v0", "pgtoolkit.envs.step:Step"),
    ("pgtoolkit/Wall-v0", "pgtoolkit.envs.wall:Wall"),
):
    gymnasium.register(
        _id, "pgtoolkit.envs.numpy_env:make_numpy_env", kwargs={"class_path": _target}
    )
