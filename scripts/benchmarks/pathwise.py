"""The ``pathwise`` benchmark: a gradient through Pendulum, and a step of Adam."""

import functools
from collections.abc import Callable

import torch

from pgtoolkit.agents.apg import ApgConfig
from pgtoolkit.compiling import Compile
from pgtoolkit.envs.collector import make_rollout
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.estimators.surrogates import window_objective
from pgtoolkit.learners.gradient_clip import clip_gradient
from pgtoolkit.policies.gaussian import GaussianPolicy
from pgtoolkit.rollouts.rollout import reset
from pgtoolkit.scripts.benchmarks.timing import OURS, Case, Run
from pgtoolkit.seeding import stream

NUM_STEPS = 32
"""The horizon, in environment steps."""

HIDDEN = (64, 64)
"""Sizes of the policy's hidden layers."""

NUM_ENVS = (64, 1024, 4096)

TARGETS = {"JAX": (0.5, 1.1, 1.2), "eager torch": (5.0, 1.7, 1.2)}
"""Peer to the ratio to be reached, for each of ``NUM_ENVS``."""


def cases() -> list[Case]:
    """A case for each number of environments: forward, backward, clip and Adam."""
    return [
        Case(
            f"N = {num_envs}",
            num_envs * NUM_STEPS,
            "steps",
            {
                OURS: functools.partial(our_side, num_envs),
                "JAX": functools.partial(jax_side, num_envs),
                "eager torch": functools.partial(eager_side, num_envs),
            },
            {peer: targets[i] for peer, targets in TARGETS.items()},
        )
        for i, num_envs in enumerate(NUM_ENVS)
    ]


def our_side(num_envs: int) -> Run:
    """This package's rollout with compiled steps, as the agents use it."""
    gradient_step = make_gradient_step(num_envs, compile="always")
    return lambda index: gradient_step(NUM_STEPS)


def make_gradient_step(
    num_envs: int,
    *,
    compile: Compile,
    checkpoint_every: int = 0,
    device: torch.device | str = "cpu",
) -> Callable[[int], None]:
    """A function of the horizon ``H`` that makes one update of a tanh policy on Pendulum.

    It collects a window of ``H`` steps, differentiates the sum of rewards through it, clips the
    gradient, and takes a step of Adam. The next call continues where the window ended.

    Args:
        num_envs: ``N``.
        compile: the setting of the same name of an agent.
        checkpoint_every: the setting of the same name of an agent.
        device: where environment and policy are.
    """
    env = DifferentiableVectorEnv(Pendulum(), num_envs, device=device)
    config = ApgConfig(compile=compile, checkpoint_every=checkpoint_every)
    unroll = make_rollout(env, config, total_steps=0, gradient=True)
    policy = GaussianPolicy(env.single_observation_space, env.single_action_space, HIDDEN)
    policy = policy.to(env.device)
    optimizer = torch.optim.Adam(policy.parameters(), 3e-3, fused=True)
    generator = stream(0, "noise", env.device)
    rollout_states = [reset(env, seed=0, device=env.device)]

    def gradient_step(num_steps: int) -> None:
        noise = policy.draw_noise(num_steps, num_envs, generator=generator)
        window, rollout_states[0] = unroll(env, policy, rollout_states[0], noise)
        objective = window_objective(window, torch.zeros_like(window.reward), 1.0)
        optimizer.zero_grad()
        (-objective.mean()).backward()  # type: ignore[no-untyped-call]
        clip_gradient(policy.named_parameters(), 1.0)
        optimizer.step()

    return gradient_step


def jax_side(num_envs: int) -> Run:
    """JAX: jit, scan, grad and optax."""
    from pgtoolkit.scripts.benchmarks import peer_jax

    return peer_jax.pathwise_run(num_envs, NUM_STEPS)


def eager_side(num_envs: int) -> Run:
    """Eager torch: ``nn.Sequential``, ``Normal.rsample``, the default Adam."""
    from pgtoolkit.scripts.benchmarks import peer_eager

    return peer_eager.pathwise_run(num_envs, NUM_STEPS)
