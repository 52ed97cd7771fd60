"""Differentiable environments, their Gymnasium views, adapters, wrappers and checks.

The public names are listed in ``__init__.pyi`` and are imported when they are first used. Importing
this package registers its environments with Gymnasium and imports nothing slow.
"""

import gymnasium

from pgtoolkit.lazy_names import lazy_names

REGISTERED = (
    "Acrobot",
    "AcrobotSwingUp",
    "CartPole",
    "CartPoleSwingUp",
    "Chaos",
    "DoublePendulum",
    "Hopper2D",
    "LQG",
    "MountainCarContinuous",
    "Pendulum",
    "PlanarQuadrotor",
    "PointMass",
    "PusherFriction",
    "Quadrotor",
    "ReacherTwoLink",
    "Step",
    "Wall",
)
"""Classes that are registered as ``pgtoolkit/{name}-v0``."""

__getattr__, __dir__ = lazy_names(__name__, __file__)

for _name in REGISTERED:
    gymnasium.register(
        f"pgtoolkit/{_name}-v0",
        "pgtoolkit.envs.registry.registered:make_numpy_env",
        kwargs={"class_path": f"pgtoolkit.envs:{_name}"},
    )
