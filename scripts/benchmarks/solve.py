"""The ``solve`` benchmark: CPU seconds of training until the Pendulum is solved.

Solved is a mean return of at least -200 over 100 episodes of Gymnasium's Pendulum-v1, by the mode
of the policy. All are evaluated on the same episodes after every few thousand steps. What counts is
making the agent and training it, with whatever is compiled on the way; evaluations do not.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, final

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray

from pgtoolkit.agents.apg import Apg, ApgConfig
from pgtoolkit.agents.ppo import Ppo, PpoConfig
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.scripts.benchmarks.timing import INSTALL, OURS, Case, Row, Seconds, compare

ENV = "Pendulum-v1"

SOLVED, EPISODES, EPISODE_STEPS = -200.0, 100, 200

SEEDS = (0, 1, 2, 3, 4)

MOST_STEPS = 400_000
"""Environment steps after which a run counts as failed."""

PEER = "SB3 PPO, zoo settings"

TARGETS = {"apg": 10.0, "ppo": 2.0}
"""Throughput: how many times fewer CPU seconds we are to need."""

PATHWISE = ApgConfig(
    num_envs=64,
    n_steps=24,
    gamma=0.98,
    learning_rate=3e-2,
    activation="relu",
    diagnostics_interval=0,
)
"""Ours by the pathwise gradient, on our own dynamics. Chosen with seeds other than those here."""

SCORE_FUNCTION = PpoConfig(
    num_envs=16,
    n_steps=256,
    batch_size=256,
    gamma=0.9,
    learning_rate=2e-3,
    log_std_init=1.0,
    diagnostics_interval=0,
)
"""Ours by PPO, in Gymnasium's environment. Chosen with seeds other than those here."""

ZOO: dict[str, Any] = {
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
"""Of rl-baselines3-zoo for Pendulum-v1, with four environments."""

Observations = NDArray[np.float32]


class Learner(Protocol):
    """What is trained: it can go on, and it can act."""

    def learn(self) -> int:
        """Trains for a few thousand environment steps; returns how many."""

    def act(self, obs: Observations) -> Observations:
        """``[N, 3]`` to the policy's mode ``[N, 1]``."""


@final
@dataclasses.dataclass(frozen=True)
class Solving:
    """One run."""

    seconds: Seconds
    steps: int
    mean_return: float

    @property
    def solved(self) -> bool:
        return self.mean_return >= SOLVED


def rows(repeats: int) -> list[Row]:
    """Ours by pathwise gradients and by PPO against SB3's PPO: five seeds, whatever the repeats."""
    makers: dict[str, Callable[[int], Learner]] = {
        "apg": functools.partial(PathwiseLearner, PATHWISE),
        "ppo": functools.partial(PpoLearner, SCORE_FUNCTION),
        PEER: Sb3Learner,
    }
    try:
        import stable_baselines3  # noqa: F401  # is it there?
    except ImportError as error:
        note = f"{INSTALL} ({error.name})"
        return [Row(case=case_name(name), peer=PEER, note=note) for name in TARGETS]
    return rows_of(solve_in_turns(makers, SEEDS))


def solve_in_turns(
    makers: Mapping[str, Callable[[int], Learner]], seeds: Sequence[int]
) -> dict[str, list[Solving]]:
    """Every learner with the first seed, then every one with the next."""
    found: dict[str, list[Solving]] = {name: [] for name in makers}
    for seed in seeds:
        for name, make in makers.items():
            found[name].append(solve(make, seed))
    return found


def rows_of(found: Mapping[str, Sequence[Solving]]) -> list[Row]:
    """A row for each of ours: every seed's seconds, and which runs failed."""
    theirs = [run.seconds for run in found[PEER]]
    made = []
    for name, target in TARGETS.items():
        case = Case(case_name(name), 1, "runs", {OURS: _none}, {PEER: target})
        ours = [run.seconds for run in found[name]]
        note = "; ".join(f"{who}: {describe(found[who])}" for who in (name, PEER))
        made.append(compare(case, PEER, ours, theirs, note=note))
    return made


def case_name(agent: str) -> str:
    """``apg to -200``."""
    return f"{agent} to a return of {SOLVED:.0f}"


def describe(runs: Sequence[Solving]) -> str:
    """``5 of 5 solved, steps 40960 45056 ...``."""
    solved = sum(run.solved for run in runs)
    steps = " ".join(str(run.steps) for run in runs)
    seconds = " ".join(f"{run.seconds.cpu:.1f}" for run in runs)
    return f"{solved} of {len(runs)} solved, CPU seconds {seconds}, steps {steps}"


def solve(make: Callable[[int], Learner], seed: int) -> Solving:
    """Trains until an evaluation says that it is solved, or for too long."""
    begin = Seconds.now()
    learner = make(seed)
    seconds, steps = Seconds.now().since(begin), 0
    while True:
        begin = Seconds.now()
        steps += learner.learn()
        more = Seconds.now().since(begin)
        seconds = Seconds(seconds.cpu + more.cpu, seconds.wall + more.wall)
        mean_return = evaluate(learner.act, seed)
        if mean_return >= SOLVED or steps >= MOST_STEPS:
            return Solving(seconds, steps, mean_return)


def evaluate(act: Callable[[Observations], Observations], seed: int) -> float:
    """The mean return of 100 episodes of Gymnasium's environment."""
    env = gymnasium.make_vec(ENV, EPISODES, vectorization_mode="sync")
    obs, _ = env.reset(seed=100_000 * (seed + 1))
    total = 0.0
    for _ in range(EPISODE_STEPS):
        obs, reward, *_ = env.step(act(obs))
        total += float(reward.sum())
    return total / EPISODES


@final
class PathwiseLearner:
    """Apg on our differentiable Pendulum."""

    def __init__(self, config: ApgConfig, seed: int) -> None:
        env = DifferentiableVectorEnv(Pendulum(), config.num_envs)
        self.agent = Apg(config, env, seed=seed, total_steps=PLANNED["apg"])

    def learn(self) -> int:
        return train(self.agent, PERIOD)

    def act(self, obs: Observations) -> Observations:
        return mode(self.agent, obs)


@final
class PpoLearner:
    """Ppo in Gymnasium's environment."""

    def __init__(self, config: PpoConfig, seed: int) -> None:
        env = gymnasium.make_vec(ENV, config.num_envs, vectorization_mode="sync")
        self.agent = Ppo(config, env, seed=seed, total_steps=PLANNED["ppo"])

    def learn(self) -> int:
        return train(self.agent, PERIOD)

    def act(self, obs: Observations) -> Observations:
        return mode(self.agent, obs)


PERIOD = 4096
"""Environment steps between evaluations, at least."""

PLANNED = {"apg": 400_000, "ppo": 100_000}
"""Environment steps that a run plans: what learning rates and compilation go by."""


def train(agent: Apg | Ppo, steps: int) -> int:
    """Updates the agent with windows of so many steps in all, at least."""
    done = 0
    while done < steps:
        window = agent.collect()
        agent.update(window)
        done += window.num_steps * window.num_envs
    return done


@torch.no_grad()
def mode(agent: Apg | Ppo, obs: Observations) -> Observations:
    """The mode of the policy's action ``[N, 1]``."""
    found: Observations = agent.policy(torch.as_tensor(obs).float()).mode.numpy()
    return found


@final
class Sb3Learner:
    """Stable-Baselines3's PPO with the zoo's settings."""

    def __init__(self, seed: int) -> None:
        from stable_baselines3 import PPO
        from stable_baselines3.common.env_util import make_vec_env

        env = make_vec_env(ENV, n_envs=4, seed=seed)
        self.model = PPO("MlpPolicy", env, device="cpu", seed=seed, **ZOO)

    def learn(self) -> int:
        before = self.model.num_timesteps
        # One window of 4 x 1024, and its epochs.
        self.model.learn(1, reset_num_timesteps=False)
        return int(self.model.num_timesteps - before)

    def act(self, obs: Observations) -> Observations:
        found: Observations = self.model.predict(obs, deterministic=True)[0]
        return found


def _none() -> Callable[[int], None]:
    """Runs are timed here, not by :func:`measure <pgtoolkit.scripts.benchmarks.timing.measure>`."""
    return lambda index: None
