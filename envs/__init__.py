"""Differentiable environments, their Gymnasium views, and the ways to name an environment.

Importing this package registers its environments with Gymnasium, and imports nothing that is slow:
the names below arrive on first use. ``resolve`` is not among them, because the module of that name
would take its place: import it from ``pgtoolkit.envs.resolve``.
"""

import importlib
from typing import TYPE_CHECKING, Any

import gymnasium

if TYPE_CHECKING:
    from pgtoolkit.envs.chaos import Chaos as Chaos
    from pgtoolkit.envs.differentiable import DifferentiableEnv as DifferentiableEnv
    from pgtoolkit.envs.differentiable import GradientInfo as GradientInfo
    from pgtoolkit.envs.differentiable import State as State
    from pgtoolkit.envs.differentiable import map_state as map_state
    from pgtoolkit.envs.differentiable import where_state as where_state
    from pgtoolkit.envs.exact import ExactGradient as ExactGradient
    from pgtoolkit.envs.exact import ExactMoments as ExactMoments
    from pgtoolkit.envs.lqg import LQG as LQG
    from pgtoolkit.envs.lqg import LQGState as LQGState
    from pgtoolkit.envs.lqg_estimates import LQGEstimator as LQGEstimator
    from pgtoolkit.envs.lqg_moments import GradientMoments as GradientMoments
    from pgtoolkit.envs.lqg_theory import LQGGradient as LQGGradient
    from pgtoolkit.envs.numpy_env import NumpyEnv as NumpyEnv
    from pgtoolkit.envs.pendulum import Pendulum as Pendulum
    from pgtoolkit.envs.point_mass import PointMass as PointMass
    from pgtoolkit.envs.resolve import EnvSource as EnvSource
    from pgtoolkit.envs.resolve import make_vector_env as make_vector_env
    from pgtoolkit.envs.step import Step as Step
    from pgtoolkit.envs.vector import DifferentiableVectorEnv as DifferentiableVectorEnv
    from pgtoolkit.envs.vector import VectorState as VectorState
    from pgtoolkit.envs.wall import Wall as Wall

_HOME = {
    "Chaos": "chaos",
    "DifferentiableEnv": "differentiable",
    "GradientInfo": "differentiable",
    "State": "differentiable",
    "map_state": "differentiable",
    "where_state": "differentiable",
    "ExactGradient": "exact",
    "ExactMoments": "exact",
    "LQG": "lqg",
    "LQGState": "lqg",
    "LQGEstimator": "lqg_estimates",
    "GradientMoments": "lqg_moments",
    "LQGGradient": "lqg_theory",
    "NumpyEnv": "numpy_env",
    "Pendulum": "pendulum",
    "PointMass": "point_mass",
    "EnvSource": "resolve",
    "make_vector_env": "resolve",
    "Step": "step",
    "DifferentiableVectorEnv": "vector",
    "VectorState": "vector",
    "Wall": "wall",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})


for _id, _target in (
    ("pgtoolkit/Chaos-v0", "pgtoolkit.envs.chaos:Chaos"),
    ("pgtoolkit/LQG-v0", "pgtoolkit.envs.lqg:LQG"),
    ("pgtoolkit/Pendulum-v0", "pgtoolkit.envs.pendulum:Pendulum"),
    ("pgtoolkit/PointMass-v0", "pgtoolkit.envs.point_mass:PointMass"),
    ("pgtoolkit/Step-v0", "pgtoolkit.envs.step:Step"),
    ("pgtoolkit/Wall-v0", "pgtoolkit.envs.wall:Wall"),
):
    gymnasium.register(
        _id, "pgtoolkit.envs.numpy_env:make_numpy_env", kwargs={"class_path": _target}
    )
