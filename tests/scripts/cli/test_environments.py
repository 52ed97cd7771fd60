"""The environments that --env, --differentiate, --adapter-kwargs and --wrappers describe."""

import json
import re
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
import yaml
from gymnasium.spaces import Box

from pgtoolkit.envs.adapters.choose import ADAPTERS, Differentiate, choose_gradient
from pgtoolkit.envs.adapters.learned.env import LearnedModel
from pgtoolkit.envs.adapters.simulation.finite_difference import FiniteDifference
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.registry.resolve import find_env
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.envs.vectorized.vector_env import OrdinaryVectorEnv
from pgtoolkit.envs.wrappers.gradient_gate import GradientGate
from pgtoolkit.envs.wrappers.observation_detach import ObservationDetach
from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli import main as cli
from pgtoolkit.scripts.cli.environments import EnvFactory, make_env_factory
from pgtoolkit.scripts.cli.experiment import parse_settings

# Gymnasium warns that a torque in [-2, 2] is not normalised.
pytestmark = pytest.mark.filterwarnings("ignore:.*WARN.*:UserWarning")
QUICK = ["--total-steps", "64", "--num-envs", "2", "--n-steps", "8", "--hidden", "4"]
QUICK += ["--eval-episodes", "1"]


def make(name: str, differentiate: Differentiate = "auto", **kwargs: Any) -> EnvFactory:
    settings: dict[str, Any] = {"adapter_kwargs": {}, "wrappers": {}, "needed": True} | kwargs
    device = torch.device("cpu")
    return make_env_factory(name, {}, differentiate=differentiate, device=device, **settings)


def make_from(env: type[gymnasium.Env[Any, Any]], **kwargs: Any) -> EnvFactory:
    settings: dict[str, Any] = {"adapter_kwargs": {}, "wrappers": {}, "needed": True} | kwargs
    return make_env_factory(env, {}, differentiate="auto", device=torch.device("cpu"), **settings)


class Thermostat(gymnasium.Env[Any, Any]):
    """Cuts its episodes in its own step, and tells no one its limit."""

    observation_space = Box(-50, 50, (1,))
    action_space = Box(-1, 1, (1,))

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.temperature, self.elapsed = float(self.np_random.uniform(-1, 1)), 0
        return np.array([self.temperature], np.float32), {}

    def step(self, action: Any) -> Any:
        self.temperature = 0.9 * self.temperature + float(action[0])
        self.elapsed += 1
        row = np.array([self.temperature], np.float32)
        return row, -(self.temperature**2), False, self.elapsed >= 20, {}


def dynamics(factory: EnvFactory) -> DifferentiableEnv:
    env = factory.make(2)
    assert isinstance(env, DifferentiableVectorEnv)
    return env.env


def test_auto_takes_the_environment_s_own_gradient_without_a_note() -> None:
    found = make("pgtoolkit/Pendulum-v0")
    assert isinstance(dynamics(found), Pendulum) and found.batched
    assert found.gradient.sentence == ""


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("Pendulum-v1", "finite-difference"),
        ("Reacher-v5", "mujoco"),
        ("InvertedPendulum-v5", "mujoco"),
    ],
)
def test_auto_takes_the_best_adapter_and_says_so(name: str, method: str) -> None:
    found = make(name)
    assert found.gradient.method == method
    assert f"--differentiate {method}" in found.gradient.sentence
    assert isinstance(dynamics(found), FiniteDifference) and not found.batched


def test_auto_adds_no_adapter_if_no_gradient_is_needed() -> None:
    found = make("Pendulum-v1", needed=False)
    assert found.gradient.env is None
    assert isinstance(found.make(2), OrdinaryVectorEnv)


@pytest.mark.parametrize("method", [*ADAPTERS])
def test_evaluation_is_on_the_plain_environment(method: Differentiate) -> None:
    name = "Reacher-v5" if method == "mujoco" else "Pendulum-v1"
    assert isinstance(make(name, method).make_for_evaluation(3), OrdinaryVectorEnv)


def test_where_no_adapter_fits_the_message_gives_each_reason() -> None:
    with pytest.raises(RequestError, match=r"not finite-difference: .*not model: .*reinforce"):
        make("Pendulum-v1", adapter_kwargs={"stride": 1})


def test_actions_without_a_slope_are_refused_once_and_in_few_words() -> None:
    with pytest.raises(RequestError, match=r"not finite-difference or model: .*continuous") as why:
        make("CartPole-v1")
    message = str(why.value)
    assert len(message) < 300 and "Flatten" not in message


def test_a_reason_that_two_adapters_share_is_given_once() -> None:
    with pytest.raises(RequestError) as raised:
        make_from(Thermostat)
    message = str(raised.value)
    assert message.count("no time limit") == 1
    assert "not finite-difference or model: Thermostat has no time limit" in message


def test_the_advice_on_a_time_limit_works_as_it_is_printed() -> None:
    with pytest.raises(RequestError) as raised:
        make_from(Thermostat)
    advice = re.search(r"--adapter-kwargs '(\{.*?\})'", raised.value.with_flags)
    assert advice is not None
    found = make_from(Thermostat, adapter_kwargs=json.loads(advice[1]))
    assert found.gradient.method == "finite-difference"
    assert dynamics(found).max_episode_steps == 200


def test_auto_passes_over_an_adapter_that_does_not_take_the_arguments() -> None:
    found = make_from(Thermostat, adapter_kwargs={"max_episode_steps": 200, "capacity": 5000})
    assert found.gradient.method == "model"
    assert "does not take the argument 'capacity'" in found.gradient.sentence


def test_arguments_reach_the_adapter() -> None:
    found = dynamics(make("Pendulum-v1", "finite-difference", adapter_kwargs={"tolerance": 0.5}))
    assert isinstance(found, FiniteDifference) and found.tolerance == 0.5
    arguments = {"capacity": 5000, "seed": 7}
    model = dynamics(make("Pendulum-v1", "model", adapter_kwargs=arguments))
    assert isinstance(model, LearnedModel)
    assert (model.config.capacity, model.seed) == (5000, 7)


@pytest.mark.parametrize(
    ("differentiate", "kwargs", "complaint"),
    [
        ("auto", {"adapter_kwargs": {"step": 1.0}, "needed": False}, "arguments for an adapter"),
        ("none", {"adapter_kwargs": {"step": 1.0}}, "arguments for an adapter"),
        ("finite-difference", {"adapter_kwargs": {"stride": 1}}, "does not take the argument 's"),
        ("mujoco", {}, "MuJoCo"),
        ("none", {"wrappers": {"GradientGate": {}}}, "without a gradient"),
        ("finite-difference", {"wrappers": {"Gate": {}}}, "no wrapper named 'Gate'"),
        ("finite-difference", {"wrappers": {"GradientGate": 3}}, "must be a JSON object"),
        ("finite-difference", {"wrappers": {"GradientGate": {"x": 3}}}, "does not take"),
    ],
)
def test_arguments_that_cannot_be_combined_are_refused(
    differentiate: Differentiate, kwargs: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(RequestError, match=complaint):
        make("Pendulum-v1", differentiate, **kwargs)


def test_wrappers_keep_their_order_and_evaluation_has_its_own() -> None:
    wrappers = {"GradientGate": {"clip_norm": 3.0}, "ObservationDetach": {}}
    found = make("Pendulum-v1", "model", wrappers=wrappers)
    outer = dynamics(found)
    assert isinstance(outer, ObservationDetach) and isinstance(outer.env, GradientGate)
    evaluation = found.make_for_evaluation(2)
    assert isinstance(evaluation, DifferentiableVectorEnv)
    assert evaluation.env.unwrapped is not outer.unwrapped


def test_an_exact_environment_may_be_differentiated_by_an_adapter() -> None:
    found = choose_gradient(find_env("Pendulum-v1"), "finite-difference", needed=False)
    assert isinstance(found.env, FiniteDifference)


def test_a_run_says_what_was_chosen_keeps_it_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    wrappers = ["--wrappers", json.dumps({"GradientGate": {"clip_norm": 5.0}})]
    assert call("train", "shac", "--env", "Pendulum-v1", "--run-dir", "r", *QUICK, *wrappers) == 0
    assert "differentiated by finite differences" in capsys.readouterr().out
    config = yaml.safe_load((tmp_path / "r" / "config.yaml").read_text())
    assert config["differentiate"] == "finite-difference"
    assert config["wrappers"] == {"GradientGate": {"clip_norm": 5.0}}
    assert call("resume", "r", "--total-steps", "96") == 0
    assert call("evaluate", "r", "--episodes", "2") == 0
    assert call("evaluate", "r", "--episodes", "2", "--env", "pgtoolkit/Pendulum-v0") == 0


def call(*arguments: str) -> int:
    name, *rest = arguments
    with pytest.raises(SystemExit) as caught:
        cli.run_command(lambda found: cli.dispatch(name, found), rest)
    return int(caught.value.code or 0)


def test_gym_wrappers_go_with_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are stored; evaluate, resume and variance apply them without being told."""
    run = tmp_path / "run"
    wrappers = {"TimeLimit": {"max_episode_steps": 12}, "FrameStackObservation": {"stack_size": 2}}
    flags = ["--gym-wrappers", json.dumps(wrappers), "--run-dir", str(run), *QUICK]
    assert call("train", "ppo", "--env", "CartPole-v1", "--batch-size", "8", *flags) == 0
    assert yaml.safe_load((run / "config.yaml").read_text())["gym_wrappers"] == wrappers
    result = tmp_path / "result.json"
    assert call("evaluate", str(run), "--episodes", "2", "--json", str(result)) == 0
    assert max(json.loads(result.read_text())["lengths"]) <= 12
    assert call("resume", str(run), "--total-steps", "96") == 0
    study = ["--horizons", "2", "--trajectories", "10"]
    assert call("variance", str(run), *study) == 0
    capsys.readouterr()
    assert call("evaluate", str(run), "--gym-wrappers", "{}") == 2
    assert "trained for other spaces" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["check-env", "CartPole-v1"], "did you mean TimeLimit?"),
        (["variance", "--env", "CartPole-v1"], "did you mean TimeLimit?"),
        (["train", "ppo", "--env", "CartPole-v1"], "did you mean TimeLimit?"),
        (["train", "shac", "--env", "pgtoolkit/Pendulum-v0"], "use --wrappers"),
    ],
)
def test_a_wrong_gym_wrapper_is_a_wrong_request(
    command: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*command, "--gym-wrappers", '{"TimeLimits": {}}') == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_a_wrapper_in_a_file_is_stored_with_its_whole_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("from gymnasium.wrappers import TimeLimit as Short\n")
    flags = ["--gym-wrappers", '{"mine.py:Short": {"max_episode_steps": 5}}']
    settings = parse_settings("ppo", ["--env", "CartPole-v1", *flags], command="train ppo")
    assert settings.as_dict()["gym_wrappers"] == {
        f"{tmp_path.resolve() / 'mine.py'}:Short": {"max_episode_steps": 5}
    }
