"""``python scripts/benchmark_diagnostics.py``: what exact per-trajectory statistics cost.

Both estimators on one window of the Pendulum: rollout with its graph, action gradient, and for each
estimator a backward; against the same with every trajectory's gradient and its statistics. The two
alternate in one process, on one thread, in CPU seconds.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from typing import final

import torch
from torch import Tensor

from pgtoolkit.envs.pendulum import Pendulum
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.errors import RequestError
from pgtoolkit.estimators import (
    action_gradient,
    matched_score_weight,
    pathwise_surrogate,
    score_function_surrogate,
    window_objective,
)
from pgtoolkit.gradient_statistics import GradientStatistics
from pgtoolkit.gradients import GradientRecorder
from pgtoolkit.policies import GaussianPolicy
from pgtoolkit.rollout import Cursor, start, unroll
from pgtoolkit.scripts.arguments import parse
from pgtoolkit.scripts.memory import keep_freed_memory
from pgtoolkit.seeding import stream
from pgtoolkit.window import Window

Surrogate = Callable[[], Tensor]


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkArguments:
    """Times a plain forward and backward of both estimators against the measured one."""

    n_steps: int = 32
    """Steps of the window."""
    num_envs: int = 256
    """Trajectories."""
    hidden: tuple[int, ...] = (64, 64)
    """Of the policy."""
    repeats: int = 15
    """Of each, after two that are not counted."""

    def __post_init__(self) -> None:
        if min(self.n_steps, self.num_envs - 2, self.repeats, *self.hidden) < 1:
            raise RequestError("give at least one step, repeat and unit, and three environments")


def run(arguments: Sequence[str]) -> None:
    """Times and prints.

    Raises:
        RequestError: the request is wrong.
    """
    options = parse(BenchmarkArguments, arguments, command="benchmark_diagnostics")
    torch.set_num_threads(1)
    keep_freed_memory()
    env = DifferentiableVectorEnv(Pendulum(), options.num_envs)
    policy = GaussianPolicy(env.single_observation_space, env.single_action_space, options.hidden)
    noise = policy.draw_noise(options.n_steps, options.num_envs, generator=stream(0, "noise"))
    cursor = start(env, seed=0, device=noise.device)

    def plain() -> None:
        for surrogate in surrogates(env, policy, cursor, noise):
            policy.zero_grad()
            (-surrogate().mean()).backward()  # type: ignore[no-untyped-call]

    def gradients() -> None:
        for surrogate in surrogates(env, policy, cursor, noise):
            per_trajectory(policy, surrogate)

    def measured() -> None:
        for surrogate in surrogates(env, policy, cursor, noise):
            GradientStatistics.of(per_trajectory(policy, surrogate))

    names = ("plain", "per-trajectory gradients", "and their statistics")
    times = alternate(dict(zip(names, (plain, gradients, measured), strict=True)), options.repeats)
    middle = {name: statistics.median(found) for name, found in times.items()}
    for name, found in times.items():
        print(
            f"{name:<25} {1e3 * middle[name]:7.1f} ms  ({1e3 * min(found):.1f} to "
            f"{1e3 * max(found):.1f})  {middle[name] / middle['plain']:.2f} of plain"
        )


def alternate(functions: dict[str, Callable[[], None]], repeats: int) -> dict[str, list[float]]:
    """CPU seconds of each function, called in turn."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats + 2):
        for name, function in functions.items():
            began = time.process_time()
            function()
            times[name].append(time.process_time() - began)
    return {name: found[2:] for name, found in times.items()}


def surrogates(
    env: DifferentiableVectorEnv, policy: GaussianPolicy, cursor: Cursor, noise: Tensor
) -> tuple[Surrogate, Surrogate]:
    """A rollout and its action gradient; the two surrogates, to be computed."""
    window, _ = unroll(env, policy, cursor, noise)
    zeros = torch.zeros_like(window.log_prob)
    gradient = action_gradient(window_objective(window, zeros, 0.99), window)
    plain: Window = window.detach()
    weight = matched_score_weight(plain, zeros, zeros, 0.99)
    return (
        lambda: pathwise_surrogate(policy, plain, gradient),
        lambda: score_function_surrogate(policy, plain, weight),
    )


def per_trajectory(policy: GaussianPolicy, surrogate: Surrogate) -> dict[str, Tensor]:
    """Every trajectory's gradient."""
    recorder = GradientRecorder(policy)
    with recorder.recording():
        values = surrogate()
    return recorder.per_trajectory(values)


if __name__ == "__main__":
    import sys

    from pgtoolkit.scripts.cli import run_command

    run_command(run, sys.argv[1:])
