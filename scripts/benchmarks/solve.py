"""The ``solve`` benchmark: CPU seconds of training until Pendulum is solved.

Solved means a mean return of at least -200 over 100 episodes of Gymnasium's Pendulum-v1 with the
mode of the policy. All learners are evaluated on the same episodes, after every few thousand steps.
The time includes making the agent, training it, and compilation; it excludes the evaluations.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, final

import gymnasium
import numpy as np
from numpy.typing import NDArray

from pgtoolkit.agents.apg import Apg, ApgConfig
from pgtoolkit.agents.ppo import Ppo, PpoConfig
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.scripts.benchmarks.learning import mean_return, mode_action, train
from pgtoolkit.scripts.benchmarks.timing import NOT_INSTALLED, OURS, Case, Row, Seconds, compare

ENV_ID = "Pendulum-v1"

SOLVED_RETURN = -200.0

EPISODES, EPISODE_STEPS = 100, 200
"""Episodes of an evaluation, and steps of each."""

SEEDS = (0, 1, 2, 3, 4)

STEPS_BETWEEN_EVALUATIONS = 4096
"""Environment steps, at least; a learner trains in whole windows."""

MAX_STEPS = 400_000
"""Environment steps after which a run counts as failed."""

PEER = "SB3 PPO, zoo settings"

TARGETS = {"apg": 10.0, "ppo": 2.0}
"""Our agent to the target for the peer's CPU seconds over ours."""

PLANNED_STEPS = {"apg": 400_000, "ppo": 100_000}
"""Agent to its ``total_steps``, which determines the learning rate and whether it compiles."""

APG_CONFIG = ApgConfig(
    num_envs=64,
    n_steps=24,
    gamma=0.98,
    learning_rate=3e-2,
    activation="relu",
    diagnostics_interval=0,
)
"""Settings for APG on our Pendulum. Chosen with seeds other than ``SEEDS``."""

PPO_CONFIG = PpoConfig(
    num_envs=16,
    n_steps=256,
    batch_size=256,
    gamma=0.9,
    learning_rate=2e-3,
    log_std_init=1.0,
    normalize_rewards=False,
    diagnostics_interval=0,
)
"""Settings for our PPO on Gymnasium's environment. Chosen with seeds other than ``SEEDS``."""

SB3_SETTINGS: dict[str, Any] = {
    "n_steps": 1024,
    "gamma": 0.9,
    "gae_lambda": 0.95,
    "n_epochs": 10,
    "ent_coef": 0.0,
    "learning_rate": 1e-3,
    "clip_range": 0.2,
    "use_sde": True,
    "sde_sample_freq": 4,
}
"""The settings of rl-baselines3-zoo for Pendulum-v1, which uses four environments."""

Observations = NDArray[np.float32]


class Learner(Protocol):
    """An agent that can be trained step by step and evaluated in between."""

    def learn(self) -> int:
        """Trains for a few thousand environment steps; returns how many."""

    def act(self, obs: Observations) -> Observations:
        """The mode of the policy's action ``[N, 1]`` for observations ``[N, 3]``."""


@final
@dataclasses.dataclass(frozen=True)
class TrainingRun:
    """The outcome of training one learner with one seed."""

    seconds: Seconds
    steps: int
    """Number of environment steps."""
    mean_return: float
    """Mean return of the last evaluation."""

    @property
    def solved(self) -> bool:
        return self.mean_return >= SOLVED_RETURN


def rows(repeats: int) -> list[Row]:
    """A row for APG and a row for PPO, against SB3's PPO.

    Args:
        repeats: ignored; there is one repeat for each of ``SEEDS``.
    """
    makers: dict[str, Callable[[int], Learner]] = {
        "apg": functools.partial(ApgLearner, APG_CONFIG),
        "ppo": functools.partial(PpoLearner, PPO_CONFIG),
        PEER: Sb3Learner,
    }
    try:
        import stable_baselines3  # noqa: F401  # is it installed?
    except ImportError as error:
        note = f"{NOT_INSTALLED} ({error.name})"
        return [Row(case=case_name(name), peer=PEER, note=note) for name in TARGETS]
    return compare_runs(solve_in_turns(makers, SEEDS))


def solve_in_turns(
    makers: Mapping[str, Callable[[int], Learner]], seeds: Sequence[int]
) -> dict[str, list[TrainingRun]]:
    """Trains every learner with the first seed, then every learner with the next.

    Args:
        makers: learner's name to a function that makes it from a seed.
        seeds: one run of each learner for each.
    """
    runs: dict[str, list[TrainingRun]] = {name: [] for name in makers}
    for seed in seeds:
        for name, make in makers.items():
            runs[name].append(solve(make, seed))
    return runs


def compare_runs(runs: Mapping[str, Sequence[TrainingRun]]) -> list[Row]:
    """A row for each of our agents; its note tells each run's seconds, steps and success."""
    theirs = [run.seconds for run in runs[PEER]]
    found = []
    for name, target in TARGETS.items():
        case = Case(case_name(name), 1, "runs", {OURS: _untimed}, {PEER: target})
        ours = [run.seconds for run in runs[name]]
        note = "; ".join(f"{who}: {describe(runs[who])}" for who in (name, PEER))
        found.append(compare(case, PEER, ours, theirs, note=note))
    return found


def case_name(agent: str) -> str:
    """``apg to a return of -200``."""
    return f"{agent} to a return of {SOLVED_RETURN:.0f}"


def describe(runs: Sequence[TrainingRun]) -> str:
    """``5 of 5 solved, CPU seconds 3.1 2.9 ..., steps 40960 45056 ...``."""
    solved = sum(run.solved for run in runs)
    steps = " ".join(str(run.steps) for run in runs)
    seconds = " ".join(f"{run.seconds.cpu:.1f}" for run in runs)
    return f"{solved} of {len(runs)} solved, CPU seconds {seconds}, steps {steps}"


def solve(make: Callable[[int], Learner], seed: int) -> TrainingRun:
    """Trains until an evaluation reaches ``SOLVED_RETURN``, or for ``MAX_STEPS`` steps."""
    begin = Seconds.now()
    learner = make(seed)
    seconds, steps = Seconds.now().since(begin), 0
    while True:
        begin = Seconds.now()
        steps += learner.learn()
        more = Seconds.now().since(begin)
        seconds = Seconds(seconds.cpu + more.cpu, seconds.wall + more.wall)
        found = evaluate(learner.act, seed)
        if found >= SOLVED_RETURN or steps >= MAX_STEPS:
            return TrainingRun(seconds, steps, found)


def evaluate(act: Callable[[Observations], Observations], seed: int) -> float:
    """The mean return of ``EPISODES`` episodes of Gymnasium's environment."""
    return mean_return(
        act,
        ENV_ID,
        episodes=EPISODES,
        seed=100_000 * (seed + 1),
        max_episode_steps=EPISODE_STEPS,
    )


@final
class ApgLearner:
    """APG on our differentiable Pendulum."""

    def __init__(self, config: ApgConfig, seed: int) -> None:
        env = DifferentiableVectorEnv(Pendulum(), config.num_envs)
        self.agent = Apg(config, env, seed=seed, total_steps=PLANNED_STEPS["apg"])

    def learn(self) -> int:
        return train(self.agent, STEPS_BETWEEN_EVALUATIONS)

    def act(self, obs: Observations) -> Observations:
        return mode_action(self.agent, obs)


@final
class PpoLearner:
    """Our PPO on Gymnasium's environment."""

    def __init__(self, config: PpoConfig, seed: int) -> None:
        env = gymnasium.make_vec(ENV_ID, config.num_envs, vectorization_mode="sync")
        self.agent = Ppo(config, env, seed=seed, total_steps=PLANNED_STEPS["ppo"])

    def learn(self) -> int:
        return train(self.agent, STEPS_BETWEEN_EVALUATIONS)

    def act(self, obs: Observations) -> Observations:
        return mode_action(self.agent, obs)


@final
class Sb3Learner:
    """Stable-Baselines3's PPO on Gymnasium's environment, with the zoo's settings."""

    def __init__(self, seed: int) -> None:
        from stable_baselines3 import PPO
        from stable_baselines3.common.env_util import make_vec_env

        env = make_vec_env(ENV_ID, n_envs=4, seed=seed)
        self.model = PPO("MlpPolicy", env, device="cpu", seed=seed, **SB3_SETTINGS)

    def learn(self) -> int:
        before = self.model.num_timesteps
        # At least one step, which is rounded up to one window of 4 x 1024 steps and its epochs.
        self.model.learn(1, reset_num_timesteps=False)
        return int(self.model.num_timesteps - before)

    def act(self, obs: Observations) -> Observations:
        found: Observations = self.model.predict(obs, deterministic=True)[0]
        return found


def _untimed() -> Callable[[int], None]:
    """A side that does nothing: this module times the runs itself."""
    return lambda index: None
