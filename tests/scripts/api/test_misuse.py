"""Each of the five lines, misused: a sentence says what, why and what to do, in Python's words."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

import pgtoolkit
from pgtoolkit.agents.ppo import PpoConfig
from pgtoolkit.agents.shac import Shac, ShacConfig
from pgtoolkit.envs import DifferentiableVectorEnv, Pendulum
from pgtoolkit.errors import RequestError

ID = "pgtoolkit/Pendulum-v0"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> pgtoolkit.Run:
    settings: dict[str, Any] = {"num_envs": 4, "n_steps": 16, "eval_episodes": 1}
    folder = tmp_path_factory.mktemp("runs") / "run"
    return pgtoolkit.train("ppo", "Pendulum-v1", total_steps=64, run_dir=folder, **settings)


def train(*arguments: Any, **settings: Any) -> Any:
    """One small window at most, should nothing be refused."""
    small = {"num_envs": 8, "n_steps": 8} if isinstance(arguments[0], str) else {}
    return pgtoolkit.train(*arguments, **{"total_steps": 64, "eval_interval": 0} | small | settings)


def returns_true(progress: object, metrics: object) -> bool:
    return True


TRAIN: list[tuple[Callable[[], Any], str]] = [
    (lambda: train("sahc", ID), "no agent named 'sahc': did you mean"),
    (lambda: train("dqn", ID), "has no agent dqn"),
    (lambda: train(Shac, ID), "not the class Shac"),
    (lambda: train(ShacConfig, ID), "not the class ShacConfig"),
    (lambda: train(None, ID), "None is no agent"),
    (lambda: train("shac", "Pendulumm-v1"), "there is no environment Pendulumm-v1"),
    (lambda: train("shac", ""), "env is empty"),
    (lambda: train("shac", None), "None is not an environment"),
    (lambda: train("shac", lambda: 3), "makes no environment: 3"),
    (lambda: train("shac", "nofile.py:Env"), "there is no file"),
    (lambda: train("shac", "CartPole-v1"), "no adapter can give it one"),
    (lambda: train("shac", ID, num_env=3), "no setting num_env: did you mean num_envs"),
    (lambda: train("shac", ID, num_envs=-1), "^num_envs must be at least 1, not -1"),
    (lambda: train("shac", ID, num_envs="8"), "^num_envs must be an integer, not '8'"),
    (lambda: train("shac", ID, total_steps=1.5), "^total_steps must be an integer"),
    (lambda: train("shac", ID, seed=None), "^seed must be given"),
    (lambda: train("shac", ID, device="tpu"), "^device must be cpu or cuda or auto"),
    (lambda: train("shac", ID, estimator="best"), "^estimator must be auto or"),
    (lambda: train("shac", ID, estimator="mixed", num_envs=2), "with estimator='mixed', not 2"),
    (lambda: train("shac", ID, env_kwargs={"gg": 1.0}), "does not take the argument 'gg'"),
    (lambda: train("shac", ID, env_kwargs={"g": print}), "env_kwargs holds what"),
    (lambda: train("shac", ID, env_kwargs=[1]), "env_kwargs must be a dictionary"),
    (lambda: train("shac", Pendulum(), env_kwargs={"g": 1.0}), "come too late"),
    (lambda: train("shac", ID, wrappers={"Nope": {}}), "no wrapper named 'Nope'"),
    (lambda: train("shac", ID, gym_wrappers={"TimeLimit": {}}), "leave gym_wrappers out"),
    (lambda: train("ppo", "CartPole-v1", distribution="beta"), "leave distribution out"),
    (lambda: train("shac", ID, callback=3), "callback must be a function"),
    (lambda: train("shac", ID, callback=lambda: None), "callback cannot be called"),
    (lambda: train("shac", ID, callback=returns_true), "raise pgtoolkit.StopTraining"),
    (lambda: train("shac", ID, run_dir=3), "run_dir must be the path"),
    (
        lambda: train(PpoConfig(num_envs=4), gymnasium.make_vec("CartPole-v1", num_envs=2)),
        "num_envs is said twice",
    ),
    (
        lambda: train("ppo", gymnasium.make_vec("CartPole-v1", num_envs=8), vectorization="async"),
        "leave vectorization out",
    ),
    (
        lambda: train("shac", DifferentiableVectorEnv(Pendulum(), 8, dtype=torch.float64)),
        "computes in torch.float64",
    ),
    (lambda: ShacConfig(num_envs=-1), "^num_envs must be at least 1, not -1"),
    (lambda: ShacConfig(hidden="64"), "^hidden must be a tuple"),  # type: ignore[arg-type]
]
"""Line 2, and the configuration that it takes."""


@pytest.mark.parametrize(("misuse", "message"), TRAIN)
def test_train(
    misuse: Callable[[], Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match=message) as caught:
        misuse()
    assert "--" not in str(caught.value)


PREDICT: list[tuple[Callable[[pgtoolkit.Run], Any], str]] = [
    (lambda run: run.policy.predict(np.zeros(4)), "has the shape"),
    (lambda run: run.policy.predict(gymnasium.make("Pendulum-v1").reset()), "first entry alone"),
    (lambda run: run.policy.predict("x"), "dtype"),
    (lambda run: run.policy.predict(np.zeros(3), deterministic=False), "give generator="),
]
"""Line 3; the others are in the tests of the policy itself."""

LOAD: list[tuple[Callable[[pgtoolkit.Run], Any], str]] = [
    (lambda run: pgtoolkit.load("nowhere"), "holds no run"),
    (lambda run: pgtoolkit.load(""), "not the folder of a run"),
    (lambda run: pgtoolkit.load(3), "not the folder of a run"),  # type: ignore[arg-type]
    (lambda run: pgtoolkit.load(run), "not the folder of a run"),  # type: ignore[arg-type]
    (lambda run: pgtoolkit.load(run.directory, env=3), "3 is not an env"),  # type: ignore[arg-type]
    (lambda run: pgtoolkit.load(run.directory, env="CartPole-v1"), "does not fit"),
    (
        lambda run: run.resume(),
        "finished, at 64 steps: lengthen it by one window or more, with total_steps=128 or above",
    ),
    (lambda run: run.resume(10), "is finished"),
    (lambda run: run.resume(-5), "^total_steps must be at least 1"),
    (lambda run: run.resume(1.5), "^total_steps must be an integer"),  # type: ignore[arg-type]
    (lambda run: run.resume(128, callback=3), "callback must be"),  # type: ignore[arg-type]
    (lambda run: train("ppo", "Pendulum-v1", run_dir=run.directory), "another run_dir"),
]
"""Line 4, and going on with the run."""

EVALUATE: list[tuple[Callable[[pgtoolkit.Run], Any], str]] = [
    (lambda run: pgtoolkit.evaluate("nowhere"), "holds no run"),
    (lambda run: pgtoolkit.evaluate(None), "not the folder"),  # type: ignore[arg-type]
    (lambda run: pgtoolkit.evaluate(run, env="CartPole-v1"), "does not fit"),
    (lambda run: pgtoolkit.evaluate(run, env="Nope-v1"), "there is no environment Nope-v1"),
    (lambda run: pgtoolkit.evaluate(run, env=3), "is not an env"),  # type: ignore[arg-type]
    (lambda run: pgtoolkit.evaluate(run, episodes=0), "^episodes must be from 1"),
    (lambda run: pgtoolkit.evaluate(run, episodes=2.5), "integer"),  # type: ignore[arg-type]
    (lambda run: pgtoolkit.evaluate(run, seed=-1), "^seed must be at least 0"),
    (lambda run: pgtoolkit.evaluate(run, stochastic=1), "True or False"),  # type: ignore[arg-type]
    (lambda run: pgtoolkit.evaluate(run, checkpoint="first"), "best or"),  # type: ignore[arg-type]
    (lambda run: pgtoolkit.evaluate(run, env_kwargs={"x": 1.0}), "does not take the argument"),
]
"""Line 5."""


@pytest.mark.parametrize(("misuse", "message"), [*PREDICT, *LOAD, *EVALUATE])
def test_a_run(misuse: Callable[[pgtoolkit.Run], Any], message: str, run: pgtoolkit.Run) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        misuse(run)
    assert "--" not in str(caught.value)
