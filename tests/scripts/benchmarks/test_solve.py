"""The ``solve`` benchmark: when a run ends, and that our learners learn and act."""

from collections.abc import Callable

import numpy as np
import pytest

from pgtoolkit.agents.apg import ApgConfig
from pgtoolkit.scripts.benchmarks import solve


class FakeLearner:
    """A learner whose action is its number of steps, at most ``best``."""

    def __init__(self, best: float) -> None:
        self.best, self.steps = best, 0

    def learn(self) -> int:
        self.steps += 100
        return 100

    def act(self, obs: solve.Observations) -> solve.Observations:
        return np.full((len(obs), 1), min(self.steps, self.best), np.float32)


def make_fake(best: float) -> Callable[[int], solve.Learner]:
    """A function from a seed to such a learner."""
    return lambda seed: FakeLearner(best)


def test_training_ends_when_solved_or_at_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every learner is trained with every seed; failed runs are counted as failed."""

    def fake_return(act: Callable[[solve.Observations], solve.Observations], seed: int) -> float:
        return float(act(np.zeros((1, 3), np.float32))[0, 0]) - 500.0

    monkeypatch.setattr(solve, "evaluate", fake_return)
    monkeypatch.setattr(solve, "MAX_STEPS", 1000)
    makers = {"apg": make_fake(1e9), "ppo": make_fake(100.0), solve.PEER: make_fake(1e9)}
    found = solve.solve_in_turns(makers, (0, 1))
    assert [run.steps for run in found["apg"]] == [300, 300] and found["apg"][0].solved
    assert [run.steps for run in found["ppo"]] == [1000, 1000] and not found["ppo"][0].solved
    assert "0 of 2 solved" in solve.describe(found["ppo"])


def test_our_learners_learn_and_act(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small ones; the evaluation is Gymnasium's Pendulum, whose worst return is -16.3 a step."""
    monkeypatch.setattr(solve, "STEPS_BETWEEN_EVALUATIONS", 16)
    monkeypatch.setattr(solve, "EPISODES", 2)
    monkeypatch.setattr(solve, "EPISODE_STEPS", 3)
    apg = ApgConfig(num_envs=4, n_steps=4, hidden=(8,), diagnostics_interval=0)
    learner = solve.ApgLearner(apg, 0)
    assert learner.learn() == 16
    assert -3 * 16.3 < solve.evaluate(learner.act, 0) < 0
