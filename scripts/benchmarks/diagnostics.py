"""The ``diagnostics`` benchmark: cost of the exact statistics of every trajectory's gradient."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pgtoolkit.agents.shac import Shac, ShacConfig
from pgtoolkit.diagnostics.per_trajectory import GradientRecorder
from pgtoolkit.diagnostics.sample_variance import sample_variances
from pgtoolkit.diagnostics.statistics import GradientStatistics
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.estimators.surrogates import (
    action_gradient,
    matched_score_weight,
    pathwise_surrogate,
    score_function_surrogate,
    window_objective,
)
from pgtoolkit.policies.gaussian import GaussianPolicy
from pgtoolkit.rollouts.rollout import reset, unroll
from pgtoolkit.scripts.benchmarks.timing import OURS, Case, Run
from pgtoolkit.seeding import stream

NUM_ENVS, NUM_STEPS, HIDDEN = 256, 32, (64, 64)

MAX_TIME_SHARE = 0.05
"""Target: the share of training time that measurements take."""

NUM_SAMPLES = 2048
"""Inputs of the network in the comparison with BackPACK."""

Surrogate = Callable[[], Tensor]
"""Computes a surrogate for each trajectory: ``[N]``."""


def cases() -> list[Case]:
    """Cases against a plain backward pass, against training without them, and against BackPACK."""
    work = NUM_ENVS * NUM_STEPS
    plain, off, backpack = "plain forward and backward", "never measuring", "BackPACK"
    return [
        Case(
            f"both estimators, H = {NUM_STEPS}, N = {NUM_ENVS}",
            work,
            "steps",
            {OURS: measured_side, plain: plain_side},
            {plain: 1.25},
            "at most",
        ),
        Case(
            "training with shac, default schedule",
            updates_per_call(),
            "updates",
            {OURS: functools.partial(training_side, default_interval()), off: training_side},
            {off: 1 / (1 - MAX_TIME_SHARE)},
            "at most",
        ),
        Case(
            f"variance by sample, MLP 64x64, {NUM_SAMPLES} samples",
            NUM_SAMPLES,
            "samples",
            {
                OURS: sample_variance_side,
                f"{backpack} Variance": functools.partial(backpack_side, "Variance"),
                f"{backpack} BatchGrad": functools.partial(backpack_side, "BatchGrad"),
            },
            {f"{backpack} Variance": 2.0, f"{backpack} BatchGrad": 2.0},
        ),
    ]


def measured_side() -> Run:
    """Every trajectory's gradient by both estimators, with their statistics."""

    def differentiate(recorder: GradientRecorder, surrogate: Surrogate) -> None:
        with recorder.recording():
            values = surrogate()
        GradientStatistics.of(recorder.per_trajectory(values))

    return _both_estimators(differentiate)


def plain_side() -> Run:
    """A plain backward pass of both estimators."""

    def differentiate(recorder: GradientRecorder, surrogate: Surrogate) -> None:
        recorder.module.zero_grad()
        (-surrogate().mean()).backward()  # type: ignore[no-untyped-call]

    return _both_estimators(differentiate)


def _both_estimators(differentiate: Callable[[GradientRecorder, Surrogate], None]) -> Run:
    """A rollout with its graph, the action gradient, and the gradients of both surrogates.

    Args:
        differentiate: computes the gradient of a surrogate by the parameters of the recorder's
            module, the policy.
    """
    env = DifferentiableVectorEnv(Pendulum(), NUM_ENVS)
    policy = GaussianPolicy(env.single_observation_space, env.single_action_space, HIDDEN)
    recorder = GradientRecorder(policy)
    noise = policy.draw_noise(NUM_STEPS, NUM_ENVS, generator=stream(0, "noise"))
    rollout_state = reset(env, seed=0, device=env.device)

    def run(index: int) -> None:
        window, _ = unroll(env, policy, rollout_state, noise)
        zeros = torch.zeros_like(window.log_prob)
        gradient = action_gradient(window_objective(window, zeros, 0.99), window)
        plain = window.detach()
        weight = matched_score_weight(plain, zeros, zeros, 0.99)
        differentiate(recorder, lambda: pathwise_surrogate(policy, plain, gradient))
        differentiate(recorder, lambda: score_function_surrogate(policy, plain, weight))

    return run


def default_interval() -> int:
    """Updates between measurements by the agent's default."""
    return ShacConfig().diagnostics_interval


def updates_per_call() -> int:
    """Updates in one call; a multiple of the interval, so that each call measures as often."""
    return 2 * default_interval()


def training_side(interval: int = 0) -> Run:
    """Windows and updates of shac on Pendulum.

    Args:
        interval: updates between measurements; 0 never measures.
    """
    config = ShacConfig(diagnostics_interval=interval)
    env = DifferentiableVectorEnv(Pendulum(), config.num_envs)
    agent = Shac(config, env)

    def run(index: int) -> None:
        for _ in range(updates_per_call()):
            agent.update(agent.collect())

    return run


def regression() -> tuple[nn.Sequential, Tensor, Tensor]:
    """A network, inputs ``[M, 3]`` and targets ``[M, 1]`` of a regression."""
    generator = stream(0, "regression")
    network = nn.Sequential(
        nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1)
    )
    inputs = torch.randn(NUM_SAMPLES, 3, generator=generator)
    return network, inputs, inputs.square().sum(1, keepdim=True)


def sample_variance_side() -> Run:
    """Our variance over samples of the squared error's gradient, for every parameter."""
    network, inputs, targets = regression()
    recorder = GradientRecorder(network)

    def run(index: int) -> None:
        sample_variances(network, lambda: (network(inputs) - targets).square().sum(-1), recorder)

    return run


def backpack_side(extension: str) -> Run:
    """BackPACK's ``Variance``, or the variance computed from its ``BatchGrad``."""
    import backpack
    from backpack import extensions

    network, inputs, targets = regression()
    network, loss = backpack.extend(network), backpack.extend(nn.MSELoss(reduction="mean"))
    quantity: Any = getattr(extensions, extension)()

    def run(index: int) -> None:
        network.zero_grad()
        with backpack.backpack(quantity):
            loss(network(inputs), targets).backward()
        if extension == "BatchGrad":
            for parameter in network.parameters():
                # BatchGrad differentiates the mean loss: each is a sample's gradient over M.
                (NUM_SAMPLES * parameter.grad_batch).var(0, unbiased=False)

    return run
