"""The ``diagnostics`` benchmark: what exact statistics of every trajectory's gradient cost."""

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
from pgtoolkit.policies.policy import Policy
from pgtoolkit.rollouts.rollout import start, unroll
from pgtoolkit.scripts.benchmarks.timing import OURS, Case, Run
from pgtoolkit.seeding import stream

NUM_ENVS, NUM_STEPS, HIDDEN = 256, 32, (64, 64)

SHARE = 0.05
"""Of training time, that measuring may take."""

SAMPLES = 2048

Surrogate = Callable[[], Tensor]


def cases() -> list[Case]:
    """Against a plain backward, in training, and against BackPACK on what it can do."""
    work = NUM_ENVS * NUM_STEPS
    plain, off, by_hand = "plain forward and backward", "never measuring", "BackPACK"
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
            updates(),
            "updates",
            {OURS: functools.partial(training_side, schedule()), off: training_side},
            {off: 1 / (1 - SHARE)},
            "at most",
        ),
        Case(
            f"variance by sample, MLP 64x64, {SAMPLES} samples",
            SAMPLES,
            "samples",
            {
                OURS: sample_variance_side,
                f"{by_hand} Variance": functools.partial(backpack_side, "Variance"),
                f"{by_hand} BatchGrad": functools.partial(backpack_side, "BatchGrad"),
            },
            {f"{by_hand} Variance": 2.0, f"{by_hand} BatchGrad": 2.0},
        ),
    ]


def measured_side() -> Run:
    """Every trajectory's gradient by both estimators, and its statistics."""

    def climb(policy: Policy, surrogate: Surrogate) -> None:
        recorder = GradientRecorder(policy)
        with recorder.recording():
            values = surrogate()
        GradientStatistics.of(recorder.per_trajectory(values))

    return _both_estimators(climb)


def plain_side() -> Run:
    """A backward of both estimators."""

    def climb(policy: Policy, surrogate: Surrogate) -> None:
        policy.zero_grad()
        (-surrogate().mean()).backward()  # type: ignore[no-untyped-call]

    return _both_estimators(climb)


def _both_estimators(climb: Callable[[Policy, Surrogate], None]) -> Run:
    """For each estimator a rollout with its graph, the action gradient, and what is asked."""
    env = DifferentiableVectorEnv(Pendulum(), NUM_ENVS)
    policy = GaussianPolicy(env.single_observation_space, env.single_action_space, HIDDEN)
    noise = policy.draw_noise(NUM_STEPS, NUM_ENVS, generator=stream(0, "noise"))
    rollout_state = start(env, seed=0, device=env.device)

    def run(index: int) -> None:
        window, _ = unroll(env, policy, rollout_state, noise)
        zeros = torch.zeros_like(window.log_prob)
        gradient = action_gradient(window_objective(window, zeros, 0.99), window)
        plain = window.detach()
        weight = matched_score_weight(plain, zeros, zeros, 0.99)
        climb(policy, lambda: pathwise_surrogate(policy, plain, gradient))
        climb(policy, lambda: score_function_surrogate(policy, plain, weight))

    return run


def schedule() -> int:
    """Updates between measurements, where nobody says otherwise."""
    return ShacConfig().diagnostics_interval


def updates() -> int:
    """Updates of one call: every one of them has as many measurements."""
    return 2 * schedule()


def training_side(interval: int = 0) -> Run:
    """Windows and updates of shac on the Pendulum; 0 never measures."""
    config = ShacConfig(diagnostics_interval=interval)
    env = DifferentiableVectorEnv(Pendulum(), config.num_envs)
    agent = Shac(config, env)

    def run(index: int) -> None:
        for _ in range(updates()):
            agent.update(agent.collect())

    return run


def regression() -> tuple[nn.Sequential, Tensor, Tensor]:
    """A network, inputs ``[M, 3]`` and targets ``[M, 1]``."""
    generator = stream(0, "regression")
    network = nn.Sequential(
        nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1)
    )
    inputs = torch.randn(SAMPLES, 3, generator=generator)
    return network, inputs, inputs.square().sum(1, keepdim=True)


def sample_variance_side() -> Run:
    """Variance over samples of the squared error's gradient, for every weight."""
    network, inputs, targets = regression()

    def run(index: int) -> None:
        sample_variances(network, lambda: (network(inputs) - targets).square().sum(-1))

    return run


def backpack_side(extension: str) -> Run:
    """BackPACK: its Variance, or the variance of its BatchGrad."""
    import backpack
    from backpack import extensions

    network, inputs, targets = regression()
    network, loss = backpack.extend(network), backpack.extend(nn.MSELoss(reduction="mean"))
    wanted: Any = getattr(extensions, extension)()

    def run(index: int) -> None:
        network.zero_grad()
        with backpack.backpack(wanted):
            loss(network(inputs), targets).backward()
        if extension == "BatchGrad":
            for parameter in network.parameters():
                # Its gradients are of the mean, so a sample's is too small by their number.
                (SAMPLES * parameter.grad_batch).var(0, unbiased=False)

    return run
