"""The ``env-step`` benchmark: steps of many environments, with actions that are given."""

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

NATIVE = "Gymnasium's vector CartPole"

MAKERS: dict[str, Callable[[], DifferentiableEnv[Any]]] = {
    "Pendulum": Pendulum,
    "CartPole": CartPole,
}


def cases() -> list[Case]:
    """200 steps of 1024 environments, ended episodes reset as each library does it."""
    others: dict[str, dict[str, Side]] = {"Pendulum": {}, "CartPole": {NATIVE: gymnasium_side}}
    targets: dict[str, dict[str, float]] = {"Pendulum": {}, "CartPole": {NATIVE: 2.0}}
    return [
        Case(
            name,
            NUM_ENVS * NUM_STEPS,
            "steps",
            {
                OURS: functools.partial(our_side, name),
                "our plain steps": functools.partial(plain_side, name),
                **others[name],
                "envpool": functools.partial(envpool_side, name),
                "JAX": functools.partial(jax_side, name),
            },
            targets[name] | {"envpool": 5.0, "JAX": 1.0},
        )
        for name in MAKERS
    ]


def given_actions(name: str) -> NDArray[np.float32]:
    """``[T, N, 1]``: uniform torques for the Pendulum; pushes to the left or right, -1 or 1."""
    shape = (NUM_STEPS, NUM_ENVS, 1)
    uniform = np.random.default_rng(0).uniform(-1, 1, shape)
    pushes = 2 * uniform if name == "Pendulum" else np.sign(uniform)
    return pushes.astype(np.float32)


def discrete(actions: NDArray[np.float32]) -> NDArray[np.int64]:
    """``[T, N]``: Gymnasium's CartPole takes 0 for left and 1 for right."""
    return (actions[..., 0] > 0).astype(np.int64)


def our_side(name: str) -> Run:
    """The library's batched environment, all steps in one compiled loop."""
    take_steps, actions = CompiledSteps(ready(name)), torch.from_numpy(given_actions(name))

    def run(index: int) -> None:
        take_steps(actions)

    return run


def plain_side(name: str) -> Run:
    """The same environment, one step after the other."""
    env, actions = ready(name), torch.from_numpy(given_actions(name))

    @torch.no_grad()
    def run(index: int) -> None:
        for action in actions:
            env.step(action)

    return run


def ready(name: str) -> DifferentiableVectorEnv:
    """The environments at their start."""
    env = DifferentiableVectorEnv(MAKERS[name](), NUM_ENVS)
    env.reset(seed=0)
    return env


def gymnasium_side() -> Run:
    """Gymnasium's own CartPole, vectorised in NumPy."""
    mode = gymnasium.VectorizeMode.VECTOR_ENTRY_POINT
    env = gymnasium.make_vec("CartPole-v1", NUM_ENVS, vectorization_mode=mode)
    env.reset(seed=0)
    return _stepping(env, discrete(given_actions("CartPole")))


def envpool_side(name: str) -> Run:
    """Envpool, with one thread."""
    import envpool

    env = envpool.make(f"{name}-v1", env_type="gymnasium", num_envs=NUM_ENVS, num_threads=1)
    env.reset()
    actions = given_actions(name)
    return _stepping(env, actions if name == "Pendulum" else discrete(actions).astype(np.int32))


def jax_side(name: str) -> Run:
    """The same equations in JAX, all steps in one compiled scan."""
    from pgtoolkit.scripts.benchmarks import peer_jax

    runs = {"Pendulum": peer_jax.pendulum_run, "CartPole": peer_jax.cart_pole_run}
    return runs[name](given_actions(name))


def _stepping(env: Any, actions: NDArray[Any]) -> Run:
    def run(index: int) -> None:
        for action in actions:
            env.step(action)

    return run
