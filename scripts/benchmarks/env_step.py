"""The ``env-step`` benchmark: steps of many environments with given actions."""

import functools
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray

from pgtoolkit.envs.compiled.steps import CompiledSteps
from pgtoolkit.envs.control.cart_pole import CartPole
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.scripts.benchmarks.timing import OURS, Case, Run, Side

NUM_ENVS, NUM_STEPS = 1024, 200

GYMNASIUM = "Gymnasium's vector CartPole"

ENV_CLASSES: dict[str, Callable[[], DifferentiableEnv[Any]]] = {
    "Pendulum": Pendulum,
    "CartPole": CartPole,
}


def cases() -> list[Case]:
    """A case for each environment; ended episodes are reset in the way of each library."""
    return [_case(name) for name in ENV_CLASSES]


def _case(name: str) -> Case:
    sides: dict[str, Side] = {
        OURS: functools.partial(our_side, name),
        "our plain steps": functools.partial(plain_side, name),
    }
    targets = {"envpool": 5.0, "JAX": 1.0}
    if name == "CartPole":
        sides[GYMNASIUM] = gymnasium_side
        targets[GYMNASIUM] = 2.0
    sides["envpool"] = functools.partial(envpool_side, name)
    sides["JAX"] = functools.partial(jax_side, name)
    return Case(name, NUM_ENVS * NUM_STEPS, "steps", sides, targets)


def given_actions(name: str) -> NDArray[np.float32]:
    """Actions ``[T, N, 1]``: torques in [-2, 2] for Pendulum, pushes of -1 or 1 for CartPole."""
    shape = (NUM_STEPS, NUM_ENVS, 1)
    uniform = np.random.default_rng(0).uniform(-1, 1, shape)
    pushes = 2 * uniform if name == "Pendulum" else np.sign(uniform)
    return pushes.astype(np.float32)


def to_discrete(actions: NDArray[np.float32]) -> NDArray[np.int64]:
    """Actions ``[T, N]`` for Gymnasium's CartPole: 0 for left and 1 for right."""
    return (actions[..., 0] > 0).astype(np.int64)


def our_side(name: str) -> Run:
    """This package's batched environment, all steps in one compiled loop."""
    take_steps, actions = CompiledSteps(make_env(name)), torch.from_numpy(given_actions(name))

    def run(index: int) -> None:
        take_steps(actions)

    return run


def plain_side(name: str) -> Run:
    """This package's batched environment, one call of ``step`` after the other."""
    env, actions = make_env(name), torch.from_numpy(given_actions(name))

    @torch.no_grad()
    def run(index: int) -> None:
        for action in actions:
            env.step(action)

    return run


def make_env(name: str) -> DifferentiableVectorEnv:
    """Our environments after a reset."""
    env = DifferentiableVectorEnv(ENV_CLASSES[name](), NUM_ENVS)
    env.reset(seed=0)
    return env


def gymnasium_side() -> Run:
    """Gymnasium's own CartPole, vectorised in NumPy."""
    mode = gymnasium.VectorizeMode.VECTOR_ENTRY_POINT
    env = gymnasium.make_vec("CartPole-v1", NUM_ENVS, vectorization_mode=mode)
    env.reset(seed=0)
    return _step_through(env, to_discrete(given_actions("CartPole")))


def envpool_side(name: str) -> Run:
    """The environment of envpool, run with one thread."""
    import envpool

    env = envpool.make(f"{name}-v1", env_type="gymnasium", num_envs=NUM_ENVS, num_threads=1)
    env.reset()
    actions = given_actions(name)
    if name == "CartPole":
        return _step_through(env, to_discrete(actions).astype(np.int32))
    return _step_through(env, actions)


def jax_side(name: str) -> Run:
    """The environment's equations in JAX, all steps in one compiled scan."""
    from pgtoolkit.scripts.benchmarks import peer_jax

    runs = {"Pendulum": peer_jax.pendulum_run, "CartPole": peer_jax.cart_pole_run}
    return runs[name](given_actions(name))


def _step_through(env: Any, actions: NDArray[Any]) -> Run:
    """Calls ``env.step`` with one row of actions after the other."""

    def run(index: int) -> None:
        for action in actions:
            env.step(action)

    return run
